"""Prompts alone, or those of preference pairs: what a policy is asked."""

from collections.abc import Iterator
from itertools import chain, islice

import numpy as np

from mars_core.data import dialogue
from mars_core.data.formats.format import PROMPTS, dialogue_of, first_of
from mars_core.data.reading import FIRST_ROWS, read
from mars_core.data.source_rows import Line, PairsError, parts


def read_prompts(source: str, number: int | None = None, seed: int = 0) -> list[str]:
    """The distinct prompts of a source, in their stored form and the order of its rows.

    Args:
        source: as of `mars_core.data.source_rows.parts`; rows with a prompt, a question, or turns, and pairs
            in any format that is read.
        number: draw so many; by default all.
        seed: of the draw.

    Raises:
        PairsError: a row has no prompt, or there are fewer than `number`; names the file and row.
    """
    found: dict[str, None] = {}
    for part in parts(source):
        lines = part.lines()
        first = list(islice(lines, FIRST_ROWS))
        if any(first_of(PROMPTS, line.row) for line in first if not line.problem):
            found |= dict.fromkeys(_prompts(chain(first, lines), part.name))
        else:  # the prompt is in the responses
            found |= dict.fromkeys(read(part.name).table["prompt"][:])
    prompts = list(found)
    if number is None:
        return prompts
    if number > len(prompts):
        raise PairsError(f"{source}: {number:,} prompts are wanted, and there are {len(prompts):,}")
    drawn = np.random.default_rng(seed).choice(len(prompts), number, replace=False)
    return [prompts[place] for place in sorted(drawn)]


def _prompts(lines: Iterator[Line], name: str) -> Iterator[str]:
    for line in lines:
        if line.problem:
            raise PairsError(f"{name}: row {line.number}: {line.problem}")
        try:
            yield dialogue.transcript(dialogue_of(line.row))
        except ValueError as error:
            raise PairsError(f"{name}: row {line.number}: {error}") from None
