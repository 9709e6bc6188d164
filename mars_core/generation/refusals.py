"""Whether a text declines to do what was asked, by how people and models say so in about 40 languages.

A refusal is a first person who cannot, may not or will not, beside an act that a generator is asked for; or
an appeal to its own rules. It is looked for where a reply begins. The wordings are in `refusals.txt`.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

OPENING = 320
"""Characters at the beginning of a text in which a refusal stands."""


def is_refusal(text: str) -> bool:
    """Whether a text begins by declining, as in "I'm sorry, but I can't help with that".

    >>> is_refusal("Es tut mir leid, dabei kann ich nicht helfen.")
    True
    """
    opening = text[:OPENING].lower().replace("’", "'").replace("‘", "'")
    return _refusals().search(opening) is not None


@cache
def _refusals() -> re.Pattern[str]:
    wordings = files(__package__).joinpath("refusals.txt").read_text(encoding="utf-8")
    return re.compile("|".join(_expressions(wordings.splitlines())))


def _expressions(lines: list[str]) -> Iterator[str]:
    """The regular expressions in lines of `refusals.txt`."""
    whole: list[str] = []
    for line in lines:
        if line.startswith(" "):
            whole[-1] += line.lstrip()
        elif line and not line.startswith("#"):
            whole.append(line)
    named: dict[str, str] = {}
    for expression in whole:
        filled = re.sub(r"<(\w+)>", lambda name: named[name[1]], expression)
        if definition := re.match(r"(\w+) = ", filled):
            named[definition[1]] = filled[definition.end() :]
        else:
            yield filled
