"""Pairs whose rewards the objective itself is unsure of."""

from pydantic import Field

from mars_core.config import Configuration
from mars_core.method.strategies.strategy import Floats, Signals, Strategy, log_of_power


class Uncertainty(Strategy):
    """q ∝ s^τ, with s the standard deviation of the reward difference."""

    class Config(Configuration):
        """τ."""

        tau: float = Field(1.0, ge=0)
        """Sharpness τ: 0 spends the budget uniformly, larger values concentrate it on uncertain pairs."""

    config: Config
    reads = frozenset({"spread"})

    def log_q(self, signals: Signals) -> Floats:
        """τ·ln s."""
        assert signals.spread is not None
        return log_of_power(signals.spread, self.config.tau)
