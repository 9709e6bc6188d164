"""Pairs as this project writes them: taken as they are."""

from collections.abc import Sequence, Set

from mars_core.data import dialogue
from mars_core.data.formats.format import COMMON, Format, Made, Pair
from mars_core.data.source_rows import Row

TEXTS = ("prompt", "chosen", "rejected")


class Stored(Format):
    """The columns pair_id, prompt, chosen, rejected and source, and maybe margin and weight."""

    columns = "pair_id, prompt, chosen, rejected and source, and no others but margin and weight"

    @classmethod
    def recognises(cls, columns: Set[str], rows: Sequence[Row]) -> bool:
        """Whether the columns are these."""
        needed = {"pair_id", "source", *TEXTS}
        return needed <= columns <= needed | COMMON - {"id"} and all(
            isinstance(row.get(name), str) for row in rows for name in needed
        )

    def used(self, columns: Set[str]) -> list[str]:
        """The three texts."""
        return list(TEXTS)

    def pairs(self, rows: Sequence[Row]) -> Made:
        """The pair of a row."""
        for row in rows:
            for name in TEXTS:
                if not isinstance(row.get(name), str):
                    raise ValueError(f"{name} is no text")
            yield Pair(dialogue.turns(row["prompt"]), row["chosen"], row["rejected"])
