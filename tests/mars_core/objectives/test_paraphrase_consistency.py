import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_core.objectives.objective import Noise, ObjectiveConfig, PairOutputs, TextOutputs

CHOSEN, REJECTED = torch.tensor([1.0, 0.2, -3.0]), torch.tensor([0.0, 1.0, 0.5])


def losses(gaps, of, **keys):
    """Losses of three pairs, of which some have a paraphrase that is rewarded less by a gap."""
    objective = ObjectiveConfig(name="paraphrase_consistency", **keys).open()
    chosen, rejected = (TextOutputs(rewards[:, None].double()) for rewards in (CHOSEN, REJECTED))
    gaps = gaps if isinstance(gaps, torch.Tensor) else torch.tensor(gaps, dtype=torch.float64)
    paraphrase = TextOutputs((CHOSEN[of].double() - gaps)[:, None])
    asked = torch.full((3,), torch.nan)
    return objective.losses(PairOutputs(chosen, rejected, asked, Noise(), paraphrase, torch.tensor(of)))


@settings(max_examples=20)
@given(st.floats(-5, 5), st.floats(0, 3))
@pytest.mark.parametrize("term", ["tie", "squared"])
def test_a_response_and_its_paraphrase_are_tied(term, gap, strength):
    def added(gap):
        if term == "squared":
            return strength * gap**2
        return -strength * sum(math.log(1 / (1 + math.exp(-sign * gap))) / 2 for sign in (1, -1))

    gaps = torch.tensor([gap], dtype=torch.float64, requires_grad=True)
    found = losses(gaps, [1], term=term, strength=strength)
    plain = torch.nn.functional.softplus(REJECTED - CHOSEN).double()
    torch.testing.assert_close(found - plain, torch.tensor([0, added(gap), 0]).double(), rtol=1e-6, atol=1e-6)
    [slope] = torch.autograd.grad(found.sum(), gaps)
    assert slope.item() == pytest.approx((added(gap + 1e-5) - added(gap - 1e-5)) / 2e-5, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("term", ["tie", "squared"])
def test_ties_are_symmetric_and_least_at_equal_rewards(term):
    above, below, equal = (losses([gap], [0], term=term)[0].item() for gap in (0.7, -0.7, 0.0))
    assert above == pytest.approx(below)
    assert equal < above


def test_pairs_without_a_paraphrase_have_the_loss_of_bradley_terry():
    objective = ObjectiveConfig(name="paraphrase_consistency").open()
    texts = (TextOutputs(rewards[:, None]) for rewards in (CHOSEN, REJECTED))
    found = objective.losses(PairOutputs(*texts, torch.full((3,), torch.nan), Noise()))
    torch.testing.assert_close(found, torch.nn.functional.softplus(REJECTED - CHOSEN))
