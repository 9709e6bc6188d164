"""What sampled responses teach: the best of each prompt, the best and the worst, or pairs drawn at random."""

import itertools

import numpy as np
import pandas as pd

from mars_core.alignment.trainer_setup import TrainingError

PAIR_TOKENS = ["prompt_tokens_chosen", "response_tokens_chosen", "response_tokens_rejected"]
"""Columns of pairs of responses, where these have prompt_tokens and response_tokens."""


def best(responses: pd.DataFrame) -> pd.DataFrame:
    """The response with the greatest reward of each prompt; the first of equal ones.

    Args:
        responses: rows with prompt_id and reward.

    Raises:
        TrainingError: no prompt has responses with different rewards.
    """
    return _extremes(responses)[0]


def best_and_worst(responses: pd.DataFrame) -> pd.DataFrame:
    """The best against the worst response of each prompt: columns of the former end in _chosen, those of the
    latter in _rejected.

    Raises:
        TrainingError: no prompt has responses with different rewards.
    """
    chosen, rejected = _extremes(responses)
    return _side_by_side(chosen, rejected)


def drawn_pairs(responses: pd.DataFrame, per_prompt: int, seed: int) -> pd.DataFrame:
    """Pairs of responses to each prompt, drawn without replacement, in an order that says nothing.

    Args:
        responses: rows with prompt_id and reward.
        per_prompt: most pairs of a prompt.
        seed: of the draw.

    Raises:
        TrainingError: no prompt has responses with different rewards.
    """
    _check(responses)
    draw, first, second = np.random.default_rng(seed), list[int](), list[int]()
    for places in responses.groupby("prompt_id", sort=False).indices.values():
        pairs = list(itertools.combinations(draw.permutation(places), 2))
        for number in draw.permutation(len(pairs))[:per_prompt]:
            first.append(pairs[number][0])
            second.append(pairs[number][1])
    return _side_by_side(responses.iloc[first], responses.iloc[second])


def _extremes(responses: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    _check(responses)
    responses = responses.reset_index(drop=True)
    rewards = responses.groupby("prompt_id", sort=False)["reward"]
    apart = (rewards.max() > rewards.min()).to_numpy()
    chosen, rejected = rewards.idxmax().to_numpy(), rewards.idxmin().to_numpy()
    return responses.loc[chosen[apart]], responses.loc[rejected[apart]]


def _check(responses: pd.DataFrame) -> None:
    rewards = responses.groupby("prompt_id")["reward"]
    if not (rewards.max() > rewards.min()).any():
        raise TrainingError(
            f"all responses to each of {rewards.ngroups:,} prompts have equal rewards, so that there is "
            "nothing to learn: look at the reward model, or sample more, or warmer, with samples and "
            "generation.respond.temperature"
        )


def _side_by_side(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    sides = (
        one.add_suffix("_chosen").reset_index(drop=True),
        other.add_suffix("_rejected").reset_index(drop=True),
    )
    return pd.concat(sides, axis=1)
