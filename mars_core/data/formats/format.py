"""A format of preference data: which columns it reads, and how rows of a source become pairs.

    data: {train: pku.jsonl, format: better_of_two, label: safer}

By default, `by_columns`, the columns of a source say which format of this package reads it.
"""

import math
from abc import abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from itertools import combinations
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from mars_core.config import Configuration
from mars_core.data.conversations import spoken, text_or_turns, turns, with_line_feeds
from mars_core.data.dialogue import Turn
from mars_core.data.source_rows import Row
from mars_core.extensions import ExtensionPoint, Plugin

PROMPTS = (
    "prompt", "question", "instruction", "query", "messages", "conversations", "conversation", "input",
    "history",
)  # fmt: skip
"""Columns that hold what was asked; the first of them that a source has is the prompt."""
SYSTEMS = ("system", "system_prompt")
COMMON = frozenset({"pair_id", "id", "source", "margin", "weight"})
"""Columns that every format reads where they are there."""


class Pair(NamedTuple):
    """What a format makes of a row, or of several."""

    asked: Sequence[Turn]
    """The dialogue up to the response, or its one user turn."""
    chosen: str
    rejected: str
    margin: float | None = None
    """The margin that the fit asks for; none by default."""
    weight: float | None = None
    """What the pair weighs in the fit; 1 by default."""


class LeftOut(NamedTuple):
    """A comparison that the data hold, and that makes no pair; counted by its reason."""

    reason: str


Made = Iterable[Pair | LeftOut]


class Format(Plugin):
    """Rows of a source → pairs."""

    columns: ClassVar[str]
    """What it looks for, in words, for the message that no format reads a source."""

    @classmethod
    @abstractmethod
    def recognises(cls, columns: Set[str], rows: Sequence[Row]) -> bool:
        """Whether a source with these columns, whose first rows these are, is of this format."""

    @abstractmethod
    def used(self, columns: Set[str]) -> list[str]:
        """Those of a source's columns that it reads, but for those in `COMMON`."""

    @abstractmethod
    def pairs(self, rows: Sequence[Row]) -> Made:
        """The pairs of a row, or of the rows that have one `group`.

        Raises:
            ValueError: the row is invalid; says why, as `reason` or `reason: detail`.
        """

    def group(self, row: Row) -> Hashable | None:
        """What rows have in common that make pairs together; by default every row makes its own."""
        return None

    def at(self, columns: Set[str], rows: Sequence[Row]) -> "Format":
        """The format as it reads a source with these columns, whose first rows these are.

        Raises:
            ValueError: it does not read such a source.
        """
        return self


FORMATS: ExtensionPoint[Format] = ExtensionPoint("format of pairs", Format)  # type: ignore[type-abstract]


SMALL_GAP = "scores that differ by less than data.min_gap"


class GapConfig(Configuration):
    """What becomes of the difference of two scores."""

    min_gap: float = Field(0.0, ge=0)
    """Leave out pairs whose scores differ by less than this; equal scores make no pair."""
    gap_as_margin: bool = False
    """Ask for a margin of this difference in the fit."""

    def margin_of(self, gap: float) -> float | None:
        """The margin that two scores ask for."""
        return gap if self.gap_as_margin else None


def first_of(columns: Iterable[str], there: Set[str] | Mapping[str, Any]) -> str | None:
    """The first of some columns that is there."""
    return next((column for column in columns if column in there), None)


def prompt_columns(columns: Set[str]) -> list[str]:
    """Those of a source's columns that `asked` reads."""
    prompt = first_of(PROMPTS, columns)
    more = ["input"] if prompt == "instruction" else []
    more += ["history"] if prompt != "history" else []
    system = first_of(SYSTEMS, columns)
    return [name for name in (system, *more[1:], prompt, *more[:1]) if name and name in columns]


def asked_of(row: Row) -> str | list[Turn] | None:
    """What the column of the prompt holds, with what an instruction's `input` adds; None if it is blank."""
    column = first_of(PROMPTS, row)
    if column is None:
        return None
    if column == "history":
        return row[column] if isinstance(row[column], str) else _history(row[column])
    value = text_or_turns(row[column], column)
    if column == "instruction" and isinstance(value, str):
        both = value, with_line_feeds(str(row.get("input") or ""))
        value = "\n".join(text for text in both if text.strip())
    return None if value is None or (isinstance(value, str) and not value.strip()) else value


def with_context(asked: Sequence[Turn], row: Row) -> list[Turn]:
    """The dialogue with the row's system prompt and earlier turns, which have columns of their own.

    Raises:
        ValueError: the dialogue begins with another system prompt.
    """
    whole, column = list(asked), first_of(SYSTEMS, row)
    if first_of(PROMPTS, row) != "history" and row.get("history"):
        whole = _history(row["history"]) + whole
    system = with_line_feeds(str(row[column] or "")).strip() if column else ""
    if not system:
        return whole
    if whole and whole[0].role == "system":
        if whole[0].content != system:
            raise ValueError(f"{column} is not the system prompt that the conversation begins with")
        return whole
    return [Turn("system", system), *whole]


def dialogue_of(row: Row) -> list[Turn]:
    """The dialogue that a row asks to continue.

    Raises:
        ValueError: there is none, or its columns contradict each other.
    """
    value = asked_of(row)
    if value is None:
        raise ValueError(f"{first_of(PROMPTS, row) or 'prompt'} is missing, null or empty")
    return with_context(spoken(value) if isinstance(value, str) else value, row)


def response_of(value: Any, name: str) -> str:
    """A response, from text or its one assistant turn.

    Raises:
        ValueError: it is neither.
    """
    read = text_or_turns(value, name)
    if isinstance(read, str):
        return read
    if read is None:
        raise ValueError(f"{name} is missing or null")
    if [turn.role for turn in read] != ["assistant"]:
        raise ValueError(f"{name} is no single assistant turn")
    return read[0].content


def number_of(value: Any, name: str) -> float | None:
    """A finite number; None where there is none.

    Raises:
        ValueError: it is something else.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, bool):
        raise ValueError(f"{name} is no finite number: {str(value)[:40]!r}")
    return number


def compared(
    asked: Sequence[Turn], responses: Sequence[tuple[str, float]], best: bool, config: GapConfig
) -> Made:
    """The pairs of several responses to one prompt; their weights sum to one.

    Args:
        asked: the dialogue.
        responses: text and score of each; the higher, the better.
        best: pair the best with each of the others, and not every two.
        config: which differences make a pair, and whether they are asked for.
    """
    ranked = sorted(responses, key=lambda response: -response[1])
    found: list[Pair] = []
    for better, worse in ((ranked[0], other) for other in ranked[1:]) if best else combinations(ranked, 2):
        gap = better[1] - worse[1]
        if gap == 0 or gap < config.min_gap:
            yield LeftOut(SMALL_GAP if gap else "two responses with equal scores")
        elif better[0].strip() == worse[0].strip():
            yield LeftOut("two responses that are the same text")
        else:
            found.append(Pair(asked, better[0], worse[0], margin=config.margin_of(gap)))
    for pair in found:
        yield pair._replace(weight=1 / len(found))


def _history(value: Any) -> list[Turn]:
    """Earlier turns: a transcript, turns, or pairs of question and answer."""
    if isinstance(value, str):
        return spoken(value)
    if all(isinstance(two, Sequence) and not isinstance(two, str) and len(two) == 2 for two in value):
        return [
            Turn(role, with_line_feeds(str(text)).strip())
            for two in value
            for role, text in zip(("user", "assistant"), two, strict=True)
        ]
    return turns(value, "history")
