"""Built-in data, written for this project: preference pairs and small benchmarks in RewardBench's layouts."""

from typing import Any

from mars_core.data.samples.benchmark_rows import rewardbench
from mars_core.data.samples.best_of_four_rows import rewardbench2
from mars_core.data.samples.preferences import preferences

__all__ = ["SAMPLES", "preferences", "rewardbench", "rewardbench2", "rows"]

SAMPLES = {f"sample://{made.__name__}": made for made in (preferences, rewardbench, rewardbench2)}
"""What the built-in sources hold, by their names."""


def rows(source: str) -> list[dict[str, Any]]:
    """The rows of a built-in source."""
    made: list[dict[str, Any]] = SAMPLES[source]()
    return made
