"""Best of n: what a second judge thinks of the responses that a reward model prefers, over n.

A reward model that is optimised against is a proxy: the more responses it may choose from, the better it
likes its choice, and from some n on a judge who knows better may like it less (over-optimisation, arXiv
2210.10760). The judge is a column `gold`: rewards of a second model, or a truth such as 0 and 1. The curve
is exact: of N recorded responses, that with the i-th least reward is the best of n drawn without
replacement with probability C(i − 1, n − 1) / C(N, n). Choosing the best of n moves a policy by a
Kullback–Leibler divergence of at most ln n − (n − 1)/n.
"""

import math
from collections.abc import Mapping
from numbers import Real
from typing import ClassVar

import numpy as np
import pandas as pd
from datasets import Dataset
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln
from scipy.stats import rankdata

from mars_core.data.dialogue import Turn
from mars_core.evaluation.benchmark_files import Row, as_prompt, read_rows, to_dataset
from mars_core.evaluation.benchmarks.benchmark import (
    Benchmark,
    by_row,
    check_same_rows,
    response_texts,
    weighted_scores,
)
from mars_core.evaluation.contamination import Texts
from mars_core.evaluation.statistics import PairedDifference, paired_score_difference

KEY = "best_of_n"
"""Begins the names of its metrics and of its table."""
N = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""The numbers of responses to choose from; a curve ends where a prompt has fewer."""
EVERY = {"all": 1.0}


class BestOfN(Benchmark):
    """Responses that were sampled for each prompt, and what a second judge thinks of each."""

    title = "Best of n"
    pairwise = False
    headline = "gain"
    definitions: ClassVar[Mapping[str, str]] = {
        "gain": "gold of the most rewarded of all responses, from 0 (a random one's) to 1 (the best one's)",
        **{f"gold-best-of-{n}": f"gold of the most rewarded of n = {n}, mean over prompts" for n in N},
        **{f"own-best-of-{n}": f"its own reward of the most rewarded of n = {n}" for n in N},
    }
    curves: ClassVar[Mapping[str, Mapping[int, str]]] = {
        "gold of the most rewarded of n": {n: f"gold-best-of-{n}" for n in N},
        "own reward of the most rewarded of n": {n: f"own-best-of-{n}" for n in N},
    }
    notes = ("The Kullback–Leibler divergence of the best of n is at most ln n − (n − 1)/n.",)
    equal_rewards = "of which one is taken at random, right or wrong"

    def read(self, source: str) -> Dataset:
        """Its rows: id, subset (all), prompt, responses, gold (a number for each response, or null).

        Args:
            source: a file or folder with rows of prompt (text, or turns of role and content), responses (at
                least two texts) and, where there is a judge, gold (a number for each); id is optional. What
                `mars evaluate` wrote of a judge on this benchmark, best_of_n.parquet, is such a file, too:
                its `rewards` are then gold.

        Raises:
            BenchmarkError: it is none of these; names the row and the field.
        """
        rows = read_rows(source, self.title)
        return to_dataset([(row, _fields(row)) for row in rows], source)

    def count_warnings(self, rows: Dataset) -> list[str]:
        """Sentences where prompts differ in their number of responses, or where some have no gold."""
        told = list[str]()
        sizes = {len(responses) for responses in rows["responses"]}
        if len(sizes) > 1:
            least, most = min(sizes), max(sizes)
            told.append(f"{self.title}: prompts have {least} to {most} responses; curves end at {least}")
        lacking = sum(gold is None for gold in rows["gold"])
        if 0 < lacking < len(rows):
            told.append(
                f"{self.title}: {lacking} of {len(rows)} prompts have no gold: there is no curve of it, and "
                "the gain is that of the others"
            )
        return told

    def texts(self, rows: Dataset) -> Texts:
        """All responses row by row."""
        return response_texts(rows)

    def results(self, rows: Dataset, rewards: ArrayLike) -> pd.DataFrame:
        """Its rows with `rewards`, a list for each.

        Raises:
            ValueError: there is not one reward for each text.
        """
        table = pd.DataFrame({column: list(rows[column]) for column in rows.column_names})
        return table.assign(rewards=by_row(rewards, list(map(len, table["responses"]))))

    def score(self, table: pd.DataFrame) -> dict[str, float]:
        """`gain`, `gold-best-of-<n>` and `own-best-of-<n>` with 95% intervals over prompts; `n` prompts, of
        which `n_of_gain` have gold that tells their responses apart.

        `ties` is the share of pairs of responses to one prompt with equal rewards. Without gold, `gain` is
        nan and there is no other score of it.
        """
        most = min(map(len, table["rewards"]))
        judged = bool(table["gold"].notna().all())
        measured = {"gain": gains(table)}
        for n in (n for n in N if n <= most):
            if judged:
                measured[f"gold-best-of-{n}"] = _means(table, "gold", n)
            measured[f"own-best-of-{n}"] = _means(table, "rewards", n)
        scores: dict[str, float] = {}
        for name, values in measured.items():
            known = values[~np.isnan(values)]
            strata: NDArray[np.object_] = np.full(len(known), "all", dtype=object)
            scores |= weighted_scores(known, strata, {name: EVERY})
        told_apart = float(np.isfinite(measured["gain"]).sum())
        return scores | {"n": float(len(table)), "n_of_gain": told_apart, "ties": _ties(table)}

    def differences(self, table: pd.DataFrame, other: pd.DataFrame) -> dict[str, PairedDifference]:
        """What a model's gain is above another's on the same prompts, where both have one."""
        check_same_rows(table, other)
        one, two = gains(table), gains(other)
        known = ~np.isnan(one)
        if not known.any():
            return {}
        strata = np.full(int(known.sum()), "all", dtype=object)
        return {"gain": paired_score_difference(one[known], two[known], strata, EVERY)}


def best_of(values: ArrayLike, rewards: ArrayLike, n: int) -> float:
    """E[value of the most rewarded of n responses], drawn from N ≥ n without replacement.

    Args:
        values: [N] such as gold rewards.
        rewards: [N] by which the best is chosen; of equal ones one is taken at random.
        n: how many are drawn.
    """
    earned = np.asarray(rewards)
    below = np.arange(n - 1, len(earned))  # how many have less, of those that can be the best of n
    chances = np.exp(_log_ways(below, n - 1) - _log_ways(len(earned), n))
    ends = np.concatenate([np.zeros(n), np.cumsum(chances)])
    first, last = (rankdata(earned, method=ends_of).astype(int) for ends_of in ("min", "max"))
    weights = (ends[last] - ends[first - 1]) / (last - first + 1)
    return float(weights @ np.asarray(values, np.float64))


def _log_ways(of: ArrayLike, n: int) -> NDArray[np.float64]:
    """ln C(of, n): the numbers themselves overflow where there are thousands of responses."""
    total = np.asarray(of)
    ways: NDArray[np.float64] = gammaln(total + 1) - gammaln(n + 1) - gammaln(total - n + 1)
    return ways


def gold_of_choices(table: pd.DataFrame) -> NDArray[np.float64]:
    """[n] gold of the most rewarded of all responses to each prompt; nan where there is no gold."""
    return np.array(
        [
            math.nan if gold is None else best_of(gold, rewards, len(rewards))
            for gold, rewards in zip(table["gold"], table["rewards"], strict=True)
        ]
    )


def gains(table: pd.DataFrame) -> NDArray[np.float64]:
    """[n] (gold of the most rewarded − mean gold) / (greatest gold − mean gold).

    It is nan where the responses to a prompt have equal gold, or none.
    """
    found = []
    for gold, rewards in zip(table["gold"], table["rewards"], strict=True):
        if gold is None or np.ptp(gold) == 0:
            found.append(math.nan)
            continue
        mean = float(np.mean(gold))
        found.append((best_of(gold, rewards, len(rewards)) - mean) / (float(np.max(gold)) - mean))
    return np.array(found)


def _means(table: pd.DataFrame, column: str, n: int) -> NDArray[np.float64]:
    return np.array(
        [best_of(values, rewards, n) for values, rewards in zip(table[column], table["rewards"], strict=True)]
    )


def _ties(table: pd.DataFrame) -> float:
    equal = total = 0.0
    for rewards in table["rewards"]:
        _, counts = np.unique(rewards, return_counts=True)
        equal += float((counts * (counts - 1)).sum())
        total += len(rewards) * (len(rewards) - 1)
    return equal / total


def _fields(row: Row) -> dict[str, object]:
    responses = row.texts("responses")
    if len(responses) < 2:
        row.refuse("has one response: there is nothing to choose from")
    return {
        "id": row.name("id") if "id" in row.values else str(row.number),
        "subset": "all",
        "prompt": _prompt(row),
        "responses": responses,
        "gold": _gold(row, len(responses)),
    }


def _prompt(row: Row) -> str:
    prompt = row.value("prompt")
    if not isinstance(prompt, list):
        return row.text("prompt")
    try:
        return as_prompt([Turn(turn["role"], turn["content"]) for turn in prompt])
    except (KeyError, TypeError, ValueError) as error:
        row.refuse(f"prompt is neither text nor turns of role and content: {error!r}")


def _gold(row: Row, responses: int) -> list[float] | None:
    named = [name for name in ("gold", "rewards") if row.values.get(name) is not None]
    if not named:
        return None
    if len(named) > 1:
        row.refuse("has gold and the rewards of a judge: leave one of them out")
    [name] = named
    numbers = row.values[name]
    finite = isinstance(numbers, list) and all(
        isinstance(one, Real) and math.isfinite(one) for one in numbers
    )
    if not finite or len(numbers) != responses:
        row.refuse(f"{name} must be a finite number for each of its {responses} responses")
    return [float(number) for number in numbers]
