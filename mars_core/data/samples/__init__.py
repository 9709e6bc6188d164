"""Built-in data, written for this project: preference pairs and small benchmarks in RewardBench's layouts."""

from mars_core.data.samples.benchmark_rows import rewardbench
from mars_core.data.samples.best_of_four_rows import rewardbench2
from mars_core.data.samples.preferences import preferences

__all__ = ["preferences", "rewardbench", "rewardbench2"]
