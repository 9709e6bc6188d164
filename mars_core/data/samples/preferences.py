"""The built-in preference pairs: enough to run every step of an experiment without a download.

The four sources are equally large. In all of them the chosen response is right for a reason that can be
read off the row (the tests do), and neither response is the longer one as a rule.
"""

import random
from collections.abc import Callable, Iterator

from mars_core.data.samples.cards import Card
from mars_core.data.samples.chat import chat_pairs
from mars_core.data.samples.instruction import instruction_pairs
from mars_core.data.samples.reasoning import reasoning_pairs
from mars_core.data.samples.safety import safety_pairs

ROWS_PER_SOURCE = 205
SEED = 2602

GENERATORS: dict[str, Callable[[random.Random], Iterator[Card]]] = {
    "chat": chat_pairs,
    "instruction": instruction_pairs,
    "safety": safety_pairs,
    "reasoning": reasoning_pairs,
}


def preferences() -> list[dict[str, str]]:
    """The same 820 pairs at every call, as rows with id, prompt, chosen, rejected and source.

    No two prompts are equal after lower-casing and folding of whitespace. About one in ten is a dialogue
    of two or three turns in the notation of `mars_core.data.dialogue`. The sources take turns, so that the
    first n rows are a fair sample too.
    """
    columns = [_rows(source) for source in GENERATORS]
    return [row for rows in zip(*columns, strict=True) for row in rows]


def _rows(source: str) -> list[dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for card in GENERATORS[source](random.Random(f"{SEED}/{source}")):
        prompt = " ".join(card.prompt.lower().split())
        if prompt not in rows:
            rows[prompt] = {"id": f"{source}-{len(rows):03d}", **card._asdict(), "source": f"sample/{source}"}
        if len(rows) == ROWS_PER_SOURCE:
            break
    return list(rows.values())
