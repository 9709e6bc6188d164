"""What sampled responses teach, and the loss of reward distillation."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mars_core.alignment.distillation import distillation_loss
from mars_core.alignment.methods.method import boundaries
from mars_core.alignment.sampled_pairs import best, best_and_worst, drawn_pairs
from mars_core.alignment.trainer_setup import passes

RESPONSES = pd.DataFrame(
    {
        "prompt_id": ["a", "a", "a", "b", "b", "c", "c", "c"],
        "response": ["a1", "a2", "a3", "b1", "b2", "c1", "c2", "c3"],
        "reward": [1.0, 3.0, 2.0, 5.0, 5.0, 0.0, 0.0, -1.0],
    }
)


def test_the_best_has_the_greatest_reward_and_a_prompt_with_equal_ones_has_none():
    assert best(RESPONSES)["response"].tolist() == ["a2", "c1"]


def test_pairs_are_the_best_and_the_worst():
    pairs = best_and_worst(RESPONSES)
    assert pairs["response_chosen"].tolist() == ["a2", "c1"]
    assert pairs["response_rejected"].tolist() == ["a1", "c3"]


def test_drawn_pairs_are_distinct_pairs_of_one_prompt_whose_order_says_nothing():
    pairs = drawn_pairs(RESPONSES, 2, seed=0)
    assert pairs.groupby("prompt_id_chosen").size().to_dict() == {"a": 2, "b": 1, "c": 2}
    assert (pairs["prompt_id_chosen"] == pairs["prompt_id_rejected"]).all()
    sides = pairs[["response_chosen", "response_rejected"]]
    assert len({frozenset(row) for row in sides.to_numpy()}) == len(pairs)
    many = [drawn_pairs(RESPONSES, 9, seed) for seed in range(50)]
    higher = pd.concat(many).query("reward_chosen != reward_rejected").eval("reward_chosen > reward_rejected")
    assert 0.4 < higher.mean() < 0.6


@given(
    st.lists(st.tuples(*[st.floats(-5, 5)] * 4), min_size=1, max_size=5), st.floats(0.01, 2), st.floats(0, 2)
)
def test_reward_distillation_is_the_squared_error_of_the_nearest_model_and_the_forward_divergence(
    pairs, beta, pessimism
):
    first, second, *differences = np.array(pairs).T
    errors = [np.mean((model - (beta * first - beta * second)) ** 2) for model in differences]
    expected = min(errors) - pessimism * np.mean([*first, *second])
    found = distillation_loss(
        torch.tensor([*first, *second]), torch.tensor(np.stack(differences, 1)), beta, pessimism
    )
    assert float(found) == pytest.approx(expected)


def test_one_model_without_pessimism_is_fitted_where_log_ratios_are_its_rewards():
    log_ratios = torch.tensor([3.0, 1.0, 0.5, 2.0])
    differences = 0.1 * torch.tensor([[2.5], [-1.0]])
    assert distillation_loss(log_ratios, differences, 0.1, 0.0) == pytest.approx(0.0)


@given(st.integers(1, 200), st.integers(1, 20))
def test_passes_make_up_a_step_and_keep_the_limit(texts, most):
    size, number = passes(texts, most)
    assert size * number == texts
    assert size <= most


def test_evaluations_divide_the_steps_and_the_last_is_at_their_end():
    assert boundaries(20, 4) == [5, 10, 15, 20]
    assert boundaries(10, 3) == [4, 7, 10]
    assert boundaries(2, 5) == [1, 2]
