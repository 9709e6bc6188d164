"""An information bottleneck between backbone and reward (InfoRM, arXiv 2402.09345 and 2510.13694)."""

import torch
from pydantic import Field

from mars_core.objectives.bradley_terry import BradleyTerry
from mars_core.objectives.objective import PairOutputs, TextOutputs


class InformationBottleneck(BradleyTerry):
    """s ~ N(μ, σ²) in K dimensions, r = decoder(s), and the Bradley–Terry loss + β·KL(N(μ, σ²) ‖ N(0, 1)).

    The head's outputs are μ and ln σ². As in the published code, and not as in the paper, μ and ln σ² are
    averaged over the K dimensions *before* the KL: β of .1 to 1 belongs to that. The KL of a pair is the mean
    of its two texts'. Rewards are those of s = μ.
    """

    class Config(BradleyTerry.Config):
        """The width of the bottleneck, and how narrow it is."""

        dimensions: int = Field(128, ge=1)
        """K."""
        beta: float = Field(0.1, ge=0)
        """β, the weight of the KL."""

    config: Config

    @property
    def outputs(self) -> int:
        """2K."""
        return 2 * self.config.dimensions

    def build(self, width: int) -> dict[str, torch.nn.Module]:
        """The decoder."""
        return {"decoder": torch.nn.Linear(self.config.dimensions, 1)}

    def losses(self, pairs: PairOutputs) -> torch.Tensor:
        """ℓ of each pair, with s drawn for both of its texts."""
        noise = pairs.noise.normal(2, self.config.dimensions).to(pairs.chosen.outputs)
        rewards, divergence = list[torch.Tensor](), list[torch.Tensor]()
        for side, texts in enumerate((pairs.chosen, pairs.rejected)):
            mean, log_variance = texts.outputs.chunk(2, dim=1)
            drawn = mean + (log_variance / 2).exp() * noise[:, side]
            rewards.append(self.modules["decoder"](drawn).squeeze(1))
            divergence.append(divergence_of(mean, log_variance))
        loss = self.losses_of(rewards[0], rewards[1], pairs.asked_margins)
        return loss + self.config.beta * (divergence[0] + divergence[1]) / 2

    def readout(self, texts: TextOutputs) -> torch.Tensor:
        """decoder(μ), [m, 1]."""
        found: torch.Tensor = self.modules["decoder"](self.latents(texts))
        return found

    def latents(self, texts: TextOutputs) -> torch.Tensor:
        """μ, [m, K]."""
        return texts.outputs.chunk(2, dim=1)[0]

    def curvature(self, margins: torch.Tensor) -> torch.Tensor | None:
        """Not defined: the loss depends on σ² and on the KL too."""
        return None


def divergence_of(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL(N(μ̄, exp l̄) ‖ N(0, 1)), [m], with μ̄ and l̄ the means of μ and ln σ², [m, K], over K."""
    mean, log_variance = mean.mean(1), log_variance.mean(1)
    return (log_variance.exp() + mean**2 - 1 - log_variance) / 2
