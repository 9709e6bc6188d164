"""Reward distillation (arXiv 2405.19316): the policy's log ratios fit differences of rewards.

E[(r(x, y₁) − r(x, y₂) − β·[ln π(y₁)/π_ref(y₁) − ln π(y₂)/π_ref(y₂)])²] over pairs of sampled responses, with
rewards computed beforehand. Pessimistic over several reward models, the loss is the least over the models,
each a mean over the batch, plus γ·E[ln π_ref(y) − ln π(y)], the forward KL divergence from the untrained
policy, whose samples the pairs are. The form of that sum is this project's choice.
"""

from typing import Any

from pydantic import Field

from mars_core.alignment.methods.method import Method
from mars_core.alignment.sampled_pairs import PAIR_TOKENS, drawn_pairs
from mars_core.alignment.trainer_setup import Setup


class RewardDistillation(Method):
    """Fit differences of rewards."""

    class Config(Method.Config):
        """The scale of rewards, and pessimism."""

        beta: float = Field(0.1, gt=0)
        """β: nats by which two log ratios differ, per unit of reward, are 1/β."""
        pairs: int = Field(4, ge=1)
        """Pairs that are drawn of the responses to each prompt."""
        pessimism: float | None = Field(None, ge=0)
        """γ: fit the reward model that is nearest, and stay near the untrained policy; by default the policy
        fits what the models say together."""

    def trainer(self, setup: Setup) -> Any:
        """See `Method.trainer`."""
        from mars_core.alignment.pair_trainers import DistillationOnTokens

        columns = ("reward",) if self.config.pessimism is None else setup.models
        pairs = drawn_pairs(setup.responses, self.config.pairs, setup.arguments["seed"])
        differences = [pairs[f"{name}_chosen"] - pairs[f"{name}_rejected"] for name in columns]
        pairs["reward_differences"] = list(zip(*differences, strict=True))
        trainer = DistillationOnTokens.of(setup, self.config, pairs[[*PAIR_TOKENS, "reward_differences"]])
        trainer.pessimism = self.config.pessimism or 0.0
        return trainer
