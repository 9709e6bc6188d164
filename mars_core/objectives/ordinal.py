"""Ordinal rewards: a distribution over K = 9 levels of quality (OPRM, arXiv 2602.12660)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field

from mars_core.config import Configuration
from mars_core.objectives.objective import Objective, PairOutputs

K = 9
"""The levels 1 to 9."""
REGIONS = ("bad", "normal", "good")
"""Of three levels each, from the lowest."""


class Ordinal(Objective):
    """p(k) = softmax of the head's K outputs, and P(chosen ≻ rejected) = Σ_{i>j} p⁺(i)·p⁻(j) + ½·P(tie).

    The loss is −log P. Rows may have a level of the chosen or the rejected response, `bad`, `normal` or
    `good`, in the columns `chosen_level` and `rejected_level`. Region flooding then adds −log Σₖ p(k)·h(k),
    where h is 1 at the centre of the level's region, ½ beside it, and 0 outside the region.
    """

    class Config(Configuration):
        """How much levels count."""

        flooding: float = Field(1.0, ge=0)
        """The weight of region flooding, in rows with a level."""

    config: Config
    labels: ClassVar[Mapping[str, tuple[str, ...]]] = {"chosen_level": REGIONS, "rejected_level": REGIONS}

    @property
    def outputs(self) -> int:
        """K."""
        return K

    def losses(self, pairs: PairOutputs) -> torch.Tensor:
        """−log P, and the flooding of both responses."""
        asked = torch.nan_to_num(pairs.asked_margins)
        logit = self.logit(pairs.chosen.outputs, pairs.rejected.outputs)
        loss = torch.nn.functional.softplus(asked - logit)
        for side, texts in (("chosen", pairs.chosen), ("rejected", pairs.rejected)):
            region = pairs.labels.get(f"{side}_level")
            if region is not None:
                loss = loss + self.config.flooding * _flooding(texts.outputs, region)
        return loss

    def reward(self, readout: torch.Tensor) -> torch.Tensor:
        """E[k]."""
        return readout.softmax(1) @ _levels(readout)

    def uncertainty(self, readout: torch.Tensor) -> torch.Tensor:
        """Var[k]."""
        distance = _levels(readout) - self.reward(readout)[:, None]
        return (readout.softmax(1) * distance**2).sum(1)

    def logit(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        """log P − log(1 − P), where 1 − P is the same with the responses exchanged."""
        return _log_probability(chosen, rejected) - _log_probability(rejected, chosen)


def _levels(like: torch.Tensor) -> torch.Tensor:
    return torch.arange(1, K + 1).to(like)


def _log_probability(higher: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
    """log [P(i > j) + ½·P(i = j)] of logits [n, K]; all of it in logarithms, which do not underflow."""
    share = torch.tril(torch.ones(K, K), -1) + torch.eye(K) / 2
    joint = higher.log_softmax(1)[:, :, None] + lower.log_softmax(1)[:, None, :]
    return (joint + share.log().to(joint)).flatten(1).logsumexp(1)


def _flooding(outputs: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """−log Σₖ p(k)·h(k) of logits [n, K] in their regions [n]; 0 where a row has none (−1)."""
    centre = 2 + 3 * region.clamp(min=0)[:, None]
    height = (1 - (_levels(outputs) - centre).abs() / 2).clamp(min=0)
    inside = (outputs.log_softmax(1) + height.log()).logsumexp(1)
    return torch.where(region < 0, 0.0, -inside)
