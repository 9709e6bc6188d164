"""PPE Human Preference (arXiv 2410.14872): people's votes on two answers in Chatbot Arena."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pandas as pd
from datasets import Dataset
from numpy.typing import ArrayLike

from mars_core.evaluation.benchmark_files import Row, read_rows, to_dataset
from mars_core.evaluation.benchmarks.benchmark import (
    Benchmark,
    check_same_rows,
    paired_results,
    paired_texts,
)
from mars_core.evaluation.contamination import Texts
from mars_core.evaluation.statistics import PairedDifference, accuracy, paired_difference

TIES = ("tie", "tie (bothbad)")
WINNERS = ("model_a", "model_b", *TIES)
SMALLEST = 100
"""Votes in a language from which on it has a score of its own."""


class PPEHumanPreference(Benchmark):
    """PPE: which of two answers people preferred."""

    title = "PPE Human Preference"
    pairwise = True
    definitions: ClassVar[Mapping[str, str]] = {
        "total": "share of votes for one answer in which that answer is rewarded more",
    }
    notes = ("Votes for neither answer are left out, for no reward could be right.",)
    hub, split = "lmarena-ai/PPE-Human-Preference-V1", "test"

    def read(self, source: str) -> Dataset:
        """Its rows: id (question and the two models), subset (the language), prompt, chosen, rejected.

        Args:
            source: a file or folder with the publisher's fields question_id, prompt, response_1, response_2,
                model_a, model_b, winner and language, or lmarena-ai/PPE-Human-Preference-V1@REVISION.

        Raises:
            BenchmarkError: it is none of these; a row lacks a field, has another winner, or is there twice.
        """
        rows = read_rows(source, self.title, self.hub, ("data/test-*.parquet",))
        return to_dataset(
            [(row, _fields(row)) for row in rows if row.one_of("winner", WINNERS) not in TIES], source
        )

    def texts(self, rows: Dataset) -> Texts:
        """The 2n texts of n votes: first all preferred answers, then all others."""
        return paired_texts(rows)

    def results(self, rows: Dataset, rewards: ArrayLike) -> pd.DataFrame:
        """Columns id, subset, reward_chosen, reward_rejected, correct."""
        return paired_results(rows, rewards, ("id", "subset"))

    def score(self, table: pd.DataFrame) -> dict[str, float]:
        """Accuracies from 0 to 1.

        Returns:
            `total` with the ends of its Wilson interval; `language/<language>` with at least `SMALLEST`
            votes; `n` votes; `ties`, the share of equal rewards.
        """
        total = accuracy(np.where(table["correct"], 1.0, -1.0))
        shares = table.groupby("subset")["correct"].agg(["mean", "size"])
        often = shares[shares["size"] >= SMALLEST]["mean"]
        equal = table["reward_chosen"] == table["reward_rejected"]
        return {
            "total": total.value,
            "total_low": total.low,
            "total_high": total.high,
            **{f"language/{language}": float(share) for language, share in often.items()},
            "n": float(len(table)),
            "ties": float(equal.mean()),
        }

    def differences(self, table: pd.DataFrame, other: pd.DataFrame) -> dict[str, PairedDifference]:
        """What a model's accuracy is above another's on the same votes."""
        check_same_rows(table, other)
        return {"total": paired_difference(table["correct"], other["correct"])}


def _fields(row: Row) -> dict[str, object]:
    chosen, rejected = ("response_1", "response_2")[:: 1 if row.value("winner") == "model_a" else -1]
    return {
        "id": ":".join(row.name(field) for field in ("question_id", "model_a", "model_b")),
        "subset": row.name("language"),
        "prompt": row.text("prompt"),
        "chosen": row.checked(chosen, row.value(chosen)),
        "rejected": row.checked(rejected, row.value(rejected)),
    }
