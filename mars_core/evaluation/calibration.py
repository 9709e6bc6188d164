"""Calibration: whether a reward model's confidence matches its accuracy.

Under Bradley–Terry a margin Δ says that the chosen response is the better one with probability
σ(Δ). The order that the model itself predicts then has *confidence* σ(|Δ|), from one half to one,
and it is right when Δ > 0. A margin of exactly zero predicts no order: at confidence one half it
counts as half right here, whereas `mars_core.evaluation.statistics.accuracy` calls it wrong.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit
from scipy.stats import rankdata
from statsmodels.stats.proportion import proportion_confint

from mars_core.evaluation.statistics import CONFIDENCE, as_sample


def brier_score(margins: ArrayLike) -> float:
    """Mean of (1 − σ(Δ))² over margins [n]: 0 is perfect, 0.25 is a model without opinion.

    Raises:
        ValueError: as `mars_core.evaluation.statistics.as_sample`.
    """
    return float((expit(-as_sample(margins, "margins")) ** 2).mean())


def expected_calibration_error(margins: ArrayLike, bins: int | None = None) -> float:
    """Mean over pairs of |accuracy − mean confidence| of the pair's bin, with the bins of `reliability`.

    It is biased upwards on few pairs: a perfect model shows about √(2p(1−p)/(πm)) at m pairs a bin.

    Raises:
        ValueError: as `reliability`.
    """
    table = reliability(margins, bins)
    return float(np.average((table["accuracy"] - table["confidence"]).abs(), weights=table["n"]))


def reliability(margins: ArrayLike, bins: int | None = None) -> pd.DataFrame:
    """The table behind a reliability diagram, from the least confident bin to the most.

    The bins hold equally many of the margins [n], except that equal confidences share a bin; empty bins are
    dropped. By default there are ten, or fewer on few pairs, so that each holds twenty.

    Returns:
        One row for each bin: n, its mean confidence, its accuracy, and the ends of that accuracy's 95% Wilson
        interval, accuracy_low and accuracy_high.

    Raises:
        ValueError: as `mars_core.evaluation.statistics.as_sample`, or `bins` is less than one.
    """
    sample = as_sample(margins, "margins")
    if bins is None:
        bins = max(1, min(10, sample.size // 20))
    if bins < 1:
        raise ValueError(f"a reliability table needs at least one bin, got {bins}")
    below = rankdata(np.abs(sample), method="min") - 1
    pairs = pd.DataFrame(
        {
            "bin": below * bins // sample.size,
            "confidence": expit(np.abs(sample)),
            "right": np.heaviside(sample, 0.5),
        }
    )
    table = (
        pairs.groupby("bin")
        .agg(n=("right", "size"), confidence=("confidence", "mean"), accuracy=("right", "mean"))
        .reset_index(drop=True)
    )
    right, n = table["accuracy"] * table["n"], table["n"]
    low, high = proportion_confint(right, n, alpha=1 - CONFIDENCE, method="wilson")
    return table.assign(accuracy_low=low, accuracy_high=high)
