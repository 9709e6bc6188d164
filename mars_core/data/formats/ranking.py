"""Several responses to one prompt with their ranks, such as Nectar's; rank 1 is the best."""

from collections.abc import Mapping, Sequence, Set
from typing import Any, Literal

from mars_core.data.formats.format import (
    Format,
    GapConfig,
    Made,
    compared,
    dialogue_of,
    first_of,
    number_of,
    prompt_columns,
    response_of,
)
from mars_core.data.source_rows import Row

LISTS = ("answers", "responses", "completions", "generations")
TEXTS = ("answer", "response", "completion", "text", "content")
RANKS = ("rank", "ranks", "ranking", "rankings")


class Ranking(Format):
    """Every two responses of different rank are a pair, or the best one and each other."""

    class Config(GapConfig):
        """Which two of the responses are a pair."""

        comparisons: Literal["all", "best"] = "all"
        """`all` pairs every two responses of a prompt, `best` the best one with each of the others; the
        weights of a prompt sum to one either way."""

    config: Config
    columns = "prompt, and answers as a list with answer and rank, or as a list beside a list ranks"

    @classmethod
    def recognises(cls, columns: Set[str], rows: Sequence[Row]) -> bool:
        """Whether there is a list of responses with ranks, and no pair is named."""
        responses = first_of(LISTS, columns)
        return bool(responses) and "chosen" not in columns and any(_ranked(row, responses) for row in rows)

    def used(self, columns: Set[str]) -> list[str]:
        """The prompt's columns, the responses and their ranks."""
        named = (first_of(LISTS, columns), first_of(RANKS, columns))
        return [*prompt_columns(columns), *(name for name in named if name)]

    def pairs(self, rows: Sequence[Row]) -> Made:
        """The pairs of a row."""
        for row in rows:
            name = first_of(LISTS, row)
            found = _ranked(row, name)
            if not found:
                raise ValueError(f"{name or LISTS[0]} is no list of responses with a rank each")
            ranks = [number_of(rank, "rank") for _, rank in found]
            if None in ranks:
                raise ValueError(f"{name} has a response without a rank")
            responses = [
                (response_of(text, str(name)), -(rank or 0.0))
                for (text, _), rank in zip(found, ranks, strict=True)
            ]
            yield from compared(dialogue_of(row), responses, self.config.comparisons == "best", self.config)


def _ranked(row: Row, name: str | None) -> list[tuple[Any, Any]]:
    """The responses of a row with their ranks; none if it has no such list."""
    given, ranks = row.get(name or ""), row.get(first_of(RANKS, row) or "")
    if not isinstance(given, Sequence) or isinstance(given, str):
        return []
    if all(isinstance(response, Mapping) and "rank" in response for response in given):
        return [(response.get(first_of(TEXTS, response) or ""), response["rank"]) for response in given]
    if isinstance(ranks, Sequence) and not isinstance(ranks, str) and len(ranks) == len(given):
        return list(zip(given, ranks, strict=True))
    return []
