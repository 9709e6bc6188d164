"""What a reward model is measured on, and how it scores a benchmark's rows."""

from collections.abc import Callable

import pandas as pd
from datasets import Dataset

from mars_core import rewardbench
from mars_core.configurable import Configuration
from mars_core.reward_model import RewardModel, pair_rewards


class EvaluationConfig(Configuration):
    """What a reward model is measured on besides the validation and the held-out pairs."""

    rewardbench: str | None = None
    """RewardBench: sample://rewardbench, a local file, or a hub dataset such as
    allenai/reward-bench@REVISION; by default it is not run."""


def rewardbench_rewards(
    model: RewardModel, benchmark: Dataset, on_scored: Callable[[int], None] | None = None
) -> pd.DataFrame:
    """Score RewardBench rows.

    Returns:
        Columns id, subset, section, reward_chosen, reward_rejected, correct; keyed by (id, subset).

    Raises:
        ModelError: a reward is NaN or infinite; names the rows as subset/id.
    """
    keys = [f"{subset}/{row}" for row, subset in zip(benchmark["id"], benchmark["subset"], strict=True)]
    scored = pair_rewards(model, benchmark.add_column("pair_id", keys), on_scored)
    return rewardbench.results(
        benchmark, scored["reward_chosen"].to_numpy(), scored["reward_rejected"].to_numpy()
    )
