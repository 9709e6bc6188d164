"""Code in a response: in which language it is, and where it stands.

Only what is easily told counts: a fenced block that names a known language, or a text whose first line begins
a definition in one.
"""

import re
from typing import NamedTuple

COMMENTS = {
    "python": "#", "javascript": "//", "java": "//", "cpp": "//", "c": "//", "go": "//", "rust": "//",
}  # fmt: skip
"""Language → what begins a comment that goes on to the end of the line."""
_ALIASES = {
    "py": "python",
    "python3": "python",
    "js": "javascript",
    "c++": "cpp",
    "golang": "go",
    "rs": "rust",
}
_FENCE = re.compile(r"```([\w+]+)[^\S\n]*\n(.*?)\n?```", re.DOTALL)
_FIRST_LINES = {
    "python": re.compile(r"(?:async )?def \w+\(.*\).*:$|class \w+.*:$|(?:from [\w.]+ )?import [\w., ]+$"),
    "go": re.compile(r"func .*\{$|package \w+$"),
    "rust": re.compile(r"(?:pub )?(?:fn|impl|struct|use)\b.*[{;]$"),
    "javascript": re.compile(r"(?:async )?function\b.*\{$|(?:const|let|var) \w+ = .*[{;]$"),
    "java": re.compile(r"(?:import java|(?:public|private|protected|static)\b).*[{;]$"),
    "cpp": re.compile(r"#include <\w+>$|(?:std::\S+|int|long|bool|void|double|char|auto)[\s*&]+\w+\(.*\{$"),
}
"""Language → the first line of a definition."""


class Code(NamedTuple):
    """A text with code in it: what stands before the code, the code, and what stands after it."""

    language: str
    before: str
    code: str
    after: str

    def with_code(self, code: str) -> str:
        """The text with other code."""
        return self.before + code + self.after


def code_of(text: str) -> Code | None:
    """The first code of a text, if it has some in a language of `COMMENTS`."""
    fenced = _FENCE.search(text)
    if fenced:
        named = fenced[1].lower()
        language = _ALIASES.get(named, named)
        if language not in COMMENTS:
            return None
        return Code(language, text[: fenced.start(2)], fenced[2], text[fenced.end(2) :])
    language = _begun_by(text.lstrip("\n").partition("\n")[0])
    return Code(language, "", text, "") if language else None


def has_code(text: str) -> bool:
    """Whether a change of its letters, words or spaces may break code in a text."""
    return "```" in text or any(map(_begun_by, text.splitlines()))


def _begun_by(line: str) -> str | None:
    """The language of a definition that a line begins."""
    found = (language for language, pattern in _FIRST_LINES.items() if pattern.match(line.strip()))
    return next(found, None)
