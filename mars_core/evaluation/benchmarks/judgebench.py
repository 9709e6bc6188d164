"""JudgeBench (arXiv 2410.12784): pairs of answers by one model, of which one is right.

The publisher reports the 350 pairs by gpt-4o and the 270 by claude-3-5-sonnet apart, so the total is that of
the first, as on its leaderboard, and the second has sections of its own.
"""

from collections.abc import Mapping
from typing import ClassVar

import pandas as pd
from datasets import Dataset
from numpy.typing import ArrayLike

from mars_core.evaluation.benchmark_files import Row, read_rows, to_dataset
from mars_core.evaluation.benchmarks.benchmark import (
    Benchmark,
    check_same_rows,
    paired_results,
    paired_texts,
    weighted_scores,
)
from mars_core.evaluation.contamination import Texts
from mars_core.evaluation.statistics import PairedDifference, paired_score_difference

CATEGORIES = {
    "mmlu-pro": "knowledge",
    "livebench-reasoning": "reasoning",
    "livebench-math": "mathematics",
    "livecodebench": "coding",
}
"""How the source of a question begins → its category."""
ROWS = {
    "gpt-4o": {"knowledge": 154, "reasoning": 98, "mathematics": 56, "coding": 42},
    "claude-3-5-sonnet": {"knowledge": 154, "reasoning": 51, "mathematics": 34, "coding": 31},
}
"""Who wrote the answers → category → number of pairs."""
LABELS = ("A>B", "B>A")
HEADLINE = "gpt-4o"
_BY_WRITER = {
    writer: {f"{writer}-{category}": float(count) for category, count in counts.items()}
    for writer, counts in ROWS.items()
}


class JudgeBench(Benchmark):
    """JudgeBench: knowledge, reasoning, mathematics and coding."""

    title = "JudgeBench"
    pairwise = True
    sections = (
        *(f"section/{subset}" for subset in _BY_WRITER[HEADLINE]),
        "section/claude-3-5-sonnet",
    )
    definitions: ClassVar[Mapping[str, str]] = {
        "total": "share of gpt-4o's pairs with the right answer rewarded more",
        **dict.fromkeys(
            (*sections, *(f"section/{subset}" for subset in _BY_WRITER["claude-3-5-sonnet"])),
            "share of its pairs with the right answer rewarded more",
        ),
    }
    notes = (
        "Pairs by gpt-4o and by claude-3-5-sonnet are scored apart; where one of the two was not given, it "
        "has no score.",
    )
    equal_rewards = (
        "which count as wrong; the publisher's code for reward models (one order) counts them as B>A, so as "
        "right wherever B is"
    )
    hub = "ScalerLab/JudgeBench"
    official_rows: ClassVar[Mapping[str, int]] = {
        f"{writer}-{category}": count for writer, counts in ROWS.items() for category, count in counts.items()
    }

    def read(self, source: str) -> Dataset:
        """Its rows: id, subset (as in `official_rows`), prompt, chosen, rejected, label.

        Args:
            source: one of the publisher's files, a folder with both, or ScalerLab/JudgeBench@REVISION, with
                the fields pair_id, source, question, response_model, response_A, response_B and label.

        Raises:
            BenchmarkError: it is none of these; a row lacks a field, has another source, writer or label, or
                is there twice.
        """
        rows = read_rows(source, self.title, self.hub, ("data/*.jsonl",))
        return to_dataset([(row, _fields(row)) for row in rows], source)

    def count_warnings(self, rows: Dataset) -> list[str]:
        """As of every benchmark, but the pairs of one writer may be missing altogether."""
        writers = {writer for writer in ROWS for subset in set(rows["subset"]) if subset.startswith(writer)}
        told = super().count_warnings(rows)
        return [warning for warning in told if any(f" {writer}-" in warning for writer in writers)]

    def texts(self, rows: Dataset) -> Texts:
        """The 2n texts of n pairs: first all right answers, then all wrong ones."""
        return paired_texts(rows)

    def results(self, rows: Dataset, rewards: ArrayLike) -> pd.DataFrame:
        """Columns id, subset, label, reward_chosen, reward_rejected, correct."""
        return paired_results(rows, rewards, ("id", "subset", "label"))

    def score(self, table: pd.DataFrame) -> dict[str, float]:
        """Accuracies from 0 to 1 with 95% intervals; nan where a category has no rows.

        Returns:
            `total`; `section/<writer>-<category>`, and `section/claude-3-5-sonnet` for all of its pairs; `n`;
            `ties`, the share of equal rewards.
        """
        subsets = table["subset"].to_numpy(dtype=object)
        weights = {
            "total": _present(table, HEADLINE),
            "section/claude-3-5-sonnet": _present(table, "claude-3-5-sonnet"),
        }
        weights |= {f"section/{subset}": {subset: 1.0} for subset in self.official_rows}
        scores = weighted_scores(table["correct"], subsets, weights)
        equal = table["reward_chosen"] == table["reward_rejected"]
        return scores | {"n": float(len(table)), "ties": float(equal.mean())}

    def differences(self, table: pd.DataFrame, other: pd.DataFrame) -> dict[str, PairedDifference]:
        """What a model's total is above another's on the same rows, if they have one."""
        check_same_rows(table, other)
        weights = _present(table, HEADLINE)
        if not set(table["subset"]) >= set(weights):
            return {}
        own = table["subset"].isin(list(weights)).to_numpy()
        subsets = table["subset"].to_numpy(dtype=object)[own]
        return {
            "total": paired_score_difference(table["correct"][own], other["correct"][own], subsets, weights)
        }


def _present(table: pd.DataFrame, writer: str) -> dict[str, float]:
    """The categories of a writer, each with its number of pairs, so that every pair weighs the same."""
    counts = table["subset"].value_counts()
    return {subset: float(counts.get(subset, 0)) for subset in _BY_WRITER[writer]}


def _fields(row: Row) -> dict[str, object]:
    source, model = row.name("source"), row.name("response_model")
    category = next((name for begins, name in CATEGORIES.items() if source.startswith(begins)), None)
    if category is None:
        row.refuse(f"source must begin with {', '.join(CATEGORIES)}, it is {source!r}")
    writer = next((name for name in ROWS if model.startswith(name)), None)
    if writer is None:
        row.refuse(f"response_model must begin with {', '.join(ROWS)}, it is {model!r}")
    label = row.one_of("label", LABELS)
    right, wrong = ("response_A", "response_B") if label == LABELS[0] else ("response_B", "response_A")
    return {
        "id": row.name("pair_id"),
        "subset": f"{writer}-{category}",
        "prompt": row.text("question"),
        "chosen": row.text(right),
        "rejected": row.text(wrong),
        "label": label,
    }
