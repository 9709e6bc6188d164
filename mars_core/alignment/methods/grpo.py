"""Group-relative policy optimisation (arXiv 2402.03300), by TRL.

The advantage of a response is (r − mean) / standard deviation of its group's rewards; the loss is PPO's
clipped ratio with it, plus β times the KL divergence from the untrained policy, a mean over the tokens of the
batch (TRL's form `dapo`, arXiv 2503.14476).
"""

from typing import Any

from pydantic import Field

from mars_core.alignment.methods.method import OnlineMethod
from mars_core.alignment.trainer_setup import Setup


class Grpo(OnlineMethod):
    """Compare responses with their group."""

    class Config(OnlineMethod.Config):
        """The weight of the divergence."""

        beta: float = Field(0.04, ge=0)
        """β: weight of the KL divergence from the untrained policy in the loss."""

    def trainer(self, setup: Setup) -> Any:
        """See `Method.trainer`."""
        from trl import GRPOConfig, GRPOTrainer

        from mars_core.alignment.online_trainer import online_trainer

        return online_trainer(GRPOTrainer, GRPOConfig, setup, self.config)
