"""Refinement of a fitted model's rewards by an energy, on features that stay as they are (EBRM).

    energy = fit_energy(features, rewards, seed=0)
    better = energy.refined(features, rewards)

Rewards of pairs that the model ranks right train a network f(e, r), with e the inputs of the head's last
layer and r a reward, to tell the rewards from noise around them; then a reward climbs f.
Source: arXiv 2504.13134. Features and rewards of texts are those of `RewardModel.features` and `.score`.
"""

import copy
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mars_core.errors import ModelError
from mars_core.fit.specification import FitError

SPREADS = (0.1, 0.2, 0.5)
"""σ of the noise, where rewards have a spread of one."""
NARROWER = 0.1
"""How much narrower the noise of the positives is, β."""
NEGATIVES = 10
PENALTY = 1e-3
"""λ of mean f²."""
LEARNING_RATE, BATCH, EPOCHS, PATIENCE = 1e-3, 128, 100, 5
HELD_OUT = 0.1
"""Share of the pairs whose loss says when to stop."""
STEPS, STEP = 100, 0.1
"""Of the ascent; the step of a text is halved where f would fall."""


class Energy(torch.nn.Module):
    """f(e, r): how well a reward suits a text."""

    scale: torch.Tensor
    """[2] mean and standard deviation of the rewards it was trained on, which f sees standardised."""

    def __init__(self, width: int) -> None:
        """Draw the weights from torch's generator; `width` is that of e."""
        super().__init__()
        linear, relu = torch.nn.Linear, torch.nn.ReLU
        self.of_reward = torch.nn.Sequential(linear(1, 16), relu(), linear(16, 64), relu())
        self.of_text = linear(width, 1024)
        self.joined = linear(64, 1024, bias=False)
        self.top = torch.nn.Sequential(relu(), linear(1024, 512), relu(), linear(512, 1))
        self.register_buffer("scale", torch.tensor([0.0, 1.0]))

    def forward(self, features: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
        """f, [m, k], of features [m, d] and k standardised rewards of each text, [m, k]."""
        # The text's part of the first layer of [e; h(r)] is computed once for its k rewards.
        first = self.of_text(features)[:, None] + self.joined(self.of_reward(rewards[..., None]))
        found: torch.Tensor = self.top(first).squeeze(-1)
        return found

    def refined(self, features: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rewards [m] after gradient ascent on f, from features [m, d]; f of none is lower than before."""
        mean, deviation = self.scale
        texts = torch.from_numpy(features)
        place = (torch.from_numpy(rewards)[:, None] - mean) / deviation
        steps = torch.full_like(place, STEP)
        for _ in range(STEPS):
            place.requires_grad_()
            height = self(texts, place)
            [slope] = torch.autograd.grad(height.sum(), place)
            with torch.no_grad():
                moved = place + steps * slope
                falls = self(texts, moved) < height
                place = torch.where(falls, place, moved).detach()
                steps = torch.where(falls, steps / 2, steps)
        found: NDArray[np.float32] = (place * deviation + mean).squeeze(1).numpy()
        return found

    def save(self, file: Path) -> None:
        """Write the weights, as safetensors."""
        save_file(self.state_dict(), file)

    @classmethod
    def load(cls, file: Path) -> "Energy":
        """Read what `save` wrote.

        Raises:
            ModelError: the file is not there, or holds no energy.
        """
        try:
            weights = load_file(file)
            energy = cls(weights["of_text.weight"].shape[1])
            energy.load_state_dict(weights)
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{file}: no energy can be read from it: {error}") from error
        return energy


def fit_energy(features: NDArray[np.float32], rewards: NDArray[np.float32], *, seed: int) -> Energy:
    """Train an energy on a model's rewards of preference pairs.

    Args:
        features: [2, n, d] of n chosen and n rejected responses.
        rewards: [2, n] the model's rewards of them; pairs that it ranks wrong are left out.
        seed: of the weights, the order, the noise, and which pairs are held out.

    Raises:
        FitError: the model ranks no pair right, or a single one, which cannot be held out.
    """
    right = rewards[0] > rewards[1]
    if right.sum() < 2:
        raise FitError(
            f"of {len(right)} pairs the model ranks {int(right.sum())} right; an energy is trained on these "
            "alone, and needs two: fit the model first"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(int(right.sum()), generator=generator)
    held = max(1, round(HELD_OUT * len(order)))
    texts, values = (torch.from_numpy(numbers[:, right]) for numbers in (features, rewards))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        energy = Energy(features.shape[2])
    train = values[:, order[held:]]
    energy.scale = torch.stack([train.mean(), train.std().clamp(min=torch.finfo(train.dtype).eps)])
    values = (values - energy.scale[0]) / energy.scale[1]
    parts = [
        (texts[:, some].flatten(0, 1), values[:, some].flatten()) for some in (order[held:], order[:held])
    ]
    return _trained(energy, parts[0], parts[1], generator)


def _trained(
    energy: Energy,
    train: tuple[torch.Tensor, torch.Tensor],
    held: tuple[torch.Tensor, torch.Tensor],
    generator: torch.Generator,
) -> Energy:
    """The energy of the lowest loss on the held-out texts, under the same noise each time."""
    optimizer = torch.optim.AdamW(energy.parameters(), lr=LEARNING_RATE)
    fixed = noise(len(held[1]), generator)
    lowest, best, stale = math.inf, energy, 0
    for _ in range(EPOCHS):
        for some in torch.split(torch.randperm(len(train[1]), generator=generator), BATCH):
            loss = contrastive_loss(energy, train[0][some], train[1][some], noise(len(some), generator))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            now = contrastive_loss(energy, *held, fixed).item()
        stale = 0 if now < lowest else stale + 1
        if not stale:
            lowest, best = now, copy.deepcopy(energy)
        if stale == PATIENCE:
            break
    return best


def noise(m: int, generator: torch.Generator) -> torch.Tensor:
    """Of m rewards that of a positive, and of the negatives behind it, [m, 1 + 10]: mixtures of `SPREADS`."""
    shape = m, 1 + NEGATIVES
    spread = torch.tensor(SPREADS)[torch.randint(len(SPREADS), shape, generator=generator)]
    drawn = spread * torch.randn(shape, generator=generator)
    return torch.cat([NARROWER * drawn[:, :1], drawn[:, 1:]], 1)


def contrastive_loss(
    energy: Energy, features: torch.Tensor, rewards: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """−ln of the positive's share of Σ exp(f − ln p), averaged over texts, + λ·mean f².

    Args:
        energy: f.
        features: [m, d].
        rewards: [m], standardised.
        noise: [m, 1 + negatives], what is added to them; p is the density of the negatives' noise.
    """
    height = energy(features, rewards[:, None] + noise)
    spread = torch.tensor(SPREADS).to(noise)
    log_p = (-((noise[..., None] / spread) ** 2) / 2 - spread.log()).logsumexp(-1)  # up to a constant
    share = (height - log_p).log_softmax(1)[:, 0]
    loss: torch.Tensor = -share.mean() + PENALTY * (height**2).mean()
    return loss
