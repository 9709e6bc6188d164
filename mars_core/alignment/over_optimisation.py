"""Over-optimisation: gold against proxy over n, over the same prompts.

Choosing the best of n by a reward model makes that reward rise with n. Gold, the reward of a model that does
not choose, rises too as long as the choice is one of better responses; where it falls, the choice is one of
the reward model's mistakes (arXiv 2210.10760).
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from mars_core.evaluation.benchmarks.best_of_n import N, best_of
from mars_core.evaluation.statistics import Interval, stratified_bootstrap


class OverOptimisation(NamedTuple):
    """What choosing the best of n does, against a response that is drawn at random; paired by prompt."""

    proxy: dict[int, Interval]
    """n → by how much the reward that chooses is higher."""
    gold: dict[int, Interval]
    """n → by how much gold is; empty without gold."""

    @property
    def most(self) -> int:
        """The greatest n."""
        return max(self.proxy)


def over_optimisation(table: pd.DataFrame) -> OverOptimisation:
    """Of a table with `rewards` and `gold`, lists of numbers of each prompt's responses."""
    most = min(map(len, table["rewards"]))
    numbers = [n for n in N if 1 < n <= most]
    judged = bool(table["gold"].notna().all())
    return OverOptimisation(
        {n: _gain(table, "rewards", n) for n in numbers},
        {n: _gain(table, "gold", n) for n in numbers} if judged else {},
    )


def _gain(table: pd.DataFrame, column: str, n: int) -> Interval:
    gains = np.array(
        [
            best_of(values, rewards, n) - float(np.mean(values))
            for values, rewards in zip(table[column], table["rewards"], strict=True)
        ]
    )
    return stratified_bootstrap(gains, np.full(len(gains), "all", dtype=object), {"all": 1.0})
