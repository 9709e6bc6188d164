"""REINFORCE leave-one-out (arXiv 2402.14740), by TRL.

The advantage of a response is r − β·KL less the mean of the same over the other responses of its group; the
gradient is that of the whole response's log-probability.
"""

from typing import Any

from pydantic import Field

from mars_core.alignment.methods.method import OnlineMethod
from mars_core.alignment.trainer_setup import Setup


class Rloo(OnlineMethod):
    """Compare each response with the others of its group."""

    class Config(OnlineMethod.Config):
        """The weight of the divergence."""

        beta: float = Field(0.05, ge=0)
        """β: weight of the KL divergence from the untrained policy in the reward."""

    def trainer(self, setup: Setup) -> Any:
        """See `Method.trainer`."""
        from trl import RLOOConfig, RLOOTrainer

        from mars_core.alignment.online_trainer import online_trainer

        return online_trainer(RLOOTrainer, RLOOConfig, setup, self.config)
