"""Several reward models as one, and what choosing by them does."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.alignment.over_optimisation import over_optimisation
from mars_core.alignment.rewards import OptimisedReward, combined
from mars_core.report.alignment_report import sentence

PROMPTS = np.repeat(["a", "b", "c"], 4)
REWARDS = st.lists(st.floats(-5, 5), min_size=12, max_size=12)


def test_one_models_rewards_stay_as_they_are():
    assert combined([np.arange(12)], PROMPTS, "minimum").tolist() == list(range(12))


@given(st.lists(REWARDS, min_size=2, max_size=3), st.floats(0.1, 10), REWARDS)
def test_a_models_scale_and_a_constant_of_each_prompt_change_nothing(rewards, scale, constants):
    other = [scale * np.array(rewards[0]) + np.repeat(constants[:3], 4), *rewards[1:]]
    for how in ("mean", "minimum"):
        assert combined(other, PROMPTS, how) == pytest.approx(combined(rewards, PROMPTS, how), abs=1e-6)


@given(st.lists(REWARDS, min_size=2, max_size=3))
def test_the_minimum_is_never_above_the_mean(rewards):
    assert (combined(rewards, PROMPTS, "minimum") <= combined(rewards, PROMPTS, "mean") + 1e-12).all()


def test_penalties_take_off_spread_over_models_and_characters():
    rewards = np.array([[1.0, 2.0, 3.0, 6.0], [6.0, 3.0, 2.0, 1.0]])
    prompts, responses = ["a"] * 4, ["", "x", "xx", "xxxx"]
    centred = [(one - one.mean()) / one.std() for one in rewards]
    spread = np.abs(centred[0] - centred[1]) / 2
    expected = np.mean(centred, axis=0) - 0.5 * spread - 0.1 * np.array([0, 1, 2, 4])
    found = OptimisedReward(spread_penalty=0.5, length_penalty=0.1).of(rewards, prompts, responses)
    assert found == pytest.approx(expected)


def test_a_distance_from_usual_responses_takes_off_its_mean_over_models():
    distances = [[1.0, 2.0, 3.0, 0.0], [3.0, 2.0, 1.0, 0.0]]
    penalised = OptimisedReward(outlier_penalty=0.5).of([np.arange(4.0)], ["a"] * 4, [""] * 4, distances)
    assert penalised == pytest.approx(np.arange(4.0) - [1, 1, 1, 0])


def judged(gold_of, prompts=60, responses=8):
    random = np.random.default_rng(0)
    rewards = random.normal(size=(prompts, responses))
    gold = gold_of(rewards, random.normal(size=rewards.shape))
    return pd.DataFrame({"rewards": list(rewards), "gold": list(gold)})


@pytest.mark.parametrize(
    ("gold_of", "said"),
    [
        (lambda rewards, noise: rewards + noise, "so gold agrees with the choice"),
        (lambda rewards, noise: noise, "within noise"),
        (lambda rewards, noise: noise - rewards, "the reward model is over-optimised"),
    ],
    ids=["agrees", "unrelated", "disagrees"],
)
def test_the_sentence_says_what_gold_makes_of_the_choice(gold_of, said):
    found = over_optimisation(judged(gold_of))
    assert said in sentence(found)
    assert found.proxy[8].low > 0
    assert sorted(found.proxy) == [2, 4, 8]


def test_without_gold_nothing_is_said_to_be_better():
    table = judged(lambda rewards, noise: noise).assign(gold=None)
    assert "nothing says whether it is better" in sentence(over_optimisation(table))
