"""Whether a model, or several as one, knows where it is wrong.

An uncertainty is worth as much as it tells errors from right answers: by how often a wrong pair is more
uncertain than a right one (AUROC), and by the accuracy on the most certain share of pairs (accuracy over
coverage). It is the deviation that an objective declares, or how far models disagree, such as the seeds of
one recipe.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mars_core.evaluation.statistics import as_sample, auc

COVERAGE = (100, 90, 70, 50, 30, 10)
"""Percent of pairs, the most certain ones first."""


class Ensemble(NamedTuple):
    """Several models as one."""

    margins: NDArray[np.float64]
    """[n] mean of the models' margins, each model's divided by their root mean square."""
    disagreement: NDArray[np.float64]
    """[n] standard deviation of these."""


def ensemble(margins: ArrayLike) -> Ensemble:
    """Models as one, by their margins [models, n]; one whose margins are all zero has no say.

    Raises:
        ValueError: there are fewer than two models.
    """
    of_models = np.asarray(margins, np.float64)
    if of_models.ndim != 2 or len(of_models) < 2:
        raise ValueError(f"margins of at least two models are needed, got shape {of_models.shape}")
    size = np.sqrt((of_models**2).mean(axis=1, keepdims=True))
    scaled = np.divide(of_models, size, out=np.zeros_like(of_models), where=size > 0)
    return Ensemble(scaled.mean(axis=0), scaled.std(axis=0, ddof=1))


def measures(uncertainty: ArrayLike, margins: ArrayLike) -> dict[str, float]:
    """What an uncertainty [n] tells of the errors of margins [n].

    Returns:
        `error_auroc`, nan where all pairs are right or all wrong, and `accuracy_of_<percent>` for `COVERAGE`:
        the accuracy on the most certain pairs; of equally uncertain ones at the border, in expectation over
        which of them are taken.

    Raises:
        ValueError: as `as_sample`, or the two differ in length.
    """
    doubt, right = as_sample(uncertainty, "uncertainty"), as_sample(margins, "margins") > 0
    if doubt.shape != right.shape:
        raise ValueError(f"{right.size} margins need as many uncertainties, got {doubt.size}")
    _, place, counts = np.unique(doubt, return_inverse=True, return_counts=True)
    expected = (np.bincount(place, weights=right) / counts)[np.sort(place)]
    share = np.cumsum(expected) / np.arange(1, right.size + 1)
    taken = {percent: max(1, round(right.size * percent / 100)) for percent in COVERAGE}
    over_coverage = {f"accuracy_of_{percent}": float(share[n - 1]) for percent, n in taken.items()}
    return {"error_auroc": auc(doubt, ~right)} | over_coverage
