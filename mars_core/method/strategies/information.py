"""Pairs whose synthetic variants would add most Fisher information, the theory's own quantity."""

import numpy as np
from pydantic import Field
from scipy.linalg import cho_factor, cho_solve

from mars_core.config import Configuration
from mars_core.method.strategies.strategy import Floats, Signals, Strategy, log_of_power

RIDGE = 1e-6
"""As a share of the information's mean eigenvalue, so that few pairs have an inverse too."""


class Information(Strategy):
    """q ∝ gᵢ^τ, with gᵢ the gain of one more such pair, ln det(I + cᵢψᵢψᵢᵀ) − ln det I = ln(1 + cᵢ·ψᵢᵀI⁻¹ψᵢ).

    I = Σⱼ cⱼψⱼψⱼᵀ is the information of the originals (docs/method.md), with their differences of features ψ
    and the curvature c of the loss.
    """

    class Config(Configuration):
        """τ."""

        tau: float = Field(1.0, ge=0)
        """Sharpness τ: 0 spends the budget uniformly, larger values concentrate it on the greatest gains."""

    config: Config
    reads = frozenset({"features", "curvature"})

    def log_q(self, signals: Signals) -> Floats:
        """τ·ln g."""
        assert signals.features is not None
        assert signals.curvature is not None
        psi = signals.features
        information = (psi * signals.curvature[:, None]).T @ psi
        ridge = RIDGE * max(np.trace(information), np.finfo(np.float64).tiny) / len(information)
        factor = cho_factor(information + ridge * np.eye(len(information)), overwrite_a=True)
        solved: Floats = cho_solve(factor, psi.T)
        gain = np.log1p(signals.curvature * np.einsum("nd,dn->n", psi, solved))
        return log_of_power(gain, self.config.tau)
