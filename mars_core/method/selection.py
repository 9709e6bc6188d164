"""Hard-pair selection: margins → a budget of synthetic pairs for every original (docs/method.md, step 2).

`q_i = exp(−τ·s(Δ_i)) / Σ_j exp(−τ·s(Δ_j))` with `s(Δ) = Δ` (uncertain *and* mis-ranked pairs, the
paper's second version) or `s(Δ) = |Δ|` (uncertain pairs, its first). Budgets are whole numbers by
largest remainder, sum to B exactly and never exceed the cap; what a capped pair cannot take goes to
the others in proportion to q.

That is the strategy `softmax`; a strategy is a function from margins to log q, and `STRATEGIES` names all.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy.special import log_softmax
from scipy.stats import rankdata

from mars_core.config import Configuration
from mars_core.errors import MarsError

Floats = NDArray[np.float64]
MUCH = 1e3
"""A difference of log q that leaves nothing to the smaller one."""
SMALLEST_ERROR = 1e-3
"""A model that ranks all originals right would double no weight but divide by zero."""


class SelectionError(MarsError, ValueError):
    """The budget cannot be spent on these pairs; the message gives both numbers."""


class SelectionConfig(Configuration):
    """Which pairs get synthetic variants, and how many."""

    strategy: Literal["softmax", "hardest", "boost"] = "softmax"
    """`softmax` is the method's; `hardest` fills the pairs of the smallest s(Δ) up to the cap, one after the
    other; `boost` follows AdaBoost's weights, which grow with every round that a pair is mis-ranked in."""
    margin: Literal["signed", "absolute"] = "signed"
    """`signed` prefers mis-ranked pairs (s = Δ), `absolute` the most uncertain ones (s = |Δ|)."""
    tau: float = Field(0.5, ge=0)
    """Sharpness τ: 0 spends the budget uniformly, larger values concentrate it on small margins."""
    budget: int = Field(2000, ge=1)
    """B, the synthetic units bought in a round."""
    budget_unit: Literal["pairs", "paraphrases"] = "pairs"
    """What B counts: synthetic pairs, or paraphrases of responses (the paper's first version)."""
    cap: int | None = Field(None, ge=1)
    """Most units that one pair may get; at most, and by default, its augmentation capacity."""


def allocate(
    pair_ids: Sequence[str],
    margins: ArrayLike,
    config: SelectionConfig,
    capacity: int,
    previous: ArrayLike | None = None,
) -> pd.DataFrame:
    """Divide the budget over pairs.

    Args:
        pair_ids: [n] ids, which break ties between equal remainders.
        margins: [n] margins Δ of the current reward model.
        config: τ, the kind of margin, B and the cap.
        capacity: most units that the augmentation can make of one pair.
        previous: [n] probabilities of the round before, uniform by default; only `boost` has a memory.

    Returns:
        Columns pair_id, margin (float32), probability (float64, sums to 1), budget (int64, sums to B).

    Raises:
        SelectionError: there are no pairs, or n·cap < B.
    """
    margins = np.asarray(margins, dtype=np.float32)
    check_budget(len(margins), config, capacity)
    cap = effective_cap(config, capacity)
    before = np.ones(len(margins)) if previous is None else np.asarray(previous, dtype=np.float64)
    logits = STRATEGIES[config.strategy](margins.astype(np.float64), config, before)
    shares = capped_shares(logits, config.budget, cap)
    return pd.DataFrame(
        {
            "pair_id": np.asarray(pair_ids, dtype=object),
            "margin": margins,
            "probability": np.exp(log_softmax(logits)),
            "budget": largest_remainder(shares, config.budget, cap, np.asarray(pair_ids, dtype=str)),
        }
    )


def softmax(margins: Floats, config: SelectionConfig, previous: Floats) -> Floats:
    """−τ·s(Δ): the method's own."""
    return -config.tau * _hardness(margins, config)


def hardest(margins: Floats, config: SelectionConfig, previous: Floats) -> Floats:
    """The limit of `softmax` for τ → ∞: all that a pair can take goes to the smallest s(Δ) first."""
    ranks: Floats = rankdata(_hardness(margins, config), method="dense")
    return -MUCH * ranks


def boost(margins: Floats, config: SelectionConfig, previous: Floats) -> Floats:
    """AdaBoost's weights: ln D_t(i) ± α_t, + for a mis-ranked pair, with α_t = ½ ln((1 − ε_t) / ε_t).

    ε_t is the share of D_t, the previous weights, that the current model mis-ranks; a model that is no
    better than a coin changes nothing. Freund and Schapire (1997), "A decision-theoretic generalization of
    on-line learning and an application to boosting", figure 2, with the reward model as weak learner.
    """
    weights = previous / previous.sum()
    wrong = margins <= 0
    error = float(np.clip(weights[wrong].sum(), SMALLEST_ERROR, 0.5))
    alpha = np.log((1 - error) / error) / 2
    logits: Floats = np.log(np.maximum(weights, np.finfo(np.float64).tiny)) + np.where(wrong, alpha, -alpha)
    return logits


STRATEGIES: dict[str, Callable[[Floats, SelectionConfig, Floats], Floats]] = {
    "softmax": softmax,
    "hardest": hardest,
    "boost": boost,
}
"""Name → function from margins [n], configuration and previous probabilities [n] to log q [n] + constant."""


def effective_cap(config: SelectionConfig, capacity: int) -> int:
    """Most units that one pair may get, where augmentation can make `capacity` of it."""
    return min(capacity, config.cap or capacity)


def check_budget(n: int, config: SelectionConfig, capacity: int) -> None:
    """Raise if n pairs cannot take the budget.

    Raises:
        SelectionError: there are no pairs, or n·cap < B.
    """
    if n == 0:
        raise SelectionError("there are no pairs to spend a budget on")
    cap = effective_cap(config, capacity)
    if n * cap < config.budget:
        raise SelectionError(
            f"selection.budget={config.budget} exceeds what {n} pairs can take at {cap} each "
            f"({n * cap}); lower it, or raise "
            + ("selection.cap" if cap < capacity else "augmentation.max_paraphrases")
        )


def capped_shares(logits: Floats, budget: int, cap: int) -> Floats:
    """Split `budget` in proportion to exp(logits) with no share above `cap` (water-filling).

    Exact in one sorted pass: the k hardest pairs are at the cap, where k is the first number for which
    the next pair's share of the rest stays within it. Computed in logarithms, so that a pair with a
    vanishing probability still gets its turn once all others are full.
    """
    order = np.argsort(-logits, kind="stable")
    descending = logits[order]
    log_tail = np.logaddexp.accumulate(descending[::-1])[::-1]
    left = budget - cap * np.arange(len(logits), dtype=np.float64)
    largest_share = left * np.exp(descending - log_tail)
    full = int(np.argmax(largest_share <= cap)) if np.any(largest_share <= cap) else len(logits)
    shares = np.full(len(logits), float(cap))
    if full < len(logits):
        shares[order[full:]] = left[full] * np.exp(descending[full:] - log_tail[full])
    return shares


def largest_remainder(shares: Floats, budget: int, cap: int, pair_ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """Round shares to whole budgets that sum to `budget`; equal remainders go by pair id."""
    budgets = np.floor(shares).astype(np.int64)
    order = np.lexsort((pair_ids, -(shares - budgets)))
    takers = order[budgets[order] < cap]
    budgets[takers[: budget - int(budgets.sum())]] += 1
    return budgets


def _hardness(margins: Floats, config: SelectionConfig) -> Floats:
    return np.abs(margins) if config.margin == "absolute" else margins
