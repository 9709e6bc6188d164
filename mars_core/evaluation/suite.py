"""What a reward model is measured on, and how it scores the rows of benchmarks."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Literal, Protocol

import numpy as np
import pandas as pd
from datasets import Dataset
from numpy.typing import ArrayLike

from mars_core.config import Configuration, Operational
from mars_core.evaluation.benchmarks import rewardbench, rewardbench2
from mars_core.evaluation.benchmarks.rewardbench import Origin, RewardBenchError
from mars_core.evaluation.contamination import Texts
from mars_core.evaluation.length_bias import lengths
from mars_core.evaluation.statistics import PairedDifference
from mars_core.model.checkpoints import ModelError
from mars_core.model.reward_model import RewardModel


class EvaluationConfig(Configuration):
    """What a reward model is measured on besides the validation and the held-out pairs."""

    rewardbench: str | None = None
    """RewardBench: sample://rewardbench, a local file, or a hub dataset such as
    allenai/reward-bench@REVISION; by default it is not run."""
    rewardbench2: str | None = None
    """RewardBench 2: sample://rewardbench2, a local .jsonl[.gz] or .parquet file, or a hub dataset such as
    allenai/reward-bench-2@REVISION; by default it is not run."""
    benchmark_rounds: Literal["all", "last"] = "all"
    """Rounds after which the benchmarks are run. After the last alone, as in a comparison, that round is the
    result that MLflow shows, whatever validation says."""
    strict: Annotated[bool, Operational()] = False
    """Refuse a benchmark whose subsets have not their official numbers of rows, instead of a warning; the
    built-in samples, far smaller by intent, are exempt."""


class Benchmark(Protocol):
    """What the module of a benchmark has: reading, the texts to score, the table of results, the scores."""

    ORIGIN: Origin

    def read(self, source: str) -> Dataset:
        """Its rows, checked."""

    def count_warnings(self, benchmark: Dataset) -> list[str]:
        """What its number of rows differs in from the official one, in sentences."""

    def texts(self, benchmark: Dataset) -> Texts:
        """The texts to score."""

    def results(self, benchmark: Dataset, rewards: ArrayLike) -> pd.DataFrame:
        """Its rows with the rewards of their texts."""

    def score(self, frame: pd.DataFrame) -> dict[str, float]:
        """The scores by name."""

    def differences(self, frame: pd.DataFrame, other: pd.DataFrame) -> dict[str, PairedDifference]:
        """What one model scores above another on the same rows, for the main scores."""


BENCHMARKS: dict[str, Benchmark] = {"rewardbench": rewardbench, "rewardbench2": rewardbench2}
"""Each under the key of its source in the configuration, which also begins the names of its figures."""


def sources(config: EvaluationConfig) -> dict[str, str]:
    """The sources of the benchmarks that are to be run."""
    return {name: source for name in BENCHMARKS if (source := getattr(config, name))}


def read_benchmarks(config: EvaluationConfig) -> tuple[dict[str, Dataset], list[str]]:
    """The rows of the benchmarks that are to be run, and warnings about their numbers.

    Raises:
        RewardBenchError: one cannot be used or, where `config.strict`, there is something to warn about.
        PairsError: a file or hub dataset cannot be loaded.
    """
    rows, warnings = {}, list[str]()
    for name, source in sources(config).items():
        rows[name] = BENCHMARKS[name].read(source)
        if source == BENCHMARKS[name].ORIGIN.sample:
            continue
        told = BENCHMARKS[name].count_warnings(rows[name])
        if told and config.strict:
            raise RewardBenchError("\n  ".join([f"{source}: its counts are not the official ones:", *told]))
        warnings += told
    return rows, warnings


def number_of_texts(benchmarks: Mapping[str, Dataset]) -> int:
    """How many texts `benchmark_results` scores."""
    return sum(len(BENCHMARKS[name].texts(rows).rows) for name, rows in benchmarks.items())


def benchmark_results(
    model: RewardModel, benchmarks: Mapping[str, Dataset], on_scored: Callable[[int], None] | None = None
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Score the rows of benchmarks, by name, in one pass over their distinct texts.

    Yields:
        Name and table of results of each benchmark, as soon as it is scored; what `model` counts as cut
        grows by its texts. `BENCHMARKS[name].score` has its scores.

    Raises:
        ModelError: a reward is NaN or infinite; names the rows as subset/id.
    """
    texts = {name: BENCHMARKS[name].texts(table) for name, table in benchmarks.items()}
    windows = ((some.prompts, some.responses) for some in texts.values())
    for name, (rewards, _) in zip(texts, model.score_windows(windows, on_scored), strict=True):
        broken = [texts[name].rows[int(text)] for text in np.flatnonzero(~np.isfinite(rewards))]
        if broken:
            listed = ", ".join(broken[:5])
            raise ModelError(
                f"the rewards of {len(broken)} of {len(rewards)} texts are NaN or infinite: {listed}"
            )
        yield name, BENCHMARKS[name].results(benchmarks[name], rewards)


def length_rules(name: str, rows: Dataset) -> dict[str, float]:
    """Totals that two rules get on the n rows of a benchmark, by its own scoring with lengths for rewards.

    `longer_wins` prefers the longest response and `shorter_wins` the shortest; responses of one length are
    equal rewards. A total that the rows do not define is nan.
    """
    benchmark = BENCHMARKS[name]
    characters = lengths(benchmark.texts(rows).responses)
    return {
        rule: benchmark.score(benchmark.results(rows, rewards))["total"]
        for rule, rewards in (("longer_wins", characters), ("shorter_wins", -characters))
    }


def constancy(table: pd.DataFrame) -> list[str]:
    """One sentence if a table of rewards, of pairs or of results, holds a single number, else none.

    A model that gives every text the same reward ranks nothing, whatever its scores seem to say.
    """
    rewards = pd.Series(table.filter(like="reward").to_numpy().ravel()).explode().to_numpy(float)
    if rewards.size < 2 or np.ptp(rewards) > 0:
        return []
    return [f"all {rewards.size:,} texts get the same reward, {rewards[0]:.4g}: the model tells none apart"]
