"""The loss of a preference pair: Bradley–Terry, with the options that reward modelling adds to it."""

import torch
from pydantic import Field

from mars_core.config import Configuration


class LossConfig(Configuration):
    """What a fit adds to −log σ(Δ); by default nothing.

    The loss of pair i is ℓᵢ = −(1−ε) log σ(Δᵢ−mᵢ) − ε log σ(mᵢ−Δᵢ) + c (r⁺ᵢ+r⁻ᵢ)², that of an effective
    batch Σ wᵢℓᵢ / Σ wᵢ.
    """

    margin: float = Field(0.0, ge=0)
    """m: how far the chosen reward is to lie above the rejected one; a column `margin` of the pairs wins."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """ε: the share of pairs whose label is taken to be wrong."""
    centring: float = Field(0.0, ge=0)
    """c: how strongly the two rewards of a pair are drawn towards a mean of zero."""


def bradley_terry_loss(margins: torch.Tensor) -> torch.Tensor:
    """−log σ(Δ) of each pair, [n] → [n]; its curvature σ(Δ)(1−σ(Δ)) is greatest at Δ = 0."""
    return torch.nn.functional.softplus(-margins)


def preference_loss(
    chosen: torch.Tensor, rejected: torch.Tensor, margins: torch.Tensor, config: LossConfig
) -> torch.Tensor:
    """ℓ of each pair, [n], from its two rewards, [n], and the margin that is asked of it, [n]."""
    beyond = chosen - rejected - margins
    loss = bradley_terry_loss(beyond)
    if config.label_smoothing:
        loss = torch.lerp(loss, bradley_terry_loss(-beyond), config.label_smoothing)
    if config.centring:
        loss = loss + config.centring * (chosen + rejected) ** 2
    return loss
