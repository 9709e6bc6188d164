import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_core.objectives.objective import Noise, ObjectiveConfig, PairOutputs, TextOutputs
from mars_core.objectives.ordinal import REGIONS, K

SEEDS = st.integers(0, 10_000)
ORDINAL = ObjectiveConfig(name="ordinal").open()


def outputs(seed, n=1, spread=1.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, K)) * spread)


def levels(logits):
    weights = [math.exp(number) for number in logits]
    return [weight / sum(weights) for weight in weights]


def flooded(logits, level, **keys):
    """What a level of the chosen response adds to the loss."""
    objective = ObjectiveConfig(name="ordinal", **keys).open()
    texts = TextOutputs(logits), TextOutputs(torch.zeros_like(logits))
    nothing = torch.full((len(logits),), torch.nan), Noise()
    place = torch.tensor([REGIONS.index(level) if level else -1])
    plain = objective.losses(PairOutputs(*texts, *nothing))
    return (objective.losses(PairOutputs(*texts, *nothing, labels={"chosen_level": place})) - plain).item()


@settings(max_examples=20)
@given(SEEDS)
def test_the_loss_is_minus_the_logarithm_of_the_probability_of_a_higher_level(agree, seed):
    def reference(chosen, rejected, *_):
        total = 0.0
        for above, below in zip(chosen["outputs"], rejected["outputs"], strict=True):
            p, q = levels(above), levels(below)
            higher = sum(p[i] * q[j] for i in range(K) for j in range(i))
            total -= math.log(higher + sum(p[i] * q[i] for i in range(K)) / 2)
        return total

    agree(ORDINAL, seed, reference, shapes={"outputs": (K,)})


@given(SEEDS, st.floats(0.1, 30))
def test_equal_distributions_have_even_chances(seed, spread):
    logits = outputs(seed, spread=spread)
    assert torch.sigmoid(ORDINAL.logit(logits, logits)).item() == 0.5


@given(SEEDS, st.floats(0.1, 30))
def test_exchanged_responses_have_the_opposite_margin(seed, spread):
    chosen, rejected = outputs(seed, spread=spread), outputs(seed + 1, spread=spread)
    torch.testing.assert_close(ORDINAL.logit(chosen, rejected), -ORDINAL.logit(rejected, chosen))


def test_certain_levels_have_finite_margins():
    sure = 200.0 * torch.nn.functional.one_hot(torch.tensor([8, 0]), K)
    margin = ORDINAL.logit(sure[:1], sure[1:])
    assert 100 < margin.item() < math.inf


@given(SEEDS)
def test_the_reward_is_the_mean_level_and_the_uncertainty_its_variance(seed):
    logits = outputs(seed)
    p = levels(logits[0].tolist())
    mean = sum(level * share for level, share in enumerate(p, start=1))
    variance = sum((level - mean) ** 2 * share for level, share in enumerate(p, start=1))
    assert ORDINAL.reward(logits).item() == pytest.approx(mean, rel=1e-6)
    assert ORDINAL.uncertainty(logits).item() == pytest.approx(variance, rel=1e-6)


@given(SEEDS, st.sampled_from(REGIONS), st.floats(0.1, 2))
def test_flooding_asks_for_mass_in_the_region_of_the_level(seed, level, strength):
    logits = outputs(seed)
    p, centre = levels(logits[0].tolist()), 1 + 3 * REGIONS.index(level)
    inside = p[centre - 1] / 2 + p[centre] + p[centre + 1] / 2
    found = flooded(logits, level, flooding=strength)
    assert found == pytest.approx(-strength * math.log(inside), rel=1e-6)


def test_a_response_without_a_level_is_not_flooded_and_has_a_gradient():
    logits = outputs(0).requires_grad_()
    texts = TextOutputs(logits), TextOutputs(outputs(1))
    none = {"chosen_level": torch.tensor([-1])}
    loss = ORDINAL.losses(PairOutputs(*texts, torch.tensor([torch.nan]), Noise(), labels=none))
    loss.sum().backward()
    assert flooded(outputs(0), None) == 0
    assert logits.grad.isfinite().all()
