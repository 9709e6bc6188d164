"""Non-negative Bayesian factors of the reward (BNRM, arXiv 2602.10623)."""

import torch
from pydantic import Field

from mars_core.objectives.bradley_terry import BradleyTerry
from mars_core.objectives.objective import PairOutputs, TextOutputs

LEAST, MOST = 1e-6, 1e4
"""Between which factors are clamped."""


class BayesianNonnegative(BradleyTerry):
    """r = θ·Φ with K factors θ ≥ 0 of the text, and global Φ ≥ 0, both from Weibull distributions.

    With z the input of the head's last layer, θ has the mean m = clamp(ReLU(MLP(z))), the shape k = 1 +
    softplus(MLP′(z)) and the scale λ = m / Γ(1 + 1/k). The loss is Bradley–Terry of drawn factors, θ =
    λ(−ln(1 − u))^{1/k} and Φ likewise, + η·(KL_θ + KL_Φ). Both are KL(Weibull(k, λ) ‖ Gamma(1, 1)) averaged
    over K, and KL_θ over the pair's two texts. Rewards are those of the means. The paper's ReLU(b) cancels
    out of every margin and is left out.
    """

    class Config(BradleyTerry.Config):
        """How many factors, and how strong their prior is."""

        factors: int = Field(1024, ge=1)
        """K."""
        hidden: int = Field(256, ge=1)
        """Width of the one hidden layer of each MLP."""
        eta: float = Field(1e-5, ge=0)
        """η, the weight of the KLs."""

    config: Config
    reads = frozenset({"pooled"})

    def build(self, width: int) -> dict[str, torch.nn.Module]:
        """The two MLPs, and the free vectors of Φ, whose mean starts at 1/√K."""
        factors = self.config.factors
        return {
            "mean": self._mlp(width),
            "shape": self._mlp(width),
            "weights": torch.nn.ParameterDict(
                {
                    "mean": torch.nn.Parameter(torch.full((factors,), factors**-0.5)),
                    "shape": torch.nn.Parameter(torch.zeros(factors)),
                }
            ),
        }

    def losses(self, pairs: PairOutputs) -> torch.Tensor:
        """Bradley–Terry of drawn factors, and η·KL_θ."""
        uniform = pairs.noise.uniform(3, self.config.factors).to(pairs.chosen.outputs)
        weights = drawn(*self._weights(), uniform[:, 2])
        rewards, divergence = list[torch.Tensor](), list[torch.Tensor]()
        for side, texts in enumerate((pairs.chosen, pairs.rejected)):
            mean, shape = self._factors(texts)
            rewards.append((drawn(mean, shape, uniform[:, side]) * weights).sum(1))
            divergence.append(divergence_of(mean, shape).mean(1))
        loss = self.losses_of(rewards[0], rewards[1], pairs.asked_margins)
        return loss + self.config.eta * (divergence[0] + divergence[1]) / 2

    def penalty(self) -> torch.Tensor:
        """η·KL_Φ."""
        return self.config.eta * divergence_of(*self._weights()).mean()

    def readout(self, texts: TextOutputs) -> torch.Tensor:
        """The reward and its variance by θ, [m, 2], both at the mean of Φ."""
        (mean, shape), (weights, _) = self._factors(texts), self._weights()
        ratio = (torch.lgamma(1 + 2 / shape) - 2 * torch.lgamma(1 + 1 / shape)).exp()  # E[θ²] / E[θ]²
        return torch.stack([mean @ weights, (mean**2 * (ratio - 1)) @ weights**2], dim=1)

    def reward(self, readout: torch.Tensor) -> torch.Tensor:
        """θ·Φ at their means."""
        return readout[:, 0]

    def uncertainty(self, readout: torch.Tensor) -> torch.Tensor:
        """The variance of θ·Φ over θ."""
        return readout[:, 1]

    def curvature(self, margins: torch.Tensor) -> torch.Tensor | None:
        """Not defined: the margin is not linear in z."""
        return None

    def _mlp(self, width: int) -> torch.nn.Module:
        hidden = torch.nn.Linear(width, self.config.hidden)
        return torch.nn.Sequential(
            hidden, torch.nn.ReLU(), torch.nn.Linear(hidden.out_features, self.config.factors)
        )

    def _factors(self, texts: TextOutputs) -> tuple[torch.Tensor, torch.Tensor]:
        """m and k of θ, [m, K] each."""
        return _positive(self.modules["mean"](texts.pooled), self.modules["shape"](texts.pooled))

    def _weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """m and k of Φ, [K] each."""
        free = self.modules["weights"]
        assert isinstance(free, torch.nn.ParameterDict)
        return _positive(free["mean"], free["shape"])


def _positive(mean: torch.Tensor, shape: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return mean.relu().clamp(LEAST, MOST), 1 + torch.nn.functional.softplus(shape)


def drawn(mean: torch.Tensor, shape: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """λ(−ln(1 − u))^{1/k} of a Weibull distribution with a mean and a shape, from u in [0, 1)."""
    exponential = (-torch.log1p(-uniform)).clamp(
        min=torch.finfo(uniform.dtype).tiny
    )  # 0^{1/k} has no gradient
    return mean * (exponential.log() / shape - torch.lgamma(1 + 1 / shape)).exp()


def divergence_of(mean: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    """KL(Weibull(k, λ) ‖ Gamma(1, 1)) by the Weibull's mean and shape k, with Euler's γ:

    γ/k − ln λ + ln k + λΓ(1 + 1/k) − γ − 1.
    """
    log_scale = mean.log() - torch.lgamma(1 + 1 / shape)
    return EULER / shape - log_scale + shape.log() + mean - EULER - 1


EULER = 0.5772156649015329
"""γ."""
