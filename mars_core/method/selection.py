"""Hard-pair selection: log q → a budget of synthetic pairs for every original (docs/method.md, step 2).

The strategy gives log q. Budgets are rounded to whole numbers by largest remainder, sum to B exactly and
never exceed the cap; what a capped pair cannot take goes to the others in proportion to q.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import log_softmax

from mars_core.errors import MarsError
from mars_core.extensions import PluginSection
from mars_core.method.strategies.strategy import STRATEGIES, Floats, Signals, Strategy
from mars_core.objectives.objective import Objective, ObjectiveConfig, curvature_of

Texts: TypeAlias = "Sequence[str] | pa.ChunkedArray"
"""Ids, [n]; as Arrow has them they take a third of the memory."""


class SelectionError(MarsError, ValueError):
    """The budget cannot be spent on these pairs; the message gives both numbers."""


class SelectionConfig(PluginSection):
    """Which pairs get synthetic variants, and how many; the strategy's own keys stand beside these."""

    strategy: Annotated[str, STRATEGIES] = "softmax"
    """How the budget is divided: `softmax` is the method's; `hardest` fills the pairs of the smallest s(Δ) up
    to the cap; `boost` follows AdaBoost's weights. `uncertainty` prefers rewards that the objective is unsure
    of, `disagreement` pairs that an ensemble's members rank differently, `information` those that add most
    Fisher information. Or a class of your own, as module:attribute."""
    budget: int = Field(2000, ge=1)
    """B, the budget of a round."""
    budget_unit: Literal["pairs", "paraphrases"] = "pairs"
    """What B counts: synthetic pairs, or paraphrases of responses (the paper's first version)."""
    cap: int | None = Field(None, ge=1)
    """Most units that one pair may get; the default and the maximum is its augmentation capacity."""

    def open(self) -> Strategy:
        """The strategy with its keys."""
        strategy: Strategy = super().open()
        return strategy


class Allocation(NamedTuple):
    """What each pair gets, [n]."""

    probability: Floats
    """Sums to 1."""
    budget: NDArray[np.int64]
    """Sums to B."""


def allocate(pair_ids: Texts, signals: Signals, config: SelectionConfig, capacity: int) -> Allocation:
    """Divide the budget over pairs.

    Args:
        pair_ids: [n] ids, which break ties between equal remainders.
        signals: the signals that the strategy reads.
        config: the strategy, B and the cap.
        capacity: most units that the augmentation can make of one pair.

    Raises:
        SelectionError: there are no pairs, n·cap < B, or the strategy did not return [n] numbers.
    """
    n = len(pair_ids)
    check_budget(n, config, capacity)
    cap = effective_cap(config, capacity)
    log_q = np.asarray(config.open().log_q(signals), dtype=np.float64)
    if log_q.shape != (n,) or np.isnan(log_q).any() or np.isposinf(log_q).any():
        raise SelectionError(
            f"selection.strategy={config.strategy} gave log q of shape {log_q.shape} for {n} pairs, of which "
            f"{int(np.isnan(log_q).sum() + np.isposinf(log_q).sum())} are no numbers"
        )
    shares = capped_shares(log_q, config.budget, cap)
    budget = largest_remainder(shares, config.budget, cap, pair_ids)
    del shares  # memory that the next line needs
    return Allocation(np.exp(log_softmax(log_q)), budget)


def effective_cap(config: SelectionConfig, capacity: int) -> int:
    """Most units that one pair may get if augmentation can make `capacity` of it."""
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


def check_signals(config: SelectionConfig, objective: ObjectiveConfig) -> None:
    """Raise if a strategy reads signals that the objective does not give.

    Raises:
        SelectionError: names both.
    """
    opened = objective.open()
    given = {
        "curvature": curvature_of(opened, []) is not None,
        "spread": type(opened).uncertainty is not Objective.uncertainty,
        "disagreement": type(opened).disagreement is not Objective.disagreement,
    }
    for signal in sorted(config.open().reads):
        if not given.get(signal, True):
            raise SelectionError(
                f"selection.strategy={config.strategy} reads the {signal} of pairs, which the objective "
                f"{objective.name} does not give"
            )


def capped_shares(logits: Floats, budget: int, cap: int) -> Floats:
    """Split `budget` in proportion to exp(logits) with no share above `cap` (water-filling).

    One sorted pass is exact: the k hardest pairs are at the cap, where k is the first number for which the
    next pair's share of the rest is below the cap. It uses logarithms, so that a pair with a vanishing
    probability still gets budget once all others are full.
    """
    order = np.argsort(-logits, kind="stable")
    descending = logits[order]
    most = min(len(logits), budget // cap + 2)  # so many pairs, and maybe two more, can be at the cap
    log_tail = np.logaddexp.accumulate(descending[::-1])[::-1][:most].copy()
    left = budget - cap * np.arange(most, dtype=np.float64)
    largest_share = left * np.exp(descending[:most] - log_tail)
    full = int(np.argmax(largest_share <= cap)) if np.any(largest_share <= cap) else len(logits)
    shares = np.full(len(logits), float(cap))
    if full < len(logits):
        descending[full:] -= log_tail[full]
        np.exp(descending[full:], out=descending[full:])
        descending[full:] *= left[full]
        shares[order[full:]] = descending[full:]
    return shares


def largest_remainder(shares: Floats, budget: int, cap: int, pair_ids: Texts) -> NDArray[np.int64]:
    """Round shares to whole budgets that sum to `budget`; pair ids break ties between equal remainders."""
    budgets = np.floor(shares).astype(np.int64)
    remainders = shares - budgets
    remainders[budgets >= cap] = -1  # they take no more
    missing = budget - int(budgets.sum())
    if missing <= 0:
        return budgets
    least = np.partition(remainders, len(remainders) - missing)[len(remainders) - missing]
    more = remainders > least
    budgets[more] += 1
    # Of those that are equal, the first by their ids; there may be few of them, or all pairs.
    equal = (remainders == least) & (least >= 0)
    ids = pa.chunked_array([pair_ids]) if isinstance(pair_ids, Sequence) else pair_ids
    of_equal = ids.filter(pa.array(equal)).combine_chunks()  # thousands of chunks would take minutes to sort
    first = pc.sort_indices(of_equal).to_numpy()
    budgets[np.flatnonzero(equal)[first[: missing - int(more.sum())]]] += 1
    return budgets
