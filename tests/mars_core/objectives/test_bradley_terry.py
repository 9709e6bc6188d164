import pytest
import torch
from torch.nn.functional import logsigmoid

from mars_core.objectives.objective import Noise, ObjectiveConfig, PairOutputs, TextOutputs, preference_loss

CHOSEN, REJECTED = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.0, 1.0, 0.5])
NO_MARGIN = torch.full((3,), torch.nan)


def losses(asked=NO_MARGIN, **keys):
    texts = (TextOutputs(rewards[:, None]) for rewards in (CHOSEN, REJECTED))
    return ObjectiveConfig(**keys).open().losses(PairOutputs(*texts, asked, Noise()))


def test_the_loss_is_minus_log_sigma_of_the_margin():
    margins = torch.linspace(-80, 80, 161)
    exact = -torch.log(torch.sigmoid(margins.double()))
    torch.testing.assert_close(preference_loss(margins).double(), exact, rtol=1e-6, atol=1e-6)
    assert preference_loss(margins).shape == margins.shape


def test_by_default_nothing_is_added():
    torch.testing.assert_close(losses(), -logsigmoid(CHOSEN - REJECTED))


def test_a_margin_is_asked_of_each_pair():
    margins = torch.tensor([0.0, 1.0, 2.0])
    torch.testing.assert_close(losses(margins), -logsigmoid(CHOSEN - REJECTED - margins))


def test_the_configured_margin_is_asked_of_pairs_that_ask_for_none():
    asked = torch.tensor([torch.nan, 0.0, 2.0])
    margins = torch.tensor([1.0, 0.0, 2.0])
    torch.testing.assert_close(losses(asked, margin=1.0), -logsigmoid(CHOSEN - REJECTED - margins))


def test_smoothing_takes_some_labels_to_be_wrong():
    loss = losses(label_smoothing=0.2)
    difference = CHOSEN - REJECTED
    torch.testing.assert_close(loss, -0.8 * logsigmoid(difference) - 0.2 * logsigmoid(-difference))


def test_centring_draws_the_mean_of_a_pair_towards_zero():
    loss = losses(centring=0.5)
    torch.testing.assert_close(loss, -logsigmoid(CHOSEN - REJECTED) + 0.5 * (CHOSEN + REJECTED) ** 2)


@pytest.mark.parametrize("wrong", [{"margin": -1}, {"label_smoothing": 0.5}, {"centring": -0.1}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="Input should be"):
        ObjectiveConfig(**wrong)


@pytest.mark.parametrize("keys", [{}, {"margin": 1.5, "label_smoothing": 0.2, "centring": 0.3}])
def test_its_curvature_is_the_second_derivative_of_the_loss_in_the_margin(keys):
    objective = ObjectiveConfig(**keys).open()
    margins = torch.linspace(-4, 4, 9, dtype=torch.float64)

    def loss(margin):  # at a mean reward that stays as it is
        texts = (TextOutputs(sign * margin[:, None] / 2) for sign in (1, -1))
        asked = torch.full_like(margin, torch.nan)
        return objective.losses(PairOutputs(*texts, asked, Noise())).sum()

    second = torch.autograd.functional.hessian(loss, margins).diagonal()
    torch.testing.assert_close(objective.curvature(margins), second)
