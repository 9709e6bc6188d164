"""The theory of MARS, measured: how much curvature the synthetic pairs add to that of the originals.

For a linear reward model on the features φ before its scalar layer, with ψ = φ(x, y⁺) − φ(x, y⁻), margin Δ
and c(Δ) = ℓ''(Δ), which for the Bradley–Terry loss is σ(Δ)(1 − σ(Δ)), the loss has the Fisher information
I = E[c(Δ) ψψᵀ]. The theorem (MARS v1) is about originals P, synthetic pairs Q and their mixture R = αP +
(1 − α)Q. If

    A1  |Δ| ≥ γ_org on P and |Δ| ≤ γ_aug < γ_org on Q,
    A2  E_Q[ψψᵀ] ⪰ β·E_P[ψψᵀ],

then I_R ⪰ [α + (1 − α)·γ_curv]·I_P with γ_curv = β·c(γ_aug)/c(γ_org): a gain only where γ_curv > 1. For a
curvature that does not fall with |Δ| alone, c(γ_aug) is the least one of the pairs of Q in A1, and c(γ_org)
the greatest of those of P.

In no real round does A1 hold for every pair. So it is measured for the shares `SHARES` of both sides: that
share of the originals has |Δ| ≥ γ_org, and that share of the synthetic pairs |Δ| ≤ γ_aug. The theorem holds
for a share of 1 only. A smaller share shows how far the round is from A1, but guarantees nothing: β belongs
to all pairs, and those outside the share may remove what the others add.

A matrix of few pairs or of degenerate features has directions without information. The ridge, a share `RIDGE`
of the mean eigenvalue of the originals' matrix, bounds them from below: the rank is the number of eigenvalues
above it, the condition number is (λ_max + ridge)/(λ_min + ridge), and β is the greatest number with E_Q[ψψᵀ]
⪰ β·(E_P[ψψᵀ] + ridge), which implies A2. If E_Q[ψψᵀ] lacks a direction, as it must with fewer pairs than
dimensions, β is exactly 0.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigvalsh

from mars_core.evaluation.statistics import as_sample
from mars_core.model.moments import Matrix, Moments

RIDGE = 1e-6
"""The ridge as a share of the mean eigenvalue of the originals' matrix."""
SHARES = (1.0, 0.9, 0.5)
"""Shares of the pairs for which A1 is measured."""


class Spectrum(NamedTuple):
    """A summary of the eigenvalues of a positive semidefinite matrix, given a ridge."""

    trace: float
    lambda_min: float
    rank: int
    condition: float


def spectrum(matrix: Matrix, ridge: float) -> Spectrum:
    """Trace, least eigenvalue, number of eigenvalues above the ridge, and condition number with the ridge."""
    values = np.maximum(eigvalsh(matrix), 0)  # below zero is rounding
    condition = (values[-1] + ridge) / (values[0] + ridge) if values[-1] > 0 else np.nan
    return Spectrum(float(values.sum()), float(values[0]), int((values > ridge).sum()), float(condition))


def domination(above: Matrix, below: Matrix) -> float:
    """The greatest b ≥ 0 with above ⪰ b·(below + ridge): the least generalised eigenvalue of the two.

    It is nan if `below` is zero, which anything dominates, and 0 if `above` is singular up to rounding.
    """
    if not below.any():
        return float("nan")
    values = eigvalsh(above)
    if values[0] <= len(above) * np.finfo(np.float64).eps * values[-1]:
        return 0.0
    bounded = below + ridge_of(below) * np.eye(len(below))
    return max(0.0, float(eigvalsh(above, bounded, subset_by_index=[0, 0])[0]))  # below zero is rounding


def ridge_of(originals: Matrix) -> float:
    """`RIDGE` of the mean eigenvalue."""
    return RIDGE * float(np.trace(originals)) / len(originals)


def measure(
    originals: Moments,
    synthetic: Moments,
    original_margins: ArrayLike,
    synthetic_margins: ArrayLike,
    original_curvature: ArrayLike,
    synthetic_curvature: ArrayLike,
    synthetic_weight: float = 1.0,
) -> dict[str, float]:
    """Measure the quantities of the theorem for a round.

    Args:
        originals: moments of P, under the model that selected the hard pairs.
        synthetic: moments of Q, under the same model.
        original_margins: [n] margins of P.
        synthetic_margins: [m] margins of Q.
        original_curvature: [n] c(Δ) of P.
        synthetic_curvature: [m] c(Δ) of Q.
        synthetic_weight: how much a pair of Q counts in the fit, where one of P counts 1.

    Returns:
        `originals/…`, `synthetic/…` and `mixture/…` with `mean_c`, `trace`, `lambda_min`, `rank` and
        `condition` of their Fisher information, the mixture being that of these two; `dimension`, d;
        `alpha`, the originals' share of the mixture; `ridge`, that of the Fisher information; `beta` of A2;
        what the mixture measures, whatever the premises, `worst_gain`, a g with I_R ⪰ g·I_P (the greatest,
        were there no ridge), and `mean_gain`, trace I_R / trace I_P; for each share s of `SHARES`
        `gamma_org/s`, `gamma_aug/s`, `gamma_curv/s` and `a1/s`, 1 where γ_aug < γ_org and else 0; and of the
        theorem, so for all pairs, `premises`, 1 where A1 holds and β > 0 and else 0, and `bound`, α + (1 −
        α)·γ_curv, nan where they do not hold.

    Raises:
        ValueError: there is no pair on one side, or a number is not finite.
    """
    p, q = np.abs(as_sample(original_margins, "margins")), np.abs(as_sample(synthetic_margins, "margins"))
    c_p, c_q = (as_sample(some, "curvatures") for some in (original_curvature, synthetic_curvature))
    alpha = originals.n / (originals.n + synthetic_weight * synthetic.n)
    ridge = ridge_of(originals.fisher)
    mixture = alpha * originals.fisher + (1 - alpha) * synthetic.fisher
    mean_c = alpha * originals.mean_curvature + (1 - alpha) * synthetic.mean_curvature
    figures = {"dimension": float(len(mixture)), "alpha": alpha, "ridge": ridge}
    for name, c, fisher in (
        ("originals", originals.mean_curvature, originals.fisher),
        ("synthetic", synthetic.mean_curvature, synthetic.fisher),
        ("mixture", mean_c, mixture),
    ):
        figures |= {f"{name}/mean_c": c}
        figures |= {f"{name}/{key}": float(value) for key, value in spectrum(fisher, ridge)._asdict().items()}
    beta = domination(synthetic.second, originals.second)
    figures["beta"] = beta
    figures["worst_gain"] = alpha + (1 - alpha) * domination(synthetic.fisher, originals.fisher)
    traces = figures["mixture/trace"], figures["originals/trace"]
    figures["mean_gain"] = traces[0] / traces[1] if traces[1] else float("nan")
    for share in SHARES:
        gamma_org = float(np.quantile(p, 1 - share, method="lower"))
        gamma_aug = float(np.quantile(q, share, method="higher"))
        gamma_curv = beta * float(c_q[q <= gamma_aug].min() / c_p[p >= gamma_org].max())
        figures |= {
            f"gamma_org/{share}": gamma_org,
            f"gamma_aug/{share}": gamma_aug,
            f"gamma_curv/{share}": gamma_curv,
            f"a1/{share}": float(gamma_aug < gamma_org),
        }
    holds = bool(figures["a1/1.0"]) and beta > 0
    figures["premises"] = float(holds)
    figures["bound"] = alpha + (1 - alpha) * figures["gamma_curv/1.0"] if holds else float("nan")
    return figures
