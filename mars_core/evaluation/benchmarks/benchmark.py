"""A benchmark: how its rows are read, which texts are scored, and what the rewards are worth.

    evaluation: {benchmarks: {rewardbench: allenai/reward-bench@REVISION, mine:Haiku: haiku.jsonl}}

Everything that shows or decides (reports, tables, MLflow, comparisons, the gate) iterates over what a
benchmark declares. The name of a file beside this one, or `module:attribute` of a class of one's own, is all
that makes it known; its key, which begins the names of its metrics and of its table, is that name, or the
attribute.
"""

import difflib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from datasets import Dataset, Value
from numpy.typing import ArrayLike, NDArray

from mars_core.data import samples
from mars_core.data.source_rows import READERS, load_file, load_hub
from mars_core.evaluation.benchmark_files import BenchmarkError
from mars_core.evaluation.contamination import Texts
from mars_core.evaluation.statistics import Interval, PairedDifference, stratified_bootstrap
from mars_core.extensions import ExtensionPoint, Plugin


class Benchmark(Plugin):
    """One benchmark. Tables of results have a row an example, known by the columns id and subset."""

    title: ClassVar[str]
    """What people call it."""
    pairwise: ClassVar[bool]
    """Whether each row is one chosen and one rejected response, so that it has a margin."""
    headline: ClassVar[str] = "total"
    """The score that stands for all."""
    sections: ClassVar[Sequence[str]] = ()
    """The scores that are shown beside it, in order, as `score` names them; each with its interval.

    They are the columns and lines of tables and figures, so not more than a few; what stands behind the last
    slash is what they are called there.
    """
    definitions: ClassVar[Mapping[str, str]] = {}
    """How the publisher computes each score, in words that stand beside the number.

    By name as of `score`, the headline first; a benchmark's own table shows every score that is here.
    """
    curves: ClassVar[Mapping[str, Mapping[int, str]]] = {}
    """Scores that are drawn over a number: what the line is called → number → score."""
    notes: ClassVar[Sequence[str]] = ()
    """Sentences that a reader of its scores must know."""
    equal_rewards: ClassVar[str] = "which count as wrong"
    """What a tie is, or counts as; where the publisher has another rule, that one too."""
    hub: ClassVar[str | None] = None
    """The official data set."""
    split: ClassVar[str] = "test"
    """Its split."""
    sample: ClassVar[str | None] = None
    """The built-in miniature, such as sample://rewardbench."""
    official_rows: ClassVar[Mapping[str, int]] = {}
    """Subset → number of rows in the official split; empty where any number will do."""

    @abstractmethod
    def read(self, source: str) -> Dataset:
        """Its rows, checked.

        Raises:
            BenchmarkError, PairsError: the source is not the benchmark's, or cannot be loaded.
        """

    @abstractmethod
    def texts(self, rows: Dataset) -> Texts:
        """The texts to score, known by their row, subset/id.

        Of a pairwise benchmark first all chosen responses, then all rejected ones.
        """

    @abstractmethod
    def results(self, rows: Dataset, rewards: ArrayLike) -> pd.DataFrame:
        """Its rows with the rewards of their `texts`, in columns whose names hold `reward`."""

    @abstractmethod
    def score(self, table: pd.DataFrame) -> dict[str, float]:
        """Scores by name: the headline and sections with `_low` and `_high` ends of their 95% intervals."""

    def differences(self, table: pd.DataFrame, other: pd.DataFrame) -> dict[str, PairedDifference]:
        """What one model scores above another on the same rows, for the main scores; by default none."""
        return {}

    def row_weights(self, table: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
        """What each right row weighs in each section, [n] summing to 1; the gate goes by these.

        By default none: the gate then leaves the benchmark out. A table with weights has a column `correct`
        and, where rows share prompts, a column `prompt` with a number for each prompt.
        """
        return {}

    def count_warnings(self, rows: Dataset) -> list[str]:
        """One sentence for every subset whose number of rows is not the official one.

        Scores of such data compare with no published score.
        """
        counts = Counter(rows["subset"]) if self.official_rows else {}
        return [
            f"{self.title} subset {subset} has {counts[subset]} rows, the official split has {wanted}"
            for subset, wanted in self.official_rows.items()
            if counts[subset] != wanted
        ]

    def load(self, source: str, columns: Sequence[str]) -> Dataset:
        """Some columns of a source as its author wrote them, the id as text.

        Args:
            source: the sample, a local .jsonl[.gz], .parquet or .csv file, or a hub data set NAME@REVISION.
            columns: their names.

        Raises:
            BenchmarkError: the source is none of these, or lacks a column.
        """
        table = self._load(source)
        missing = [column for column in columns if column not in table.column_names]
        if missing:
            raise BenchmarkError(
                f"{source} has no column {', '.join(missing)}; it has {', '.join(table.column_names)}"
            )
        return table.select_columns(list(columns)).cast_column("id", Value("string"))

    def check_subsets(self, subsets: Iterable[str | None], source: str) -> None:
        """Refuse a subset that the benchmark does not have.

        Raises:
            BenchmarkError: there is one; names it and the nearest that is known.
        """
        known = list(self.official_rows)
        unknown = sorted(map(str, set(subsets) - set(known)))
        if unknown:
            nearest = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0)[0]
            raise BenchmarkError(
                f"{source}: {unknown[0]!r} is no {self.title} subset; the nearest is {nearest!r}"
            )

    def _load(self, source: str) -> Dataset:
        if source.startswith("sample://"):
            if source != self.sample:
                raise BenchmarkError(f"{source} is no sample of {self.title}; there is {self.sample}")
            return Dataset.from_list(samples.rows(source))
        path = Path(source).expanduser()
        if path.name.endswith(tuple(READERS)):
            if not path.is_file():
                raise BenchmarkError(f"{self.title} file {source} does not exist")
            return load_file(path)
        if path.exists() or "/" not in source or "@" not in source:
            raise BenchmarkError(
                f"cannot read {self.title} from {source!r}: name a file ending in {', '.join(READERS)}, "
                f"a hub dataset with its revision ({self.hub or 'NAME'}@main), or "
                f"{self.sample or 'no sample'}"
            )
        return load_hub(source, default_split=self.split)


BENCHMARKS: ExtensionPoint[Benchmark] = ExtensionPoint("benchmark", Benchmark)  # type: ignore[type-abstract]


def check_rows(rows: Dataset, texts: Sequence[str], source: str) -> None:
    """Refuse rows that repeat an (id, subset), or whose columns of text are empty.

    Raises:
        BenchmarkError: names the row.
    """
    seen = set[tuple[Any, Any]]()
    for row in rows.select_columns(sorted({"id", "subset", *texts})):
        for column in texts:
            if not (row[column] or "").strip():
                raise BenchmarkError(f"{source}: id {row['id']} of {row['subset']} has an empty {column}")
        key = (row["id"], row["subset"])
        if key in seen:
            raise BenchmarkError(f"{source}: id {row['id']} of {row['subset']} occurs more than once")
        seen.add(key)


def check_same_rows(table: pd.DataFrame, other: pd.DataFrame) -> None:
    """Refuse to pair the rows of two tables of results that have not the same in the same order."""
    if not table[["id", "subset"]].equals(other[["id", "subset"]]):
        raise ValueError("a paired comparison needs the same rows in the same order")


def paired_texts(rows: Dataset) -> Texts:
    """The 2n texts of n pairs, known by subset/id: first all chosen responses, then all rejected ones."""
    names = [f"{subset}/{row}" for row, subset in zip(rows["id"][:], rows["subset"][:], strict=True)]
    return Texts(names * 2, rows["prompt"][:] * 2, rows["chosen"][:] + rows["rejected"][:])


def paired_results(rows: Dataset, rewards: ArrayLike, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of n pairs, reward_chosen, reward_rejected and correct.

    `rewards` [2n] are those of `paired_texts`.

    Raises:
        ValueError: there is not one reward for each text.
    """
    scored = np.asarray(rewards, np.float32)
    if scored.shape != (2 * len(rows),):
        raise ValueError(f"{2 * len(rows)} texts need as many rewards, got shape {scored.shape}")
    chosen, rejected = np.split(scored, 2)
    table = pd.DataFrame({column: rows[column][:] for column in columns})
    return table.assign(reward_chosen=chosen, reward_rejected=rejected, correct=chosen > rejected)


def listed_texts(rows: Dataset) -> Texts:
    """All responses row by row, known by subset/id, the chosen ones of a row before its rejected ones."""
    names, prompts, responses = list[str](), list[str](), list[str]()
    for row in rows:
        answers = [*row["chosen"], *row["rejected"]]
        names += [f"{row['subset']}/{row['id']}"] * len(answers)
        prompts += [row["prompt"]] * len(answers)
        responses += answers
    return Texts(names, prompts, responses)


def listed_results(rows: Dataset, rewards: ArrayLike, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of the rows, rewards (float32 lists of `listed_texts`), and num_correct, the chosen ones.

    Raises:
        ValueError: there is not one reward for each text.
    """
    right = [len(answers) for answers in rows["chosen"]]
    wrong = [len(answers) for answers in rows["rejected"]]
    scored = by_row(rewards, list(map(sum, zip(right, wrong, strict=True))))
    table = pd.DataFrame({column: list(rows[column]) for column in columns})
    return table.assign(rewards=scored, num_correct=right)


def response_texts(rows: Dataset) -> Texts:
    """All `responses` row by row, known by subset/id."""
    names, prompts, responses = list[str](), list[str](), list[str]()
    for row in rows:
        names += [f"{row['subset']}/{row['id']}"] * len(row["responses"])
        prompts += [row["prompt"]] * len(row["responses"])
        responses += row["responses"]
    return Texts(names, prompts, responses)


def by_row(rewards: ArrayLike, sizes: Sequence[int]) -> pd.Series:
    """The rewards of each row, float32 arrays, of those of all texts row by row.

    Raises:
        ValueError: there is not one reward for each text.
    """
    ends = np.cumsum(sizes)
    scored = np.asarray(rewards, np.float32)
    if scored.shape != (ends[-1],):
        raise ValueError(f"{ends[-1]} texts need as many rewards, got shape {scored.shape}")
    return pd.Series(np.split(scored, ends[:-1]))


def weighted_score(
    name: str,
    values: ArrayLike,
    subsets: NDArray[np.object_],
    weights: Mapping[str, float],
    clusters: ArrayLike | None = None,
) -> dict[str, float]:
    """A weighted mean of subsets and the ends of its 95% bootstrap interval; nan where there is no weight."""
    interval = Interval(np.nan, np.nan, np.nan)
    if weights:
        interval = stratified_bootstrap(values, subsets, weights, clusters=clusters)
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def weighted_scores(
    values: ArrayLike,
    subsets: NDArray[np.object_],
    weights: Mapping[str, Mapping[str, float]],
    clusters: ArrayLike | None = None,
) -> dict[str, float]:
    """`weighted_score` of each of several scores, by name.

    Args:
        values: [n] what each row earns.
        subsets: [n] the subset of each row.
        weights: score → subset → weight. A score that lacks one of its subsets is nan: a mean of the others
            would be a different score.
        clusters: [n] a label for the prompt of each row, whose rows are one draw.
    """
    earned, present = np.asarray(values, np.float64), set(subsets)
    labels = np.arange(len(earned)) if clusters is None else np.asarray(clusters)
    scores: dict[str, float] = {}
    for name, of_subsets in weights.items():
        counting = np.isin(subsets, list(of_subsets))
        whole = of_subsets if present >= set(of_subsets) else {}
        scores |= weighted_score(name, earned[counting], subsets[counting], whole, labels[counting])
    return scores
