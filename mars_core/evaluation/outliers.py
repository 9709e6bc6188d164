"""How far responses lie from those that a model was trained on: an alarm for over-optimised rewards (InfoRM).

The distance of a response is Mahalanobis's, of its latent μ to those of reference texts: √((μ − m)ᵀ(Σ +
10⁻⁶I)⁻¹(μ − m)) with their mean m and covariance Σ. Only some objectives give latents, such as
`information_bottleneck`. Source: arXiv 2402.09345 and 2510.13694.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from mars_core.errors import ModelError
from mars_core.model.batching import TokenBudget
from mars_core.model.reward_model import WINDOW, RewardModel

Floats = NDArray[np.float64]
RIDGE = 1e-6
FAR = 0.99
"""Responses count as outliers beyond this quantile of the reference's own distances."""


class Reference(NamedTuple):
    """What latents usually are."""

    mean: Floats
    """[K]"""
    factor: Floats
    """[K, K] lower Cholesky factor of Σ + 10⁻⁶I."""


def reference_of(latents: NDArray[np.float32]) -> Reference:
    """Mean and covariance of the latents [n, K] of usual texts.

    Raises:
        ValueError: there are fewer than two.
    """
    if len(latents) < 2:
        raise ValueError(f"latents of at least two texts are needed, got {len(latents)}")
    numbers = latents.astype(np.float64)
    covariance = np.atleast_2d(np.cov(numbers, rowvar=False)) + RIDGE * np.eye(numbers.shape[1])
    return Reference(numbers.mean(axis=0), np.linalg.cholesky(covariance).astype(np.float64))


def distances(latents: NDArray[np.float32], reference: Reference) -> Floats:
    """Mahalanobis distances [m] of latents [m, K]."""
    apart = latents.astype(np.float64) - reference.mean
    found: Floats = np.sqrt((solve_triangular(reference.factor, apart.T, lower=True) ** 2).sum(axis=0))
    return found


def latents_of(model: RewardModel, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float32]:
    """The latents [m, K] of responses to prompts.

    Raises:
        ModelError: the model's objective has no latents.
    """
    budget, parts = TokenBudget(model.config.batch_tokens), list[NDArray[np.float32]]()
    for start in range(0, len(prompts), WINDOW):
        rows = slice(start, start + WINDOW)
        found = model.features(prompts[rows], responses[rows], budget)
        with torch.inference_mode():
            texts = model.of_features(torch.from_numpy(found.distinct).to(model.device))
            latents = model.objective.latents(texts)
        if latents is None:
            raise ModelError(
                f"the objective {model.objective.name} gives no latents, from which outliers are told: fit "
                "one that does, such as information_bottleneck"
            )
        parts.append(latents.cpu().numpy()[found.rows])
    return np.concatenate(parts)


def measures(found: Floats, usual: Floats) -> dict[str, float]:
    """Metrics of the distances of responses [m], given those of the reference texts [n].

    Returns:
        `mean_distance` and `reference_distance`, the means of both, and `outliers`, the share of responses
        that are farther than `FAR` of the reference texts.
    """
    return {
        "mean_distance": float(found.mean()),
        "reference_distance": float(usual.mean()),
        "outliers": float((found > np.quantile(usual, FAR)).mean()),
    }
