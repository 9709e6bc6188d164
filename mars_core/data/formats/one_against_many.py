"""One chosen response against several rejected ones, or several against several."""

from collections.abc import Sequence, Set
from typing import Any

from mars_core.data.formats.format import (
    Format,
    LeftOut,
    Made,
    Pair,
    dialogue_of,
    prompt_columns,
    response_of,
)
from mars_core.data.source_rows import Row

RESPONSES = ("chosen", "rejected")


class OneAgainstMany(Format):
    """Every chosen response makes a pair with every rejected one; the weights of a row sum to one."""

    columns = "prompt, chosen, and rejected as a list of responses"

    @classmethod
    def recognises(cls, columns: Set[str], rows: Sequence[Row]) -> bool:
        """Whether a side is a list of responses, and not one of turns."""
        sides = [row.get(name) for row in rows for name in RESPONSES]
        return columns >= set(RESPONSES) and any(map(_are_responses, sides))

    def used(self, columns: Set[str]) -> list[str]:
        """The prompt's columns and both sides."""
        return [*prompt_columns(columns), *(name for name in RESPONSES if name in columns)]

    def pairs(self, rows: Sequence[Row]) -> Made:
        """The pairs of a row."""
        for row in rows:
            sides = []
            for name in RESPONSES:
                given: Any = row.get(name)
                given = given if _are_responses(given) else [given]
                sides.append([response_of(response, name) for response in given])
            asked = dialogue_of(row)
            several = [(better, worse) for better in sides[0] for worse in sides[1]]
            if not several:
                raise ValueError("chosen or rejected is an empty list")
            different = [(better, worse) for better, worse in several if better.strip() != worse.strip()]
            for _ in range(len(several) - len(different)):
                yield LeftOut("two responses that are the same text")
            for better, worse in different:
                yield Pair(asked, better, worse, weight=1 / len(different))


def _are_responses(value: Any) -> bool:
    """Whether a cell is a list of texts, or of conversations, each a response."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return all(isinstance(response, (str, list)) for response in value)
