"""How the first version of this package read a row: a ledger knows pairs by the texts of that time.

It kept CR LF, dropped system prompts that had a column of their own, and took a prompt that the responses
repeat, or a conversation written out as text, for part of them. Nothing else uses it.
"""

from collections.abc import Mapping
from os.path import commonprefix
from typing import Any

from mars_core.data import dialogue
from mars_core.data.identity import pair_identities

_ASSISTANT = "\n\nAssistant:"


def first_texts(row: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Prompt, chosen and rejected as they were read; None if the row was invalid."""
    try:
        asked, chosen, rejected = _turns_and_responses(row)
        return dialogue.transcript(asked), chosen.strip(), rejected.strip()
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def first_ids(row: Mapping[str, Any]) -> tuple[str, str]:
    """Ids of the texts as they were read, and of the same with the responses exchanged; else empty."""
    texts = first_texts(row)
    return ("", "") if texts is None else pair_identities(*texts)


def _turns_and_responses(row: Mapping[str, Any]) -> tuple[list[dialogue.Turn], str, str]:
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    asked: list[dialogue.Turn] = []
    if not isinstance(chosen, str):
        *asked, last = _conversation(chosen)
        chosen, rejected = last.content, _conversation(rejected)[-1].content
    elif prompt is None:
        at = commonprefix([chosen, rejected]).rindex(_ASSISTANT)  # noqa: RUF071  of texts, not of paths
        end = at + len(_ASSISTANT)
        prompt, chosen, rejected = chosen[:at], chosen[end:], rejected[end:]
    if prompt is not None:
        given = _spoken(prompt) if isinstance(prompt, str) else _conversation(prompt)
        asked = asked if all(turn in asked for turn in given) else given + asked
    return asked, chosen, rejected


def _spoken(text: str) -> list[dialogue.Turn]:
    text = text.strip()
    text = "" if text == _ASSISTANT.strip() else text.removesuffix(_ASSISTANT).rstrip()
    return [turn._replace(content=turn.content.strip()) for turn in dialogue.turns(text)]


def _conversation(turns: Any) -> list[dialogue.Turn]:
    return [dialogue.Turn(turn["role"], turn["content"].strip()) for turn in turns]
