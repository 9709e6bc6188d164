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
