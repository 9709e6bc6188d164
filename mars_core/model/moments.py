"""Sums over the pairs that a model has scored; they give the curvature of its loss."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]


class Moments:
    """Sums over pairs that give E[c(Δ)], E[ψψᵀ] and E[c(Δ) ψψᵀ]; any number of pairs takes d × d numbers."""

    def __init__(self) -> None:
        """Start without pairs; the first ones set d."""
        self.n = 0
        self.curvature_sum = 0.0
        self.second_sum: Matrix = np.zeros((0, 0))
        self.fisher_sum: Matrix = np.zeros((0, 0))

    def add(self, differences: ArrayLike, curvature: ArrayLike) -> None:
        """Add pairs: ψ [m, d] and c(Δ) [m], the second derivative of the loss in the margin."""
        psi, c = (np.asarray(numbers, dtype=np.float64) for numbers in (differences, curvature))
        if not self.n:
            self.second_sum, self.fisher_sum = np.zeros((2, psi.shape[1], psi.shape[1]))
        self.n += len(c)
        self.curvature_sum += float(c.sum())
        self.second_sum += psi.T @ psi
        weighted = psi * np.sqrt(c)[:, None]
        self.fisher_sum += weighted.T @ weighted

    def merge(self, other: "Moments") -> None:
        """Add the pairs of others."""
        if not self.n:
            self.second_sum, self.fisher_sum = np.zeros((2, *other.second_sum.shape))
        self.n += other.n
        self.curvature_sum += other.curvature_sum
        self.second_sum += other.second_sum
        self.fisher_sum += other.fisher_sum

    @property
    def mean_curvature(self) -> float:
        """E[c(Δ)]; under Bradley–Terry at most 1/4."""
        return self.curvature_sum / self.n

    @property
    def second(self) -> Matrix:
        """E[ψψᵀ]."""
        return self.second_sum / self.n

    @property
    def fisher(self) -> Matrix:
        """I = E[c(Δ) ψψᵀ]."""
        return self.fisher_sum / self.n

    def save(self, file: Path) -> None:
        """Write the sums, in float64."""
        with file.open("wb") as target:
            np.savez(target, **vars(self))

    @classmethod
    def load(cls, file: Path) -> "Moments":
        """Read what `save` wrote."""
        with np.load(file) as sums:
            moments = cls()
            moments.n, moments.curvature_sum = int(sums["n"]), float(sums["curvature_sum"])
            moments.second_sum, moments.fisher_sum = sums["second_sum"], sums["fisher_sum"]
        return moments
