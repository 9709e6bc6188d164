"""An ensemble: M heads on one backbone, which disagree where the pairs do not decide."""

from typing import Literal

import torch
from pydantic import Field

from mars_core.objectives.bradley_terry import BradleyTerry
from mars_core.objectives.objective import PairOutputs


class Ensemble(BradleyTerry):
    """The mean Bradley–Terry loss of M heads; the reward is their mean, minimum, or mean − k·sd.

    Heads that see the same pairs would become one. So each head weighs each pair by w ~ Exp(1), drawn anew in
    every step: ℓ = Σₘ wₘℓₘ / M, the online Bayesian bootstrap (Lee and Clyde, 2004, "Lossless online Bayesian
    bagging").
    """

    class Config(BradleyTerry.Config):
        """How many heads, and what their rewards become."""

        members: int = Field(5, ge=2)
        """M, the number of heads."""
        combine: Literal["mean", "minimum", "pessimistic"] = "mean"
        """r of a text: the mean of the heads' rewards, their minimum, or the mean less `deviations` of their
        standard deviations. A head's rewards are known up to a constant, which `centring` fixes."""
        deviations: float = Field(1.0, ge=0)
        """k of `pessimistic`."""

    config: Config

    @property
    def outputs(self) -> int:
        """M."""
        return self.config.members

    def losses(self, pairs: PairOutputs) -> torch.Tensor:
        """ℓ of each pair."""
        chosen, rejected = pairs.chosen.outputs, pairs.rejected.outputs
        weights = -torch.log1p(-pairs.noise.uniform(self.outputs).to(chosen))
        asked = pairs.asked_margins[:, None].expand_as(chosen)
        return (weights * self.losses_of(chosen, rejected, asked)).mean(1)

    def reward(self, readout: torch.Tensor) -> torch.Tensor:
        """The members' rewards as one."""
        if self.config.combine == "minimum":
            return readout.amin(1)
        mean = readout.mean(1)
        return mean if self.config.combine == "mean" else mean - self.config.deviations * readout.std(1)

    def uncertainty(self, readout: torch.Tensor) -> torch.Tensor:
        """The members' variance."""
        return readout.var(1)

    def disagreement(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        """The standard deviation of the members' Δ."""
        return (chosen - rejected).std(1)

    def curvature(self, margins: torch.Tensor) -> torch.Tensor | None:
        """Not defined: the loss depends on M margins."""
        return None
