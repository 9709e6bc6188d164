"""The gate: may a candidate take the place of the champion?

Both are measured on the same held-out pairs, which neither was trained on. Those of earlier deliveries
decide: a poisoned delivery would vote for itself, so its own held-out pairs are reported and decide nothing.
The burden of proof is on the candidate. It has to be shown not to fall, which is that the lower end of the
difference's interval lies above −margin. The intervals take the pairs of one prompt for one draw, since they
are no independent evidence.

Candidates that are refused are followed by others, which are compared with the same champion on the same
pairs: looked at often enough, any of them would pass by luck. So the looks share one error of 1 in 40. The
k-th spends 1 / k(k+1) of it, a half, a sixth, a twelfth, and so on: its intervals have confidence
1 − .05 / k(k+1). All candidates together that are worse than a champion by the margin or more then take its
place at most one time in forty, however many they are and however few the pairs. All checks must pass, so
having several of them makes the gate no more lenient.

A first candidate has no champion to be compared with: it has to be shown to rank pairs better than a coin, on
trusted pairs where some are named, else on held-out ones of its own delivery.

A refusal is of two kinds. A candidate that is *shown* to fall, or that breaks a section's limit, speaks
against the data that it was trained on. One that is only not shown to hold, for want of pairs, does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy.stats import norm

from mars_core.config import Configuration, PairsSource
from mars_core.evaluation.benchmarks.benchmark import Benchmark, check_same_rows
from mars_core.evaluation.benchmarks.best_of_n import gold_of_choices
from mars_core.evaluation.robustness import robust_margins, robustness_interval
from mars_core.evaluation.statistics import (
    CONFIDENCE,
    Interval,
    accuracy,
    as_sample,
    paired_accuracy_difference,
)

DECIDING, REPORTED = "held-out accuracy", "held-out accuracy of the new delivery"
ROBUST = "robust accuracy"
BEST = "gold prefers its best of n"
CHANCE = 0.5
"""Accuracy of a coin."""


class GateConfig(Configuration):
    """How much a candidate may be worse than the champion, and on what that is decided."""

    renamed: ClassVar[Mapping[str, str]] = {"rewardbench_margin": "gate.benchmark_margin"}

    margin: float = Field(0.03, ge=0, le=1)
    """The candidate is refused unless its held-out accuracy is shown to fall by less than this."""
    benchmark_margin: float = Field(0.03, ge=0, le=1)
    """The same of the total of each benchmark that weighs its rows, such as RewardBench: the mean of the
    sections that it has."""
    section_limit: float = Field(0.05, ge=0, le=1)
    """The candidate is refused if its score in a section of such a benchmark falls by more than this."""
    robustness_margin: float | None = Field(None, ge=0, le=1)
    """The candidate is refused unless its robust accuracy, where `evaluation.robustness` measures it, is
    shown to fall by less than this; by default it is reported and decides nothing."""
    best_of_n_margin: float | None = Field(None, ge=0, le=1)
    """Of the prompts of the benchmark `best_of_n`, take the share in which gold prefers the response that the
    candidate chooses, less the share in which it prefers the champion's: the candidate is refused unless this
    is shown to be above minus the margin. By default it is reported and decides nothing."""
    pairs: PairsSource | None = None
    """Source of trusted pairs that are held out of training and decide beside those of earlier deliveries; of
    the first cycle they alone decide."""


@dataclass(frozen=True)
class Check:
    """One figure of both models."""

    name: str
    n: int
    """Pairs or rows that it is measured on."""
    candidate: float
    champion: float | None
    """None for a first candidate, whose difference is that from a coin."""
    difference: float
    low: float
    """Lower end of the difference's interval, whose confidence is the decision's."""
    high: float
    bound: float | None
    """What the lower end, or of a section the difference, must be above; none if it decides nothing."""
    passed: bool
    by_interval: bool = True
    """Whether the lower end decides; else the difference itself."""
    note: str = ""
    """What else to know, such as how many pairs it would take."""

    @property
    def undecided(self) -> bool:
        """Whether it failed for a lack of evidence alone: the interval holds a fall and no fall."""
        return not self.passed and self.by_interval and self.high >= 0


@dataclass(frozen=True)
class Decision:
    """Whether the candidate is promoted, why, and the figures."""

    promoted: bool
    reason: str
    checks: list[Check]
    confidence: float
    """Of all intervals of the checks."""

    @property
    def blames_data(self) -> bool:
        """Whether the candidate is refused for what it was shown to do, and not for a lack of evidence."""
        return any(not check.passed and not check.undecided for check in self.checks)


def decide(
    config: GateConfig,
    candidate: ArrayLike,
    champion: ArrayLike | None,
    trusted: ArrayLike,
    benchmarks: Sequence[tuple[Benchmark, pd.DataFrame, pd.DataFrame]] = (),
    *,
    robustness: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    best_of_n: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    prompts: ArrayLike | None = None,
    look: int = 1,
) -> Decision:
    """Compare a candidate with the champion, or a first one with a coin.

    Args:
        config: the margins.
        candidate: [n] margins of the held-out pairs by the candidate.
        champion: [n] margins of the same pairs by the champion; none where there is no champion.
        trusted: [n] whether a pair decides: whether it came before the candidate's delivery.
        benchmarks: each benchmark that was run, with its table of results of candidate and champion.
        robustness: the tables of changed pairs of candidate and champion, if they were measured on some.
        best_of_n: the tables of the benchmark `best_of_n` of candidate and champion, if it was run.
        prompts: [n] a label for each pair's prompt; by default each pair has a prompt of its own.
        look: how many candidates, this one included, have been compared with this champion.

    Raises:
        ValueError: there is a champion and no trusted pair, or the arrays are not of the same pairs; there is
            a margin for the best of n, and no gold.
    """
    margins = as_sample(candidate, "candidate")
    decides = np.asarray(trusted, dtype=bool)
    of_prompt = np.arange(margins.size) if prompts is None else np.asarray(prompts)
    confidence = confidence_of(look)
    if champion is None:
        deciding = decides if decides.any() else np.ones_like(decides)
        checks = [
            _above_chance(name, margins[rows], of_prompt[rows], confidence, decides=name == DECIDING)
            for name, rows in ((DECIDING, deciding), (REPORTED, ~deciding))
            if rows.any()
        ]
        first = "There is no champion to compare with: this is the first."
        return Decision(checks[0].passed, f"{first} {_said(checks[0])}", checks, confidence)
    other = as_sample(champion, "champion")
    if not decides.any():
        raise ValueError("no trusted held-out pair to compare on; name some in gate.pairs")
    checks = [
        _accuracy(name, margins[rows], other[rows], of_prompt[rows], confidence, margin)
        for name, rows, margin in ((DECIDING, decides, config.margin), (REPORTED, ~decides, None))
        if rows.any()
    ]
    for results in benchmarks:
        checks += _benchmark(config, confidence, *results)
    if robustness is not None:
        checks.append(_robustness(config, confidence, *robustness))
    if best_of_n is not None:
        checks += _best_of_n(config, confidence, *best_of_n)
    failed = [check for check in checks if not check.passed]
    if not failed:
        return Decision(
            True, f"{_said(checks[0])} No figure falls by more than its limit.", checks, confidence
        )
    return Decision(False, " ".join(map(_said, failed)), checks, confidence)


def confidence_of(look: int) -> float:
    """Confidence of the intervals at the k-th look; the looks' errors sum up to that of a 95% interval."""
    return 1 - (1 - CONFIDENCE) / (look * (look + 1))


def pairs_needed(difference: Interval, n: int, margin: float, confidence: float) -> int:
    """About how many pairs it takes until an equally good candidate passes four times in five.

    By the normal approximation, for models that disagree as often, and prompts that have as many pairs, as
    those whose `difference` on n pairs this is: the half-width of the interval and .84 of a standard error
    have to fit into the margin.
    """
    if not margin:
        return 0
    z = float(norm.ppf((1 + confidence) / 2))
    error = (difference.high - difference.low) / 2 / z
    return int(np.ceil(n * (error * (z + 0.84) / margin) ** 2))


def _above_chance(
    name: str, margins: NDArray[np.float64], prompts: NDArray[Any], confidence: float, *, decides: bool
) -> Check:
    right = accuracy(margins, prompts, confidence)
    difference, low, high = (number - CHANCE for number in right)
    passed = not decides or right.low > CHANCE
    bound = 0.0 if decides else None
    return Check(name, margins.size, right.value, None, difference, low, high, bound, passed)


def _accuracy(
    name: str,
    candidate: NDArray[np.float64],
    champion: NDArray[np.float64],
    prompts: NDArray[Any],
    confidence: float,
    margin: float | None,
) -> Check:
    difference = paired_accuracy_difference(
        candidate > 0, champion > 0, clusters=prompts, confidence=confidence
    )
    passed = margin is None or difference.low > -margin
    note = "" if passed or not margin else _too_few(difference, candidate.size, "pairs", margin, confidence)
    accuracies = float((candidate > 0).mean()), float((champion > 0).mean())
    bound = None if margin is None else -margin
    return Check(name, candidate.size, *accuracies, *difference, bound, passed, note=note)


def _too_few(difference: Interval, n: int, what: str, margin: float, confidence: float) -> str:
    """How many it would take, where a check failed for a lack of evidence."""
    needed = pairs_needed(difference, n, margin, confidence)
    if difference.high < 0 or needed <= n:
        return ""
    return f"{n:,} {what} show too little; about {needed:,} would do"


def _benchmark(
    config: GateConfig,
    confidence: float,
    benchmark: Benchmark,
    candidate: pd.DataFrame,
    champion: pd.DataFrame,
) -> list[Check]:
    sections = benchmark.row_weights(candidate)
    if not sections:
        return []
    check_same_rows(candidate, champion)
    right = [table["correct"].to_numpy(dtype=float) for table in (candidate, champion)]
    checks = []
    for name, weights in {"total": np.mean(list(sections.values()), axis=0), **sections}.items():
        whole = name == "total"
        bound = -(config.benchmark_margin if whole else config.section_limit)
        difference = paired_accuracy_difference(
            right[0], right[1], weights, candidate.get("prompt"), confidence
        )
        passed = difference.low > bound if whole else difference.value >= bound
        title = f"{benchmark.title} {name.rpartition('/')[2]}"
        scores = float(weights @ right[0]), float(weights @ right[1])
        n = int(np.count_nonzero(weights))
        checks.append(Check(title, n, *scores, *difference, bound, passed, by_interval=whole))
    return checks


def _robustness(
    config: GateConfig, confidence: float, candidate: pd.DataFrame, champion: pd.DataFrame
) -> Check:
    difference = robustness_interval(candidate, champion, confidence)
    bound = None if config.robustness_margin is None else -config.robustness_margin
    passed = bound is None or difference.low > bound
    shares = [float((robust_margins(table) > 0).mean()) for table in (candidate, champion)]
    return Check(ROBUST, len(candidate), shares[0], shares[1], *difference, bound, passed)


def _best_of_n(
    config: GateConfig, confidence: float, candidate: pd.DataFrame, champion: pd.DataFrame
) -> list[Check]:
    check_same_rows(candidate, champion)
    found, other = gold_of_choices(candidate), gold_of_choices(champion)
    known, margin = ~np.isnan(found), config.best_of_n_margin
    n = int(known.sum())
    if not n:
        if margin is None:
            return []
        raise ValueError("gate.best_of_n_margin decides by gold, which no row of the benchmark best_of_n has")
    wins, losses = found[known] > other[known], found[known] < other[known]
    difference = paired_accuracy_difference(
        wins, losses, clusters=candidate["prompt"][known], confidence=confidence
    )
    passed = margin is None or difference.low > -margin
    note = "" if passed or not margin else _too_few(difference, n, "prompts", margin, confidence)
    bound, shares = None if margin is None else -margin, (float(wins.mean()), float(losses.mean()))
    return [Check(BEST, n, *shares, *difference, bound, passed, note=note)]


def _said(check: Check) -> str:
    """A check in a sentence."""
    other = "a coin's .500" if check.champion is None else f"the champion's {check.champion:.3f}"
    words = (
        f"{check.name}: {check.candidate:.3f} against {other} on {check.n:,}, "
        f"a difference of {check.difference:+.3f} [{check.low:+.3f}, {check.high:+.3f}]"
    )
    if not check.passed:
        words += f", not above the bound of {check.bound:+.3f}"
    return f"{words}{f' ({check.note})' if check.note else ''}."


def table(decision: Decision) -> str:
    """The checks of a decision as a Markdown table."""

    def figure(value: float | None, sign: str = "") -> str:
        return "–" if value is None else f"{value:{sign}.3f}"

    lines = [
        f"| figure | n | candidate | champion | difference | {decision.confidence:.2%} interval | bound | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for check in decision.checks:
        interval = f"[{check.low:+.3f}, {check.high:+.3f}]"
        verdict = "reported" if check.bound is None else "passed" if check.passed else "**failed**"
        lines.append(
            f"| {check.name} | {check.n:,} | {figure(check.candidate)} | {figure(check.champion)} "
            f"| {figure(check.difference, '+')} | {interval} | {figure(check.bound, '+')} | {verdict} |"
        )
    return "\n".join(lines)
