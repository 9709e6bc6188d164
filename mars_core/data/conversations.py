"""What people store as a conversation → text, or turns.

A cell of a table holds plain text; or turns with `role` and `content`, or with `from` and `value`, whose
contents are texts or lists of text parts; or one such turn; or any of these written out as text, in JSON or
in Python, as a CSV has them. Line ends become LF.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mars_core.data import dialogue
from mars_core.data.dialogue import Turn

ROLES = {
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant",
    "system": "system", "developer": "system",
}  # fmt: skip
"""What the roles are called elsewhere, in small letters."""

CALLS = ("tool_calls", "function_call")
TEXT_PARTS = ("text", "input_text", "output_text")

_WRITTEN_OUT = re.compile(r"""\s*(\[\s*)?\{\s*["'](role|content|from|value)["']\s*:""")
_BETWEEN_TURNS = re.compile(r"\}\s*\n\s*\{")
_ASSISTANT = "\n\nAssistant:"


def text_or_turns(value: Any, name: str) -> str | list[Turn] | None:
    """What a cell holds; None where it holds nothing.

    Args:
        value: the cell.
        name: its column, for messages.

    Raises:
        ValueError: it is neither text nor turns, or has a turn that is more than text; says which.
    """
    if value is None:
        return None
    if isinstance(value, str):
        text = with_line_feeds(value)
        written_out = _parsed(text, name)
        return text if written_out is None else turns(written_out, name)
    return turns(value, name)


def turns(value: Any, name: str) -> list[Turn]:
    """Turns, from a list of them or a single one; an empty system turn is none.

    Raises:
        ValueError: as of `text_or_turns`.
    """
    given = [value] if isinstance(value, Mapping) else value
    if not isinstance(given, Sequence) or not all(isinstance(turn, Mapping) for turn in given):
        raise ValueError(f"{name} is neither text nor a list of turns with role and content")
    roles = [_role(turn, name) for turn in given]
    read = [Turn(role, _content(turn, name)) for role, turn in zip(roles, given, strict=True)]
    return [turn for turn in read if turn.role != "system" or turn.content]


def spoken(text: str) -> list[Turn]:
    """The turns of a prompt that is text: a transcript, or one user turn.

    A text that begins with "System:" or "Assistant:" and has no other speaker is what a user says.
    """
    text = with_line_feeds(text).strip()
    text = "" if text == _ASSISTANT.strip() else text.removesuffix(_ASSISTANT).rstrip()
    read = [turn._replace(content=turn.content.strip()) for turn in dialogue.turns(text)]
    return [Turn("user", text)] if len(read) == 1 and read[0].role != "user" else read


def transcript_turns(text: str) -> list[Turn] | None:
    """The turns of a text that begins with a speaker and in which the assistant speaks; else None."""
    read = [turn._replace(content=turn.content.strip()) for turn in dialogue.turns(text.strip())]
    return read if len(read) > 1 and any(turn.role == "assistant" for turn in read) else None


def is_transcript(text: str) -> bool:
    """Whether a prompt names its speakers."""
    text = text.strip()
    return text.endswith(_ASSISTANT.strip()) or text.startswith("Human:") or len(dialogue.turns(text)) > 1


def with_line_feeds(text: str) -> str:
    """The text with every line end as LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _keys(turn: Mapping[str, Any]) -> tuple[str, str]:
    """What a turn calls its role and its content."""
    return ("role", "content") if turn.get("role") is not None else ("from", "value")


def _role(turn: Mapping[str, Any], name: str) -> str:
    said, held = _keys(turn)
    if said not in turn or held not in turn:
        raise ValueError(
            f"{name} is neither text nor a list of turns with role and content, or from and value: a turn "
            f"has {', '.join(map(str, turn)) or 'no keys'}"
        )
    role = turn[said]
    if not isinstance(role, str):
        raise ValueError(f"{name} has a turn whose {said} or {held} is no text")
    known = ROLES.get(role.strip().lower())
    if known is None:
        raise ValueError(f"unknown role: {role!r} in {name}, where {', '.join(ROLES)} are known")
    return known


def _content(turn: Mapping[str, Any], name: str) -> str:
    said, held = _keys(turn)
    content = turn[held]
    more = [call for call in CALLS if turn.get(call)] + ([f"{held}: null"] if content is None else [])
    if more:
        raise ValueError(f"{name} has a turn with {', '.join(more)}; a reward model reads text alone")
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "\n".join(_text_of(part, name) for part in content)
    if not isinstance(content, str):
        raise ValueError(f"{name} has a turn whose {said} or {held} is no text")
    return with_line_feeds(content).strip()


def _text_of(part: Any, name: str) -> str:
    """The text of one part of a content."""
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, Mapping) else None
    if kind not in TEXT_PARTS:
        raise ValueError(f"{name} has a part of type {kind}; a reward model reads text alone")
    if not isinstance(part.get("text"), str):
        raise ValueError(f"{name} has a text part without text")
    return str(part["text"])


def _parsed(text: str, name: str) -> Any:
    """The turns that a text writes out; None if it is just text."""
    if not _WRITTEN_OUT.match(text):
        return None
    # numpy writes its elements out without commas between them.
    for read, written in (
        (json.loads, text), (ast.literal_eval, text),
        (ast.literal_eval, _BETWEEN_TURNS.sub("}, {", text)),
    ):  # fmt: skip
        try:
            value = read(written.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        given = [value] if isinstance(value, dict) else value
        keys = [{"role", "content"} <= set(turn) or {"from", "value"} <= set(turn) for turn in given]
        roles = [str(turn.get("role", turn.get("from"))).lower() for turn in given]
        return value if all(keys) and any(role in ROLES for role in roles) else None
    if text.rstrip().endswith(("]", "}")):
        raise ValueError(
            f"{name} looks like turns that were written out as text, and does not parse: it may be cut off. "
            "Write the table as JSON lines or Parquet"
        )
    return None
