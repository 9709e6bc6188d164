"""How far responses lie from those of the untrained policy, in the latents of reward models (InfoRM).

The penalty r − γ·D keeps a policy where the reward models can judge (arXiv 2402.09345 and 2510.13694; D is
not squared, as in the published code and not in the paper).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mars_core.alignment.trainer_setup import TrainingError
from mars_core.evaluation.outliers import distances, latents_of, reference_of
from mars_core.model.reward_model import RewardModel


class OutlierDistances:
    """Mahalanobis distances from usual responses, by each reward model."""

    def __init__(
        self, models: Sequence[RewardModel], prompts: Sequence[str], responses: Sequence[str]
    ) -> None:
        """See what is usual.

        Args:
            models: whose objectives have latents.
            prompts: [n] of the usual responses.
            responses: [n] the usual responses: those of the untrained policy.

        Raises:
            ModelError: an objective has no latents.
            TrainingError: latents have as many dimensions as there are responses, or more, so that no
                covariance can be estimated.
        """
        self.models = models
        usual = [latents_of(model, prompts, responses) for model in models]
        for latents in usual:
            texts, dimensions = latents.shape
            if texts <= dimensions:
                raise TrainingError(
                    f"rewards.outlier_penalty: {texts:,} responses do not tell what is usual in "
                    f"{dimensions:,} dimensions: sample several times as many (prompts.number, samples)"
                )
        self.references = [reference_of(latents) for latents in usual]

    def of(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
        """[k, m] distances of m responses by each of k models."""
        return np.stack(
            [
                distances(latents_of(model, prompts, responses), reference)
                for model, reference in zip(self.models, self.references, strict=True)
            ]
        )
