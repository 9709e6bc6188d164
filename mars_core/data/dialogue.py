"""A prompt as turns of a dialogue.

A prompt is stored as text. A single human turn is that turn's plain text; a longer dialogue is a
transcript in which every turn begins with its speaker:

    Human: What is a lark?

    Assistant: A small songbird.

    Human: Does it sing in flight?

`turns` and `transcript` are inverse to each other for every dialogue that `transcript` accepts.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}
_ROLES = {speaker: role for role, speaker in SPEAKERS.items()}
_MARKER = re.compile(r"(?:^|\n\n)(System|Human|Assistant):[ \t]?")


class Turn(NamedTuple):
    """One utterance: `role` is system, user or assistant."""

    role: str
    content: str


def turns(prompt: str) -> list[Turn]:
    """Split a stored prompt into its turns; a prompt without speakers is one user turn."""
    pieces = _MARKER.split(prompt)
    if len(pieces) == 1 or pieces[0].strip():
        return [Turn("user", prompt)]
    return [
        Turn(_ROLES[speaker], content) for speaker, content in zip(pieces[1::2], pieces[2::2], strict=True)
    ]


def transcript(dialogue: Sequence[Turn]) -> str:
    """Write turns as a stored prompt: plain text for a single user turn, else with speakers.

    Raises:
        ValueError: there is no turn, a role is unknown, or a turn's text holds the start of another
            turn, so that reading it again would change who said what.
    """
    if not dialogue:
        raise ValueError("a dialogue without turns")
    for turn in dialogue:
        if turn.role not in SPEAKERS:
            raise ValueError(f"unknown role: {turn.role!r}, where {', '.join(SPEAKERS)} are known")
    if len(dialogue) == 1 and turns(dialogue[0].content) == list(dialogue):
        return dialogue[0].content
    text = "\n\n".join(f"{SPEAKERS[turn.role]}: {turn.content}" for turn in dialogue)
    if turns(text) != list(dialogue):
        raise ValueError(f"a turn contains the start of another turn: {text[:80]!r}")
    return text


def last_user_turn(prompt: str) -> str:
    """The turn of a stored prompt that a paraphrase may change."""
    dialogue = turns(prompt)
    return dialogue[_last_user(dialogue)].content


def with_last_user_turn(prompt: str, content: str) -> str:
    """The same stored prompt with its last user turn replaced; every other turn stays as it is.

    Raises:
        ValueError: `content` holds a speaker marker, so that the dialogue would get another turn.
    """
    dialogue = turns(prompt)
    place = _last_user(dialogue)
    changed = [*dialogue[:place], Turn(dialogue[place].role, content), *dialogue[place + 1 :]]
    # A lone user turn is stored as its plain text, which may quote a transcript after its first words.
    text = content if len(changed) == 1 and changed[0].role == "user" else transcript(changed)
    if turns(text) != changed:
        raise ValueError(f"the text contains the start of another turn: {content[:80]!r}")
    return text


def _last_user(dialogue: Sequence[Turn]) -> int:
    users = [place for place, turn in enumerate(dialogue) if turn.role == "user"]
    return users[-1] if users else len(dialogue) - 1
