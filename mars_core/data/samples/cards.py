"""The notation in which the built-in texts are written down.

A *card* is one preference pair written by hand; a blank line ends it:

    A prompt, which may run
    over several lines.
    + The chosen response.
    - The rejected response.

A *table* has one record a line with fields between bars; an indented line continues the one above.
In both, lines that belong together are joined by a space; in a card ¶ stands for a line break.
"""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from mars_core.data.dialogue import Turn, transcript

T = TypeVar("T")


class Card(NamedTuple):
    """One preference pair: texts only."""

    prompt: str
    chosen: str
    rejected: str


def cards(text: str) -> list[Card]:
    """Read cards.

    Raises:
        ValueError: a card lacks its prompt, its `+` or its `-`, or has one of them twice.
    """
    return [_card(block) for block in text.strip().split("\n\n")]


def _card(block: str) -> Card:
    texts: dict[str, str] = {}
    mark = "?"
    for line in block.strip().splitlines():
        if line.startswith(("+ ", "- ")):
            mark, line = line[0], line[2:]
            if mark in texts:
                raise ValueError(
                    f"a card has two lines starting with {mark!r}; end a card by a blank line: {block!r}"
                )
        texts[mark] = f"{texts[mark]} {line.strip()}" if mark in texts else line.strip()
    if texts.keys() != {"?", "+", "-"}:
        raise ValueError(f"a card needs a prompt, a line with '+ ' and one with '- ': {block!r}")
    return Card(*(texts[key].replace("¶", "\n") for key in "?+-"))


def table(text: str) -> list[tuple[str, ...]]:
    """Read the records of a table."""
    folded = text.strip("\n").replace("\n    ", " ")
    return [tuple(field.strip() for field in line.split("|")) for line in folded.splitlines()]


def deck(rng: random.Random, items: Sequence[T]) -> Iterator[T]:
    """Deal items in random order for ever: each comes once before any comes again."""
    while True:
        yield from rng.sample(items, len(items))


def capitalised(text: str) -> str:
    """The text with its first letter in upper case and the rest as it was."""
    return text[:1].upper() + text[1:]


def after(rng: random.Random, openings: Sequence[Sequence[str]], prompt: str) -> str:
    """The prompt as the last turn of a dialogue whose first two turns are one of `openings`."""
    human, assistant = rng.choice(openings)
    return transcript([Turn("user", human), Turn("assistant", assistant), Turn("user", prompt)])


def under(system: str, prompt: str) -> str:
    """The prompt as the human turn of a dialogue that a system turn opens."""
    return transcript([Turn("system", system), Turn("user", prompt)])
