import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_core.objectives.objective import ObjectiveConfig

READOUT = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])


def ensemble(**keys):
    return ObjectiveConfig(name="ensemble", **{"members": 3} | keys).open()


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 0.4))
def test_the_loss_is_the_weighted_mean_of_the_heads(agree, seed, centring, smoothing):
    def reference(chosen, rejected, _, margins, noise):
        weights = -torch.log(1 - noise.uniform(3).double())
        total = 0.0
        for row, asked in enumerate(margins.tolist()):
            for head in range(3):
                high, low = (texts["outputs"][row, head] for texts in (chosen, rejected))
                beyond = high - low - asked
                right, wrong = (-math.log(1 / (1 + math.exp(-sign * beyond))) for sign in (1, -1))
                loss = (1 - smoothing) * right + smoothing * wrong + centring * (high + low) ** 2
                total += weights[row, head].item() * loss / 3
        return total

    objective = ensemble(centring=centring, label_smoothing=smoothing)
    agree(objective, seed, reference, shapes={"outputs": (3,)}, asked=lambda rng, n: rng.uniform(size=n))


def test_an_ensemble_of_one_is_refused():
    with pytest.raises(ValueError, match=r"members\n  Input should be greater than or equal to 2"):
        ensemble(members=1)


def test_the_heads_become_one_reward_as_configured():
    assert ensemble().reward(READOUT)[0] == 3
    assert ensemble(combine="minimum").reward(READOUT)[0] == 1
    pessimistic = ensemble(combine="pessimistic", deviations=2).reward(READOUT)
    assert pessimistic.tolist() == pytest.approx([3 - 2 * math.sqrt(7), 0])


def test_heads_that_differ_by_a_constant_do_not_disagree_on_a_pair():
    other = READOUT + torch.tensor([[5.0], [5.0]])
    assert ensemble().disagreement(other, READOUT).tolist() == pytest.approx([0, 0])
    assert ensemble().disagreement(READOUT, torch.zeros(2, 3))[0] == pytest.approx(math.sqrt(7))
    assert ensemble().uncertainty(READOUT).tolist() == pytest.approx([7, 0])


def test_its_curvature_is_not_defined():
    assert ensemble().curvature(torch.zeros(1)) is None
