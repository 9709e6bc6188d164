"""Rows of a source as texts to score: pairs in any format that is read, or single responses.

A single response is a row with a prompt and one response (`response`, `completion`, `output`, …), with a list
of responses, or with a conversation (`messages`) that ends with the assistant's turn. A score beside it is
not read: unlike in training, responses of one prompt are not paired. Rows are known by their id, or else by a
digest of their texts; the same texts may come more than once.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import chain, islice
from typing import Any, NamedTuple

from mars_core.data import dialogue
from mars_core.data.conversations import text_or_turns
from mars_core.data.dialogue import Turn
from mars_core.data.formats.by_columns import OTHERS, ByColumns
from mars_core.data.formats.format import PROMPTS, Format, dialogue_of, first_of, response_of, with_context
from mars_core.data.formats.scores import LISTS, TEXTS, Scores
from mars_core.data.reading import FIRST_ROWS, check_texts, id_of, readings, recognised, selected
from mars_core.data.source_rows import Line, Part, Row, json_lines, parts

STANDARD_INPUT = "-"
CONVERSATIONS = ("messages", "conversations", "conversation")


class ToScore(NamedTuple):
    """A pair, or a single response."""

    id: str
    prompt: str
    """In the stored form of `mars_core.data.dialogue`."""
    responses: tuple[str, ...]
    """Chosen and rejected, or one."""


class RowToScore(NamedTuple):
    """What a row says."""

    number: int
    """Its number in its file, from 1; of a file of JSON lines, that of the line."""
    items: list[ToScore]
    """Several where the row makes several pairs, or lists several responses."""
    problem: str
    """Why it cannot be scored, as `reason` or `reason: detail`; empty if it can."""


def files_to_score(sources: Sequence[str]) -> list[Part]:
    """The files of some sources, in their order; `-` is JSON lines from standard input.

    Raises:
        PairsError: as of `mars_core.data.source_rows.parts`.
    """
    found: list[Part] = []
    for source in sources:
        if source == STANDARD_INPUT:
            found.append(Part("standard input", lambda: json_lines(sys.stdin.buffer)))
        else:
            found += parts(source)
    return found


def rows_to_score(
    part: Part,
    reads: Format,
    *,
    where: Mapping[str, Any] | None = None,
    refusal: Callable[[str, Sequence[str]], str | None] | None = None,
) -> Iterator[RowToScore]:
    """What each row of a file says, in the same order at every call.

    Args:
        part: the file.
        reads: the format of pairs; `by_columns` also finds single responses.
        where: columns, and the values that rows must have in them.
        refusal: why a prompt and its responses cannot be rendered, if so.

    Raises:
        PairsError: the file has a wrong form, or its columns are read by no format.
    """
    lines = selected(part, where or {}, {})
    first = list(islice(lines, FIRST_ROWS))
    rows = [line.row for line in first]
    lines = chain(first, lines)
    if not rows:
        return
    if isinstance(reads, ByColumns) and _are_single({column for row in rows for column in row}, rows):
        said: Iterator[RowToScore] = map(_single_responses, lines)
    else:
        reader, lines = recognised(lines, reads, part.name)
        said = (
            RowToScore(
                reading.line.number,
                [ToScore(pair["pair_id"], pair["prompt"], (pair["chosen"], pair["rejected"]))
                 for pair in reading.pairs],
                reading.problem,
            )
            for reading in readings(lines, reader, part.name)
        )  # fmt: skip
    for row in said:
        refused = next((why for item in row.items if refusal and (why := refusal(*item[1:]))), None)
        yield row._replace(items=[], problem=f"the model cannot read it: {refused}") if refused else row


def _are_single(columns: Set[str], rows: Sequence[Row]) -> bool:
    """Whether rows with these columns hold responses, and no pairs of them but by their scores."""
    if any(other is not Scores and other.recognises(columns, rows) for other in OTHERS):
        return False
    if first_of(TEXTS, columns) and first_of(PROMPTS, columns):
        return True
    if first_of(LISTS, columns):
        return bool(first_of(PROMPTS, columns)) and not Scores.recognises(columns, rows)
    return any(map(_is_answered, rows))


def _is_answered(row: Row) -> bool:
    try:
        return _conversation(row) is not None
    except ValueError:
        return False


def _single_responses(line: Line) -> RowToScore:
    row = line.row
    try:
        asked, responses = _asked_and_answered(row)
        prompt, texts = dialogue.transcript(asked), [response.strip() for response in responses]
        for text in texts:
            check_texts(row, asked, response=text)
    except ValueError as error:
        return RowToScore(line.number, [], str(error))
    known = id_of(row)
    names = [known or hashlib.sha256(f"{prompt}\0{text}".encode()).hexdigest()[:16] for text in texts]
    if known and len(texts) > 1:
        names = [f"{known}-{number}" for number in range(len(texts))]
    return RowToScore(
        line.number, [ToScore(name, prompt, (text,)) for name, text in zip(names, texts, strict=True)], ""
    )


def _asked_and_answered(row: Row) -> tuple[Sequence[Turn], list[str]]:
    """The dialogue up to the response, and the responses to it."""
    if column := first_of(TEXTS, row):
        return dialogue_of(row), [response_of(row[column], column)]
    if column := first_of(LISTS, row):
        given = row[column]
        if not isinstance(given, list) or not given:
            raise ValueError(f"{column} is no list of responses")
        return dialogue_of(row), [response_of(response, column) for response in given]
    column, turns = first_of(CONVERSATIONS, row), _conversation(row)
    if turns is None:
        raise ValueError(
            f"{first_of(CONVERSATIONS, row) or 'messages'} does not end with the assistant's turn"
        )
    return with_context(turns[:-1], row), [turns[-1].content]


def _conversation(row: Row) -> list[Turn] | None:
    """The turns of a conversation that ends with its response."""
    column = first_of(CONVERSATIONS, row)
    turns = text_or_turns(row[column], column) if column else None
    return turns if isinstance(turns, list) and turns and turns[-1].role == "assistant" else None
