"""q ∝ exp(−τ·s(Δ)): the method's own (docs/method.md, step 2)."""

from typing import Literal

from pydantic import Field

from mars_core.config import Configuration
from mars_core.method.strategies.strategy import Floats, Signals, Strategy, hardness


class Softmax(Strategy):
    """Pairs with small margins get more budget, the more so the greater τ is."""

    class Config(Configuration):
        """τ, and what counts as hard."""

        margin: Literal["signed", "absolute"] = "signed"
        """`signed` prefers mis-ranked pairs (s = Δ), `absolute` the most uncertain ones (s = |Δ|)."""
        tau: float = Field(0.5, ge=0)
        """Sharpness τ: 0 spends the budget uniformly, larger values concentrate it on small margins."""

    config: Config

    def log_q(self, signals: Signals) -> Floats:
        """−τ·s(Δ)."""
        assert signals.margins is not None
        return -self.config.tau * hardness(signals.margins, self.config.margin)
