"""A response and its paraphrase are rewarded alike.

The tie is of SoliReward (arXiv 2512.22170), the squared term of reWordBench (arXiv 2503.11751).
"""

from typing import Literal

import torch
from pydantic import Field

from mars_core.objectives.bradley_terry import BradleyTerry
from mars_core.objectives.objective import PairOutputs


class ParaphraseConsistency(BradleyTerry):
    """The Bradley–Terry loss, + α times a term of the chosen response y and its paraphrase, if there is one.

    With g the difference of their rewards, the term is that of a pair with μ = ½, −½ ln σ(g) − ½ ln σ(−g), or
    it is g². In a run the paraphrases are those that augmentation has bought and its guards have kept. The
    term does not depend on the pair's margin, so the curvature is Bradley–Terry's.
    """

    class Config(BradleyTerry.Config):
        """Which term, and how strong."""

        term: Literal["tie", "squared"] = "tie"
        """`tie` is a pair that neither response wins, `squared` the squared difference of the rewards."""
        strength: float = Field(1.0, ge=0)
        """α."""

    config: Config
    losses_read = frozenset({"paraphrase"})

    def losses(self, pairs: PairOutputs) -> torch.Tensor:
        """ℓ of each pair."""
        losses = super().losses(pairs)
        if pairs.paraphrase is None or pairs.paraphrased is None:
            return losses
        chosen = self.reward(pairs.chosen.outputs)[pairs.paraphrased]
        gap = chosen - self.reward(pairs.paraphrase.outputs)
        softplus = torch.nn.functional.softplus
        terms = gap**2 if self.config.term == "squared" else (softplus(gap) + softplus(-gap)) / 2
        return losses.index_add(0, pairs.paraphrased, self.config.strength * terms)
