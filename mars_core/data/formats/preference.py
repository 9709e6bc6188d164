"""A chosen and a rejected response to a prompt, or two conversations that begin alike.

Texts, turns, and turns that were written out as text may be mixed. Where the conversation stands in the
responses, in place of the prompt or once more, it is taken off them. A response as text ends with the
assistant's turn, as conversations do.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from mars_core.data.conversations import (
    is_transcript,
    spoken,
    text_or_turns,
    transcript_turns,
    with_line_feeds,
)
from mars_core.data.dialogue import Turn
from mars_core.data.formats.format import (
    PROMPTS,
    SMALL_GAP,
    Format,
    GapConfig,
    LeftOut,
    Made,
    Pair,
    asked_of,
    first_of,
    number_of,
    prompt_columns,
    with_context,
)
from mars_core.data.formats.one_against_many import OneAgainstMany
from mars_core.data.formats.stored import Stored
from mars_core.data.source_rows import Row

RESPONSES = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("response_chosen", "response_rejected"),
    ("response_j", "response_k"),
)
SCORES = (("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"))
GOES_ON = ("\n\nHuman:", "\n\nAssistant:")


class Preference(Format):
    """Chosen and rejected, each text, turns, or one turn."""

    class Config(GapConfig):
        """What becomes of score_chosen and score_rejected, where a source has them."""

    config: Config
    columns = "prompt (or question, instruction, messages, conversations, …), chosen and rejected"
    repeats_prompts = False
    """Whether the responses of this source all begin with the prompt, on lines of its own."""

    @classmethod
    def recognises(cls, columns: Set[str], rows: Sequence[Row]) -> bool:
        """Whether both responses are there."""
        if _responses(columns) is None:
            return False
        return not (Stored.recognises(columns, rows) or OneAgainstMany.recognises(columns, rows))

    def at(self, columns: Set[str], rows: Sequence[Row]) -> "Format":
        """This format; the first rows say whether the source's responses repeat their prompts."""
        if _responses(columns) is None:
            lacking = next(name for name in RESPONSES[0] if name not in columns)
            raise ValueError(f"no column {lacking!r}; found {', '.join(sorted(columns))}")
        repeating = Preference(self.config)
        repeating.repeats_prompts = bool(rows) and all(map(_begins_with_its_prompt, rows))
        return repeating

    def used(self, columns: Set[str]) -> list[str]:
        """The prompt's columns, both responses, and their scores where they count."""
        scores = _scores(columns) if self.config.min_gap or self.config.gap_as_margin else None
        return [*prompt_columns(columns), *(_responses(columns) or ()), *(scores or ())]

    def pairs(self, rows: Sequence[Row]) -> Made:
        """The pair of a row."""
        for row in rows:
            asked, chosen, rejected = self._texts(row)
            gap = self._gap(row)
            if gap is not None and gap < self.config.min_gap:
                yield LeftOut(SMALL_GAP)
            else:
                margin = None if gap is None else self.config.margin_of(gap)
                yield Pair(asked, chosen, rejected, margin=margin)

    def _gap(self, row: Row) -> float | None:
        """How far the chosen response's score lies above the rejected one's, where that counts."""
        names = _scores(row)
        if names is None or not (self.config.min_gap or self.config.gap_as_margin):
            return None
        chosen, rejected = (number_of(row[name], name) for name in names)
        return None if chosen is None or rejected is None else chosen - rejected

    def _texts(self, row: Row) -> tuple[list[Turn], str, str]:
        """The dialogue and both responses of a row."""
        names = _responses(row) or RESPONSES[0]
        given = asked_of(row)
        chosen, rejected = (text_or_turns(row.get(name), name) for name in names)
        for name, value in zip(names, (chosen, rejected), strict=True):
            if value is None:
                raise ValueError(f"{name} is missing or null")
        if isinstance(chosen, str) != isinstance(rejected, str):
            raise ValueError(f"only one of {' and '.join(names)} is text")
        if isinstance(chosen, str) and isinstance(rejected, str):
            asked, responses = self._of_texts(row, given, {names[0]: chosen, names[1]: rejected})
        else:
            begun, responses = _split({names[0]: chosen, names[1]: rejected})
            asked = joined(_turns(given), begun)
        if "messages" in row and asked and asked[-1] == Turn("assistant", responses[0].strip()):
            asked = asked[:-1]  # the messages are those of the chosen conversation
        return with_context(asked, row), responses[0], responses[1]

    def _of_texts(
        self, row: Row, given: str | list[Turn] | None, texts: dict[str, str]
    ) -> tuple[list[Turn], list[str]]:
        """The dialogue and both responses where these are texts, by their columns."""
        transcripts = {name: transcript_turns(text) for name, text in texts.items()}
        if None not in transcripts.values():
            if given is None:
                return _split(transcripts)
            if all(_stands_in(_turns(given), turns or []) for turns in transcripts.values()):
                begun, responses = _split(transcripts)
                return joined(_turns(given), begun), responses
        if given is None:
            raise ValueError(_no_prompt(row))
        responses = list(texts.values())
        if not isinstance(given, str):
            return given, responses
        begins = is_transcript(given)
        repeated = given.strip() + ("" if begins else "\n")
        if (begins or self.repeats_prompts) and all(text.lstrip().startswith(repeated) for text in responses):
            responses = [text.lstrip().removeprefix(repeated) for text in responses]
        for name, text in zip(texts, responses, strict=True):
            if begins and any(marker in text for marker in GOES_ON):
                raise ValueError(f"{name} goes on with further turns after its response")
        return spoken(given), responses


def joined(asked: Sequence[Turn], begun: Sequence[Turn]) -> list[Turn]:
    """A prompt and what two conversations begin with as one dialogue, where one may repeat the other.

    Raises:
        ValueError: the conversations begin with another question.
    """
    if not asked or not begun:
        return [*asked, *begun]
    if _within(asked, begun):
        return list(begun)
    if asked[0].role == "system" and begun[0].role != "system":
        return [asked[0], *joined(asked[1:], begun)]
    alike = (n for n in range(min(len(asked), len(begun)), 0, -1) if asked[-n] == begun[0])
    overlap = next((n for n in alike if list(asked[-n:]) == list(begun[:n])), 0)
    if not overlap and asked[-1].role == "user" and begun[0].role != "assistant":
        raise ValueError(
            f"the prompt and the conversations begin differently: {asked[-1].content[:60]!r} and "
            f"{begun[0].content[:60]!r}"
        )
    return [*asked, *begun[overlap:]]


def _within(some: Sequence[Turn], turns: Sequence[Turn]) -> bool:
    """Whether the one dialogue begins or ends with the other."""
    return list(turns[: len(some)]) == list(some) or list(turns[-len(some) :]) == list(some)


def _stands_in(asked: Sequence[Turn], conversation: Sequence[Turn]) -> bool:
    """Whether a conversation repeats a prompt, but for a system prompt, before its last turn."""
    begun = conversation[:-1]
    without_system = [turn for turn in asked if turn.role != "system"]
    return bool(begun) and (_within(asked, begun) or _within(without_system, begun))


def _split(conversations: Mapping[str, Any]) -> tuple[list[Turn], list[str]]:
    """What two conversations, by their columns, begin with, and the responses that they end with."""
    for name, turns in conversations.items():
        if not turns or turns[-1].role != "assistant":
            raise ValueError(f"{name} does not end with an assistant turn")
    chosen, rejected = conversations.values()
    if chosen[:-1] != rejected[:-1]:
        raise ValueError(f"{' and '.join(conversations)} differ before their last turn")
    return list(chosen[:-1]), [chosen[-1].content, rejected[-1].content]


def _no_prompt(row: Row) -> str:
    """Why a row whose responses are plain text lacks a prompt."""
    column = first_of(PROMPTS, row)
    if column is None:
        return "neither a prompt nor a common Assistant turn to split at"
    return f"{column} is missing or null" if row[column] is None else f"{column} is empty"


def _turns(given: str | list[Turn] | None) -> list[Turn]:
    return spoken(given) if isinstance(given, str) else list(given or ())


def _begins_with_its_prompt(row: Row) -> bool:
    """Whether both responses of a row are text that begins with the prompt, on a line of its own."""
    names = _responses(row)
    try:
        given = asked_of(row)
    except ValueError:
        return False
    if not isinstance(given, str) or names is None:
        return False
    texts = [with_line_feeds(text).lstrip() for name in names if isinstance(text := row[name], str)]
    return len(texts) == 2 and all(text.startswith(f"{given.strip()}\n") for text in texts)


def _responses(columns: Set[str] | Mapping[str, Any]) -> tuple[str, str] | None:
    return next((two for two in RESPONSES if all(name in columns for name in two)), None)


def _scores(columns: Set[str] | Mapping[str, Any]) -> tuple[str, str] | None:
    return next((two for two in SCORES if all(name in columns for name in two)), None)
