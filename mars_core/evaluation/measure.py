"""Rewards → metrics: of preference pairs, benchmarks, and changed pairs (docs/method.md, step 7)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from datasets import Dataset
from numpy.typing import ArrayLike, NDArray

from mars_core.errors import ModelError
from mars_core.evaluation import robustness
from mars_core.evaluation.benchmarks.benchmark import Benchmark
from mars_core.evaluation.calibration import brier_score, expected_calibration_error
from mars_core.evaluation.contamination import Texts, prompt_numbers, texts_of_pairs
from mars_core.evaluation.coverage import measures
from mars_core.evaluation.evaluation_config import Suite
from mars_core.evaluation.length_bias import length_bias, lengths
from mars_core.evaluation.statistics import pairwise_summary
from mars_core.model.scoring import Cut
from mars_core.tables import Table

Metrics = dict[str, float]
NAMED_PAIRS = 5
"""How many pairs a note names."""


class Measured(NamedTuple):
    """A table of rewards, its metrics, and notes that a reader of the metrics must know."""

    table: pd.DataFrame
    metrics: Metrics
    notes: list[str]


def measure_pairs(name: str, pairs: Table, table: pd.DataFrame, cut: Cut) -> Measured:
    """Metrics of scored preference pairs; their names begin with the set's.

    Args:
        name: the name of the set.
        pairs: columns prompt, chosen and rejected; the pairs of one prompt are a cluster.
        table: the table of `PairRewards`, in the same order.
        cut: what the texts lost to the limit of tokens, and the pairs that became the same tokens.
    """
    clusters = prompt_numbers(pairs.texts("prompt"))
    chosen, rejected = (lengths(pairs.texts(side)) for side in ("chosen", "rejected"))
    metrics = pairs_summary(table, clusters) | length_bias(table["margin"], chosen, rejected, clusters)
    if "variance_chosen" in table:  # the objective knows how sure it is
        deviation = np.sqrt(table["variance_chosen"] + table["variance_rejected"])
        told = measures(deviation, table["margin"])
        metrics |= {f"uncertainty/{measure}": value for measure, value in told.items()}
    return _measured(name, table, metrics | _same_tokens(cut) | _cut(cut), told_alike(table["pair_id"], cut))


def measure_benchmark(
    key: str,
    benchmark: Benchmark,
    rows: Dataset,
    scored: dict[str, NDArray[np.float32]],
    cut: Cut,
) -> Measured:
    """Metrics of a scored benchmark; their names begin with its key.

    Args:
        key: the benchmark's key.
        benchmark: its declarations.
        rows: its rows.
        scored: `rewards` of its texts and, if it is pairwise, `margins` of its rows.
        cut: as of `measure_pairs`.

    Raises:
        ModelError: a reward is NaN or infinite; names the rows as subset/id.
    """
    rewards = scored["rewards"]
    _check_finite(rewards, benchmark.texts(rows).rows)
    table = benchmark.results(rows, rewards)
    metrics = benchmark.score(table)
    if benchmark.pairwise:
        table = table.assign(margin=scored["margins"])
        metrics |= length_bias(table["margin"], *_lengths(rows), table.get("prompt"))
        metrics |= _calibration(scored["margins"]) | _same_tokens(cut)
    metrics |= length_rules(benchmark, rows)
    metrics["subsets_of_other_size"] = float(len(benchmark.count_warnings(rows)))
    return _measured(key, table, metrics | _cut(cut), told_alike(table["id"], cut))


def measure_robustness(rows: Dataset, scored: dict[str, NDArray[np.float32]], cut: Cut) -> Measured:
    """Measures of scored pairs before and after changes; their names begin with robustness.

    Args:
        rows: the pairs, as `robustness.transformed` makes them.
        scored: `rewards` of their texts, and their `margins`.
        cut: as of `measure_pairs`.

    Raises:
        ModelError: a reward is NaN or infinite; names the pairs and transforms.
    """
    names = zip(rows["pair_id"][:], rows["transform"][:], strict=True)
    _check_finite(scored["rewards"], [f"{pair_id} ({transform})" for pair_id, transform in names] * 2)
    table = robustness.results(rows, scored["rewards"], scored["margins"])
    metrics = robustness.measures(table) | _cut(cut)
    return Measured(table, {f"{robustness.KEY}/{name}": value for name, value in metrics.items()}, [])


def texts_of_sets(suite: Suite, tables: Mapping[str, Dataset]) -> dict[str, Texts]:
    """The texts to score of each set: rows of benchmarks by their keys, and pairs, changed ones too."""
    return {
        name: suite[name].texts(table) if name in suite else texts_of_pairs(table)
        for name, table in tables.items()
    }


def pairs_summary(table: pd.DataFrame, clusters: ArrayLike | None = None) -> Metrics:
    """Accuracy, margins and calibration of scored preference pairs; `clusters` as of `accuracy`."""
    margins = table["margin"].to_numpy()
    return pairwise_summary(margins, clusters) | _calibration(margins)


def length_rules(benchmark: Benchmark, rows: Dataset) -> dict[str, float]:
    """The headline scores of two rules on the n rows of a benchmark, with lengths in place of rewards.

    `longer_wins` prefers the longest response and `shorter_wins` the shortest; responses of the same length
    have equal rewards. A score that is undefined on these rows is nan.
    """
    characters: NDArray[np.int64] = lengths(benchmark.texts(rows).responses)
    return {
        rule: benchmark.score(benchmark.results(rows, rewards))[benchmark.headline]
        for rule, rewards in (("longer_wins", characters), ("shorter_wins", -characters))
    }


def constancy(table: pd.DataFrame) -> list[str]:
    """A sentence if all rewards in a table of pairs or of results are equal, else none.

    A model that gives every text the same reward ranks nothing, whatever its scores suggest.
    """
    rewards = pd.Series(table.filter(like="reward").to_numpy().ravel()).explode().to_numpy(float)
    if rewards.size < 2 or np.ptp(rewards) > 0:
        return []
    return [f"all {rewards.size:,} texts get the same reward, {rewards[0]:.4g}: the model tells none apart"]


def told_alike(ids: pd.Series, cut: Cut) -> list[str]:
    """A sentence if some pairs, of these ids, have responses that are the same tokens, else none."""
    if not cut.same_tokens:
        return []
    named = ", ".join(map(str, ids.iloc[cut.same_tokens[:NAMED_PAIRS]]))
    more = ", …" if len(cut.same_tokens) > NAMED_PAIRS else ""
    return [
        f"the responses of {len(cut.same_tokens):,} of {len(ids):,} pairs are the same tokens, by the cut at "
        "model.max_length or by the tokenizer: their rewards are equal, which counts as wrong, and nothing "
        f"can be learnt of them: {named}{more}"
    ]


def _check_finite(rewards: NDArray[np.float32], rows: Sequence[str]) -> None:
    broken = [rows[int(text)] for text in np.flatnonzero(~np.isfinite(rewards))]
    if broken:
        raise ModelError(
            f"the rewards of {len(broken)} of {len(rewards)} texts are NaN or infinite: "
            f"{', '.join(broken[:5])}"
        )


def _measured(name: str, table: pd.DataFrame, metrics: Metrics, notes: list[str]) -> Measured:
    constant = constancy(table)
    named = {f"{name}/{metric}": value for metric, value in metrics.items()}
    named[f"{name}/constant"] = float(bool(constant))
    return Measured(table, named, [f"{name}: {note}" for note in constant + notes])


def _cut(cut: Cut) -> Metrics:
    return {"prompts_cut": float(cut.prompts), "responses_cut": float(cut.responses)}


def _same_tokens(cut: Cut) -> Metrics:
    return {"same_tokens": float(len(cut.same_tokens))}


def _lengths(rows: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return lengths(rows["chosen"][:]), lengths(rows["rejected"][:])


def _calibration(margins: NDArray[np.float32]) -> Metrics:
    return {"brier": brier_score(margins), "calibration_error": expected_calibration_error(margins)}
