import math

import numpy as np
import pytest
import torch

from mars_core.errors import ModelError
from mars_core.fit.energy import SPREADS, Energy, contrastive_loss, fit_energy, noise
from mars_core.fit.specification import FitError

WIDTH = 4
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(2, 220, WIDTH)).astype(np.float32)
REWARDS = (FEATURES @ np.array([1, -1, 0.5, 0]) + [[0.5], [-0.5]]).astype(np.float32)
"""Linear in the features; most pairs are ranked right."""


@pytest.fixture(scope="module")
def energy():
    return fit_energy(FEATURES, REWARDS, seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_and_its_gradient_are_those_of_a_plain_reference(seed):
    torch.manual_seed(seed)
    energy, features = Energy(WIDTH).double(), torch.randn(3, WIDTH, dtype=torch.float64)
    rewards = torch.randn(3, dtype=torch.float64, requires_grad=True)
    added = noise(3, torch.Generator().manual_seed(seed)).double()

    def reference():
        total = squares = 0.0
        for text in range(3):
            terms = []
            for number in added[text].tolist():
                place = rewards[text].item() + number
                density = sum(
                    math.exp(-((number / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi)) / 3 for s in SPREADS
                )
                f = energy(features[text : text + 1], torch.tensor([[place]], dtype=torch.float64)).item()
                terms.append(math.exp(f - math.log(density)))
                squares += f * f / added.numel()
            total -= math.log(terms[0] / sum(terms)) / 3
        return total + 1e-3 * squares

    loss = contrastive_loss(energy, features, rewards, added)
    assert loss.item() == pytest.approx(reference(), rel=1e-6)
    [gradient] = torch.autograd.grad(loss, rewards)
    for text in range(3):
        ends = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                rewards[text] += step
                ends.append(reference())
                rewards[text] -= step
        assert gradient[text].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-6)


def test_positives_are_nearer_to_the_reward_than_negatives():
    drawn = noise(10_000, torch.Generator().manual_seed(0))
    wanted = math.sqrt(sum(s * s for s in SPREADS) / 3)
    assert drawn[:, 1:].std().item() == pytest.approx(wanted, rel=0.02)
    assert drawn[:, 0].std().item() == pytest.approx(wanted / 10, rel=0.05)


def test_rewards_that_were_moved_up_and_down_come_back_together(energy):
    right = REWARDS[0] > REWARDS[1]
    features, rewards = FEATURES[0, right], REWARDS[0, right]
    moved = [rewards + sign * 0.5 * rewards.std() for sign in (1, -1)]
    refined = [energy.refined(features, some) for some in moved]
    assert np.abs(refined[0] - refined[1]).mean() < 0.5 * np.abs(moved[0] - moved[1]).mean()
    assert np.abs(np.subtract(refined, rewards)).mean() < np.abs(np.subtract(moved, rewards)).mean()


def test_no_refined_reward_has_a_lower_f(energy):
    features, rewards = FEATURES[0, :20], REWARDS[0, :20]
    mean, deviation = energy.scale.tolist()

    def height(some):
        with torch.no_grad():
            return energy(torch.from_numpy(features), torch.from_numpy((some - mean) / deviation)[:, None])

    assert (height(energy.refined(features, rewards)) >= height(rewards) - 1e-5).all()


def test_one_seed_gives_one_energy():
    one, same, other = (fit_energy(FEATURES[:, :9], REWARDS[:, :9], seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(part, same.state_dict()[name]) for name, part in one.state_dict().items())
    assert not torch.equal(one.of_text.weight, other.of_text.weight)


def test_a_saved_energy_refines_as_before(energy, tmp_path):
    energy.save(tmp_path / "energy.safetensors")
    loaded = Energy.load(tmp_path / "energy.safetensors")
    texts = FEATURES[0, :9], REWARDS[0, :9]
    np.testing.assert_array_equal(loaded.refined(*texts), energy.refined(*texts))
    with pytest.raises(ModelError, match="no energy can be read"):
        Energy.load(tmp_path / "absent.safetensors")


def test_rewards_that_rank_no_pair_right_are_refused():
    with pytest.raises(FitError, match="of 220 pairs the model ranks 0 right"):
        fit_energy(FEATURES, np.stack([REWARDS[0] - 99, REWARDS[1]]), seed=0)
