"""What a model is told for each role: templates, filled with a request's texts.

A set of templates is a folder with a file for each role, `paraphrase_prompt.txt` and so on: `standard` and
`small` come with this package, and a user's own is named by its path. A template has two or three parts with
a line `---` between them: a system message, which may be empty, a user message, and the words that the
model's reply begins with, where it is to go on from some. The placeholders are `$prompt`, `$chosen` and
`$rejected`; a paraphrased prompt stands for its last user turn alone. Tags such as `<text>` around a text get
a number where the text holds them itself. A reply that begins with a quotation mark ends at the closing one,
and begins without where a text holds that mark itself. A response needs no template: the dialogue itself is
what the model is told.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, get_args

from mars_core.data.dialogue import turns
from mars_core.errors import MarsError
from mars_core.files import digest
from mars_core.generation.interface import Message, Request, Role

BUILT_IN = ("standard", "small")
ROLES: tuple[Role, ...] = tuple(role for role in get_args(Role) if role != "respond")
"""The roles that have a template."""
SPEAKERS = ("system", "user", "assistant")
QUOTES = {'"': '"', "“": "”", "«": "»"}
PLACEHOLDERS = {"prompt", "chosen", "rejected"}
LEAST_CHARACTERS = 25
"""Characters up to which a line may stand in a text by chance."""
_TAGS = re.compile(r"(</?(?:text|prompt|dispreferred|preferred))(>)")
_CLOSING = re.compile(r"</(?:text|prompt|dispreferred|preferred)(-\d+)?\s*>")


class PromptsError(MarsError, ValueError):
    """A set of templates cannot be used; the message names the file and what it lacks."""


@dataclass(frozen=True)
class Prompts:
    """The templates of all roles: the parts of each, in the order of `SPEAKERS`."""

    templates: dict[Role, tuple[str, ...]]

    @staticmethod
    def read(name: str) -> "Prompts":
        """A set of this package, or a user's own.

        Args:
            name: one of `BUILT_IN`, or a folder.

        Raises:
            PromptsError: there is no such set, it lacks a role, or a template cannot be used.
        """
        if name in BUILT_IN:
            return _built_in(name)
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise PromptsError(f"{name!r} is neither a folder nor one of {', '.join(BUILT_IN)}")
        files_of_roles = [(role, folder / f"{role}.txt") for role in ROLES]
        absent = [file.name for _, file in files_of_roles if not file.is_file()]
        if absent:
            raise PromptsError(f"{folder} lacks {', '.join(absent)}")
        return Prompts({role: _parts(role, str(file), _text(file)) for role, file in files_of_roles})

    @property
    def digest(self) -> str:
        """Names the wording."""
        return digest(self.templates)

    def sentences(self, role: Role) -> tuple[str, ...]:
        """What stands in a role's template whatever the texts are: its lines of more than a few words."""
        lines = (line.strip() for part in self.templates.get(role, ()) for line in part.splitlines())
        return tuple(line for line in lines if "$" not in line and len(line) > LEAST_CHARACTERS)

    def messages(self, request: Request) -> tuple[Message, ...]:
        """The chat messages of a request: system, user, what a reply begins with; or a dialogue's turns."""
        if request.role == "respond":
            return tuple({"role": turn.role, "content": turn.content} for turn in turns(request.prompt))
        prompt = request.source if request.role == "paraphrase_prompt" else request.prompt
        texts = {"prompt": prompt, "chosen": request.chosen, "rejected": request.rejected}
        parts = self.templates[request.role]
        shown = {name for part in parts for name in Template(part).get_identifiers()}
        if suffix := _free_suffix(texts[name] for name in shown):
            parts = tuple(_TAGS.sub(rf"\1{suffix}\2", part) for part in parts)
        *before, last = parts
        if len(parts) == len(SPEAKERS) and any(QUOTES.get(last[-1:], "\0") in texts[name] for name in shown):
            # The reply would end at a quotation mark of its own.
            parts = (*before, last[:-1].rstrip())
        return tuple(
            {"role": speaker, "content": Template(part).substitute(texts)}
            for speaker, part in zip(SPEAKERS, parts, strict=False)
            if part
        )


def continues(messages: Sequence[Message]) -> bool:
    """Whether the last message is the beginning of the reply, which the model goes on with."""
    return messages[-1]["role"] == "assistant"


def chat_tokens(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The token ids that a chat model with this tokenizer goes on from."""
    begun = continues(messages)
    chat = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=not begun, continue_final_message=begun, tokenize=False
    )
    return list(tokenizer(chat, add_special_tokens=False).input_ids)


def ends_at(messages: Sequence[Message]) -> str | None:
    """The quotation mark at which a reply ends that was begun with one; what follows is no part of it."""
    return QUOTES.get(messages[-1]["content"][-1:]) if continues(messages) else None


@lru_cache
def _built_in(name: str) -> Prompts:
    folder = files(__package__).joinpath("prompts", name)
    texts = {role: folder.joinpath(f"{role}.txt").read_text(encoding="utf-8") for role in ROLES}
    return Prompts({role: _parts(role, f"{role}.txt", text) for role, text in texts.items()})


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PromptsError(f"{file}: is not UTF-8: {error}") from error


def _parts(role: Role, file: str, text: str) -> tuple[str, ...]:
    """Split and check a template, which is the content of `file`.

    Raises:
        PromptsError: it has too few or too many parts, an unknown placeholder, or not the text of its role.
    """
    parts = [part.strip() for part in re.split(r"^---\s*$", text, flags=re.MULTILINE)]
    if not 2 <= len(parts) <= len(SPEAKERS) or not parts[1]:
        found = "an empty user message" if 2 <= len(parts) <= len(SPEAKERS) else f"{len(parts)} of them"
        raise PromptsError(
            f"{file}: a template has two or three parts with a line --- between them: a system message, "
            "which may be empty, a user message, and what a reply is to begin with, if anything. There is "
            f"{found} here"
        )
    invalid = [part for part in parts if not Template(part).is_valid()]
    if invalid:
        raise PromptsError(f"{file}: a dollar sign that begins no placeholder is written $$")
    shown = {name for part in parts for name in Template(part).get_identifiers()}
    if unknown := shown - PLACEHOLDERS:
        known = ", ".join(f"${name}" for name in sorted(PLACEHOLDERS))
        raise PromptsError(f"{file}: unknown placeholder ${min(unknown)}; there are {known}")
    needed = role.partition("_")[2]
    if needed not in shown:
        raise PromptsError(f"{file}: lacks ${needed}, the text that it changes")
    return tuple(parts)


def _free_suffix(texts: Iterable[str]) -> str:
    """What the tags around the material have to end in, so that no text can close its own: mostly nothing."""
    taken = {match[1] or "" for text in texts for match in _CLOSING.finditer(text)}
    numbered = (f"-{number}" for number in itertools.count(2))
    return next(suffix for suffix in itertools.chain([""], numbered) if suffix not in taken)
