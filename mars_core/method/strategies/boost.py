"""AdaBoost's weights, with the reward model as the weak learner."""

import numpy as np

from mars_core.method.strategies.strategy import Floats, Signals, Strategy

SMALLEST_ERROR = 1e-3
"""The least ε: a model that ranks all originals correctly would divide by zero."""


class Boost(Strategy):
    """Weights that grow with every round in which a pair is mis-ranked.

    Freund and Schapire (1997), "A decision-theoretic generalization of on-line learning and an application to
    boosting", figure 2.
    """

    reads = frozenset({"margins", "previous"})

    def log_q(self, signals: Signals) -> Floats:
        """ln D_t(i) ± α_t, + for a mis-ranked pair, with α_t = ½ ln((1 − ε_t) / ε_t).

        ε_t is the share of D_t, the previous weights, that the current model mis-ranks; a model that is no
        better than chance changes nothing.
        """
        assert signals.margins is not None
        assert signals.previous is not None
        weights = signals.previous / signals.previous.sum()
        wrong = signals.margins <= 0
        error = float(np.clip(weights[wrong].sum(), SMALLEST_ERROR, 0.5))
        alpha = np.log((1 - error) / error) / 2
        log_q: Floats = np.log(np.maximum(weights, np.finfo(np.float64).tiny)) + np.where(
            wrong, alpha, -alpha
        )
        return log_q
