"""What a model is told for each role: the templates in `prompts/`, filled with a request's texts.

A template is a system and a user message with a line `---` between them. The placeholders are
`$prompt`, `$chosen` and `$rejected`; a paraphrased prompt stands for its last user turn alone. Each is put
between tags, which get a number where a text holds them itself. A response needs no instruction: the dialogue
itself is what the model is told.
"""

import itertools
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from string import Template

from mars_core.data.dialogue import turns
from mars_core.generation.interface import Message, Request, Role

_TAGS = re.compile(r"(</?(?:text|prompt|dispreferred|preferred))(>)")
_CLOSING = re.compile(r"</(?:text|prompt|dispreferred|preferred)(-\d+)?\s*>")


def messages(request: Request) -> tuple[Message, ...]:
    """The chat messages of a request: system, then user; or the turns of a dialogue."""
    if request.role == "respond":
        return tuple({"role": turn.role, "content": turn.content} for turn in turns(request.prompt))
    prompt = request.source if request.role == "paraphrase_prompt" else request.prompt
    system, user = _templates(request.role)
    texts = {"prompt": prompt, "chosen": request.chosen, "rejected": request.rejected}
    if suffix := _free_suffix(texts[name] for name in user.get_identifiers()):
        system, user = (
            Template(_TAGS.sub(rf"\1{suffix}\2", template.template)) for template in (system, user)
        )
    return (
        {"role": "system", "content": system.substitute(texts)},
        {"role": "user", "content": user.substitute(texts)},
    )


def _free_suffix(texts: Iterable[str]) -> str:
    """What the tags around the material have to end in, so that no text can close its own: mostly nothing."""
    taken = {match[1] or "" for text in texts for match in _CLOSING.finditer(text)}
    numbered = (f"-{number}" for number in itertools.count(2))
    return next(suffix for suffix in itertools.chain([""], numbered) if suffix not in taken)


@cache
def _templates(role: Role) -> tuple[Template, Template]:
    text = files(__package__).joinpath("prompts", f"{role}.txt").read_text(encoding="utf-8")
    system, user = text.split("\n---\n")
    return Template(system.strip()), Template(user.strip())
