"""Whether a reward model ranks responses by their length.

An accuracy means little unless it exceeds that of a rule that looks only at length. The length of a response
is its number of characters, which no tokenizer changes.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from mars_core.evaluation.statistics import Interval, as_sample, stratified_bootstrap


def lengths(texts: Iterable[str]) -> NDArray[np.int64]:
    """Characters of each text, [n]."""
    return np.fromiter(map(len, texts), dtype=np.int64)


def length_bias(
    margins: ArrayLike,
    chosen_lengths: ArrayLike,
    rejected_lengths: ArrayLike,
    clusters: ArrayLike | None = None,
) -> dict[str, float]:
    """How much length explains of the margins [n] of pairs whose responses have the given lengths [n].

    The pairs of one label of `clusters` [n] are no independent ones; by default all are.

    Returns:
        `longer_wins` and `shorter_wins`, the accuracies of two rules on the same pairs, where both rules are
        wrong on responses of equal length; `prefers_longer`, the share of pairs of unequal lengths, without
        the model's ties, in which the model prefers the longer response; `length_correlation`, Spearman's
        rank correlation of the margin with chosen minus rejected length; `length_balanced`, the mean of the
        accuracies on pairs whose chosen response is the longer one and on pairs whose chosen response is the
        shorter one, with the ends `_low` and `_high` of its stratified bootstrap interval: any rule that only
        asks which response is longer gets .5. A metric that is undefined on these pairs is nan.

    Raises:
        ValueError: as `mars_core.evaluation.statistics.as_sample`, or the three arrays differ in length.
    """
    sample = as_sample(margins, "margins")
    difference = as_sample(chosen_lengths, "chosen_lengths") - as_sample(rejected_lengths, "rejected_lengths")
    if sample.shape != difference.shape:
        raise ValueError(f"{sample.size} margins need as many lengths, got {difference.size}")
    longer = difference > 0
    unequal = difference != 0
    decided = unequal & (sample != 0)
    balanced = Interval(*[float("nan")] * 3)
    if 0 < longer.sum() < unequal.sum():
        chosen_is = np.where(longer, "longer", "shorter")[unequal]
        balanced = stratified_bootstrap(
            sample[unequal] > 0,
            chosen_is,
            {"longer": 1.0, "shorter": 1.0},
            clusters=None if clusters is None else np.asarray(clusters)[unequal],
        )
    return {
        "longer_wins": float(longer.mean()),
        "shorter_wins": float((difference < 0).mean()),
        "prefers_longer": _mean((sample > 0)[decided] == longer[decided]),
        "length_correlation": _rank_correlation(sample, difference),
        "length_balanced": balanced.value,
        "length_balanced_low": balanced.low,
        "length_balanced_high": balanced.high,
    }


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's ρ, which long responses do not dominate as they would Pearson's; nan if one is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(stats.spearmanr(a, b).statistic)
