"""Tables of the metrics of rounds, as a report shows them."""

import math
from collections.abc import Callable, Mapping, Sequence

from mars_core.report.wording import table

Rounds = Sequence[Mapping[str, float]]
"""Metrics of round 0, 1, …, by the names under which they are logged; any may be missing or nan."""
Entry = tuple[str, Callable[..., str], *tuple[str, ...]]
"""A line or column of a table: its label, its format, and the metrics of a round that a cell shows."""


def by_round(title: str, rounds: Rounds, entries: Sequence[Entry], first: int = 0) -> list[str]:
    """A heading, and a table with a column for each round from `first` on; nothing if no metric is known."""
    rows = [
        [entry[0], *(cell(metrics, entry) for metrics in rounds[first:])]
        for entry in present(rounds[first:], entries)
    ]
    headers = ["", *(f"round {number}" for number in range(first, len(rounds)))]
    return [f"## {title}", table(headers, rows)] if rows else []


def present(rounds: Rounds, entries: Sequence[Entry]) -> list[Entry]:
    """The entries for which a round has a metric."""
    known = {key for metrics in rounds for key in metrics}
    return [entry for entry in entries if known.intersection(entry[2:])]


def cell(metrics: Mapping[str, float], entry: Entry) -> str:
    """The text of an entry's cell for one round."""
    _, show, *keys = entry
    return show(*values_of(metrics, *keys))


def values_of(metrics: Mapping[str, float], *keys: str) -> list[float]:
    """Metrics of a round by name; nan if it has none."""
    return [metrics.get(key, math.nan) for key in keys]


def with_ends(key: str) -> tuple[str, str, str]:
    """The names of a metric and of the ends of its interval."""
    return key, f"{key}_low", f"{key}_high"
