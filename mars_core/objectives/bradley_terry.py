"""Bradley–Terry: P(chosen ≻ rejected) = σ(Δ) with Δ = r(x, y⁺) − r(x, y⁻)."""

import torch
from pydantic import Field

from mars_core.config import Configuration
from mars_core.objectives.objective import Objective, PairOutputs


class BradleyTerry(Objective):
    """The loss −log σ(Δ), with the options that reward modelling adds to it.

    The loss of pair i is ℓᵢ = −(1−ε) log σ(Δᵢ−mᵢ) − ε log σ(mᵢ−Δᵢ) + c (r⁺ᵢ+r⁻ᵢ)². Its curvature in Δ,
    σ(Δ−m)(1−σ(Δ−m)), is greatest at Δ = m.
    """

    class Config(Configuration):
        """What is added to −log σ(Δ); by default nothing."""

        margin: float = Field(0.0, ge=0)
        """m: how far the chosen reward should be above the rejected one; a column `margin` of the pairs
        overrides it."""
        label_smoothing: float = Field(0.0, ge=0, lt=0.5)
        """ε: the share of pairs whose label is taken to be wrong."""
        centring: float = Field(0.0, ge=0)
        """c: how strongly the mean of a pair's two rewards is pulled towards zero."""

    config: Config

    def losses(self, pairs: PairOutputs) -> torch.Tensor:
        """ℓ of each pair."""
        rewards = self.reward(pairs.chosen.outputs), self.reward(pairs.rejected.outputs)
        return self.losses_of(*rewards, pairs.asked_margins)

    def losses_of(
        self, chosen: torch.Tensor, rejected: torch.Tensor, asked_margins: torch.Tensor
    ) -> torch.Tensor:
        """ℓ of rewards r⁺ and r⁻ and of the margins that the rows set (nan if none), of one shape."""
        beyond = chosen - rejected - torch.nan_to_num(asked_margins, nan=self.config.margin)
        loss = torch.nn.functional.softplus(-beyond)
        if self.config.label_smoothing:
            loss = torch.lerp(loss, torch.nn.functional.softplus(beyond), self.config.label_smoothing)
        if self.config.centring:
            loss = loss + self.config.centring * (chosen + rejected) ** 2
        return loss

    def reward(self, readout: torch.Tensor) -> torch.Tensor:
        """The head's one output."""
        return readout.squeeze(-1)

    def logit(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        """Δ."""
        return self.reward(chosen) - self.reward(rejected)

    def curvature(self, margins: torch.Tensor) -> torch.Tensor | None:
        """σ(Δ−m)(1−σ(Δ−m)) with the configured m; smoothing and centring do not change it."""
        beyond = margins - self.config.margin
        return torch.sigmoid(beyond) * torch.sigmoid(-beyond)
