"""What training did to a policy: its responses against those of the untrained policy, on the same prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mars_core.evaluation.statistics import Interval, stratified_bootstrap

GRAM = 4
"""Words of the n-grams whose repetition is measured."""
MEASURES = ("reward", "gold", "distance", "characters", "repetition", "cut_off")
"""What is measured of each response; `gold` where there is a gold model, `distance` where outliers are
penalised."""
KL, WIN_RATE = "kl", "win_rate"


@dataclass(frozen=True)
class Trained:
    """A training, and the evaluations of its policies."""

    method: str
    evaluations: dict[int, pd.DataFrame]
    """Optimizer steps → `by_prompt`."""
    kept: int | None
    """Steps of the policy that is kept; None where that is the untrained one."""
    broken_at: int | None
    """The step whose gradient was not finite, from 1."""
    stopped: bool
    """Whether training was ended because gold fell."""


def repetition(text: str, n: int = GRAM) -> float:
    """Share of a text's n-grams of words that occurred in it before; 0 of a text with fewer than n words."""
    words = text.split()
    grams = [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def measured(responses: pd.DataFrame, rewards: pd.DataFrame) -> pd.DataFrame:
    """prompt_id and `MEASURES` of each response.

    Args:
        responses: rows with prompt_id, sample, response, is_cut_off.
        rewards: rows with prompt_id, sample, reward and maybe gold and distance.
    """
    both = responses.merge(rewards, on=["prompt_id", "sample"])
    both["characters"] = both["response"].str.len()
    both["repetition"] = both["response"].map(repetition)
    both["cut_off"] = both["is_cut_off"].astype(float)
    return both[["prompt_id", *(name for name in MEASURES if name in both)]]


def by_prompt(before: pd.DataFrame, after: pd.DataFrame, divergences: Sequence[float]) -> pd.DataFrame:
    """A row for each prompt that both have responses to: means of both, and of the divergence.

    Args:
        before: `measured` of the untrained policy π_ref.
        after: `measured` of the trained policy π.
        divergences: from the untrained policy, along each response in `after`.

    Returns:
        prompt_id, `kl`, of each measure NAME_before and NAME, and with gold `win_rate`: the share of pairs of
        a response of π and one of π_ref in which gold prefers that of π, ties counted half.
    """
    after = after.assign(**{KL: divergences})
    table = (
        after.groupby("prompt_id", sort=False)
        .mean()
        .join(before.groupby("prompt_id").mean(), how="inner", rsuffix="_before")
    )
    if "gold" in before and "gold" in after:
        golds = [responses.groupby("prompt_id")["gold"] for responses in (after, before)]
        table[WIN_RATE] = [
            _win_rate(*(gold.get_group(prompt).to_numpy() for gold in golds)) for prompt in table.index
        ]
    return table.reset_index()


def _win_rate(values: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Share of pairs in which the first is greater, ties counted half."""
    return float((np.sign(np.subtract.outer(values, others)) + 1).mean() / 2)


def changes(table: pd.DataFrame) -> dict[str, Interval]:
    """By how much each measure rose, paired by prompt; `win_rate` where there is gold; `kl`, the estimate of
    KL(π ‖ π_ref) in nats.

    Intervals are over prompts.

    Args:
        table: as `by_prompt` gives it.
    """
    found = {
        name: _mean(table[name] - table[f"{name}_before"]) for name in MEASURES if f"{name}_before" in table
    }
    return found | {name: _mean(table[name]) for name in (WIN_RATE, KL) if name in table}


def metrics_of_changes(table: pd.DataFrame) -> dict[str, float]:
    """`changes` by name: policy/NAME, and the ends of its interval with _low and _high."""
    return {
        f"policy/{name}{end}": value
        for name, interval in changes(table).items()
        for end, value in zip(("", "_low", "_high"), interval, strict=True)
    }


def gold_fell(evaluations: Sequence[pd.DataFrame]) -> bool:
    """Whether gold of the last evaluation is shown to be lower than the highest before it, paired by prompt;
    the untrained policy's counts too."""
    *earlier, last = evaluations
    candidates = [last.set_index("prompt_id")["gold_before"]]
    candidates += [table.set_index("prompt_id")["gold"] for table in earlier]
    highest = max(candidates, key=lambda gold: float(gold.mean()))
    difference = (last.set_index("prompt_id")["gold"] - highest).dropna()
    return _mean(difference).high < 0


def best_by_gold(evaluations: Mapping[int, pd.DataFrame]) -> int | None:
    """The evaluation with the highest mean gold; None where the untrained policy's is higher."""
    best = max(evaluations, key=lambda number: float(evaluations[number]["gold"].mean()))
    untrained = float(evaluations[best]["gold_before"].mean())
    return best if float(evaluations[best]["gold"].mean()) > untrained else None


def _mean(values: "pd.Series[float]") -> Interval:
    numbers = values.to_numpy(np.float64)
    return stratified_bootstrap(numbers, np.full(len(numbers), "all", dtype=object), {"all": 1.0})
