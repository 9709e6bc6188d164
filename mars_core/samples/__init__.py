"""Built-in data, written for this project: preference pairs and a small benchmark in RewardBench's layout."""

from mars_core.samples.preferences import preferences
from mars_core.samples.rewardbench import rewardbench

__all__ = ["preferences", "rewardbench"]
