"""The reward that a policy is optimised for: of one reward model, or of several together."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from mars_core.config import Configuration, Later

Combination = Literal["mean", "minimum"]


class OptimisedReward(Configuration):
    """What reward models say together, and what is taken off."""

    combine: Combination = "mean"
    """What several of them say together: their mean, or the pessimistic minimum."""
    spread_penalty: Annotated[float, Later()] = Field(0.0, ge=0)
    """k of mean − k·sd, with the standard deviation over several models, of which `combine` is the mean."""
    length_penalty: Annotated[float, Later()] = Field(0.0, ge=0)
    """What each character of a response takes off its reward."""
    outlier_penalty: Annotated[float, Later()] = Field(0.0, ge=0)
    """γ of r − γ·D, with the distance D of a response's latent to those of the untrained policy's responses;
    for reward models whose objective has latents, such as `information_bottleneck`."""

    def of(
        self,
        rewards: ArrayLike,
        prompts: ArrayLike,
        responses: Sequence[str],
        distances: ArrayLike | None = None,
    ) -> NDArray[np.float64]:
        """One reward for each response.

        Args:
            rewards: [k, m] of k models.
            prompts: [m] which prompt each response answers.
            responses: [m] the responses.
            distances: [k, m] of the latents by each model, of which the mean counts; needed where
                `outlier_penalty` is not 0.
        """
        lengths = np.array(list(map(len, responses)), np.float64)
        together = combined(rewards, prompts, self.combine, self.spread_penalty)
        less: NDArray[np.float64] = together - self.length_penalty * lengths
        if self.outlier_penalty:
            less -= self.outlier_penalty * np.asarray(distances, np.float64).mean(axis=0)
        return less


def combined(
    rewards: ArrayLike, prompts: ArrayLike, how: Combination, spread_penalty: float = 0.0
) -> NDArray[np.float64]:
    """One reward for each response, from those of several models.

    Preferences fix a reward but for a constant of each prompt, and its scale differs between models. So each
    model's rewards are taken less their mean over the responses to a prompt, and divided by the root mean
    square of what is left. The minimum over models that differ in their seed is the pessimistic choice where
    they disagree. One model's rewards stay as they are.

    Args:
        rewards: [k, m] of k models.
        prompts: [m] which prompt each response answers.
        how: `mean` or `minimum` over the models.
        spread_penalty: standard deviations over the models that are taken off their mean.
    """
    given: NDArray[np.float64] = np.asarray(rewards, np.float64)
    if len(given) == 1:
        alone: NDArray[np.float64] = given[0]
        return alone
    _, places = np.unique(np.asarray(prompts), return_inverse=True)
    sizes = np.bincount(places)
    means = np.stack([np.bincount(places, of_model) / sizes for of_model in given])
    centred = given - means[:, places]
    spread = np.sqrt((centred**2).mean(axis=1, keepdims=True))
    alike = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    if how == "minimum":
        least: NDArray[np.float64] = alike.min(axis=0)
        return least
    together: NDArray[np.float64] = alike.mean(axis=0) - spread_penalty * alike.std(axis=0)
    return together
