"""The reward that a policy is optimised for: of one reward model, or of several together."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Combination = Literal["mean", "minimum"]


def combined(rewards: ArrayLike, prompts: ArrayLike, how: Combination) -> NDArray[np.float64]:
    """One reward for each response, from those of several models.

    Preferences fix a reward but for a constant of each prompt, and its scale differs between models. So each
    model's rewards are taken less their mean over the responses to a prompt, and divided by the root mean
    square of what is left. The minimum over models that differ in their seed is the pessimistic choice where
    they disagree. One model's rewards stay as they are.

    Args:
        rewards: [k, m] of k models.
        prompts: [m] which prompt each response answers.
        how: `mean` or `minimum` over the models.
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
    together: NDArray[np.float64] = alike.mean(axis=0) if how == "mean" else alike.min(axis=0)
    return together
