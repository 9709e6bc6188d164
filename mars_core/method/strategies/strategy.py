"""A selection strategy: signals of the originals → log q, which divides the budget.

    selection: {strategy: softmax, tau: 0.5, margin: signed, budget: 2000}

`mars_core.method.selection` turns log q into whole budgets.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mars_core.extensions import ExtensionPoint, Plugin

Floats = NDArray[np.float64]
Signal = Literal[
    "margins", "distances", "features", "curvature", "spread", "disagreement", "previous", "weights"
]
"""A field of `Signals`."""


@dataclass(frozen=True)
class Signals:
    """Signals of n originals; only those that the strategy names are computed."""

    margins: Floats | None = None
    """[n] logit P(chosen ≻ rejected) by the current reward model; for Bradley–Terry r(chosen) −
    r(rejected)."""
    distances: Floats | None = None
    """[n] semantic distances of the two responses."""
    features: Floats | None = None
    """[n, d] φ(x, y⁺) − φ(x, y⁻), where φ are the inputs of the head's last layer."""
    curvature: Floats | None = None
    """[n] second derivative of a pair's loss in its margin, by the objective."""
    spread: Floats | None = None
    """[n] uncertainty of the reward difference: the root of the sum of the two variances."""
    disagreement: Floats | None = None
    """[n] standard deviation of the margin over the members of an ensemble."""
    previous: Floats | None = None
    """[n] q of the previous round; uniform in the first."""
    weights: Floats | None = None
    """[n] weights of the rows in the data; 1 if there are none."""


class Strategy(Plugin):
    """Signals → log q."""

    reads: ClassVar[frozenset[Signal]] = frozenset({"margins"})
    """The signals that the strategy reads; the others are None."""

    @abstractmethod
    def log_q(self, signals: Signals) -> Floats:
        """Logarithms of the probabilities, [n], up to a constant."""


def hardness(margins: Floats, kind: Literal["signed", "absolute"]) -> Floats:
    """s(Δ) of margins [n]; the smaller, the harder.

    Args:
        margins: Δ of each pair.
        kind: `signed` for s = Δ (uncertain *and* mis-ranked pairs, the paper's second version), `absolute`
            for s = |Δ| (uncertain pairs, its first).
    """
    return np.abs(margins) if kind == "absolute" else margins


def log_of_power(numbers: Floats, tau: float) -> Floats:
    """τ·ln x of numbers x ≥ 0, [n], for q ∝ x^τ; the same for numbers in another unit.

    Where x is 0 it is taken to be the least positive number.
    """
    log_q: Floats = tau * np.log(np.maximum(numbers, np.finfo(np.float64).tiny))
    return log_q


STRATEGIES: ExtensionPoint[Strategy] = ExtensionPoint("selection strategy", Strategy)  # type: ignore[type-abstract]
