"""Pairs that the members of an ensemble rank differently."""

from pydantic import Field

from mars_core.config import Configuration
from mars_core.method.strategies.strategy import Floats, Signals, Strategy, log_of_power


class Disagreement(Strategy):
    """q ∝ s^τ, with s the standard deviation of the members' margins."""

    class Config(Configuration):
        """τ."""

        tau: float = Field(1.0, ge=0)
        """Sharpness τ: 0 spends the budget uniformly, larger values concentrate it on disputed pairs."""

    config: Config
    reads = frozenset({"disagreement"})

    def log_q(self, signals: Signals) -> Floats:
        """τ·ln s."""
        assert signals.disagreement is not None
        return log_of_power(signals.disagreement, self.config.tau)
