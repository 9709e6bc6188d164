"""The hardest pairs first: the limit of `softmax` for τ → ∞."""

from typing import Literal

from scipy.stats import rankdata

from mars_core.config import Configuration
from mars_core.method.strategies.strategy import Floats, Signals, Strategy, hardness

MUCH = 1e3
"""A difference of log q that leaves no budget to the smaller one."""


class Hardest(Strategy):
    """Fills the pairs with the smallest s(Δ) up to the cap, one after the other."""

    class Config(Configuration):
        """What counts as hard."""

        margin: Literal["signed", "absolute"] = "signed"
        """`signed` prefers mis-ranked pairs (s = Δ), `absolute` the most uncertain ones (s = |Δ|)."""

    config: Config

    def log_q(self, signals: Signals) -> Floats:
        """log q that differs by at least `MUCH` between any two different s(Δ)."""
        assert signals.margins is not None
        ranks: Floats = rankdata(hardness(signals.margins, self.config.margin), method="dense")
        return -MUCH * ranks
