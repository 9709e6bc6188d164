"""RewardMATH (arXiv 2410.01729): one right solution of a mathematical problem against nine wrong ones.

A problem counts as right when its right solution gets a greater reward than every wrong one. The mean
reciprocal rank is that of the right solution, which stands behind wrong ones of equal reward.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pandas as pd
from datasets import Dataset
from numpy.typing import ArrayLike, NDArray

from mars_core.evaluation.benchmark_files import BenchmarkError, Row, read_rows, to_dataset
from mars_core.evaluation.benchmarks.benchmark import (
    Benchmark,
    check_same_rows,
    listed_results,
    listed_texts,
    weighted_scores,
)
from mars_core.evaluation.contamination import Texts
from mars_core.evaluation.statistics import PairedDifference, paired_difference

PROBLEMS, WRONG = 483, 9
KINDS = ("chosen", "rejected")


class RewardMATH(Benchmark):
    """RewardMATH: the best of ten solutions."""

    title = "RewardMATH"
    pairwise = False
    sections = ("mean-reciprocal-rank",)
    definitions: ClassVar[Mapping[str, str]] = {
        "total": "share of problems whose right solution is rewarded more than all nine wrong ones",
        "mean-reciprocal-rank": "mean of 1/rank of the right solution among the ten",
    }
    notes = ("A coin has .100.",)
    hub = "RewardMATH/RewardMATH"

    def read(self, source: str) -> Dataset:
        """Its rows, one a problem: id, subset (the subject), prompt, one chosen and nine rejected solutions.

        A solution's steps are the lines of one text, as the publisher gives them to reward models.

        Args:
            source: the publisher's RewardMATH_direct.json with a row a solution and the fields problem_id,
                problem, subject, solution_type and eval_solution, or RewardMATH/RewardMATH@REVISION.

        Raises:
            BenchmarkError: it is none of these; a row lacks a field; a problem has other than one right and
                nine wrong solutions, as it has where rows are doubled or missing.
        """
        rows = read_rows(source, self.title, self.hub, ("*RewardMATH_direct.json", "data/*.parquet"))
        problems: dict[str, tuple[Row, dict[str, list[str]]]] = {}
        for row in rows:
            kind = row.one_of("solution_type", KINDS)
            _, solutions = problems.setdefault(row.name("problem_id"), (row, {one: [] for one in KINDS}))
            solutions[kind].append("\n".join(row.texts("eval_solution")))
        for problem, (_, solutions) in problems.items():
            counts = len(solutions["chosen"]), len(solutions["rejected"])
            if counts != (1, WRONG):
                raise BenchmarkError(
                    f"{source}: problem_id {problem} has {counts[0]} chosen and {counts[1]} rejected "
                    f"solutions, where {self.title} has 1 and {WRONG}"
                )
        return to_dataset([(row, _fields(row) | solutions) for row, solutions in problems.values()], source)

    def count_warnings(self, rows: Dataset) -> list[str]:
        """One sentence where there are not all problems."""
        if len(rows) == PROBLEMS:
            return []
        return [f"{self.title} has {len(rows)} problems, the official data have {PROBLEMS}"]

    def texts(self, rows: Dataset) -> Texts:
        """Ten solutions a problem, the right one first."""
        return listed_texts(rows)

    def results(self, rows: Dataset, rewards: ArrayLike) -> pd.DataFrame:
        """Columns id, subset, rewards (the right solution's first), num_correct, correct, reciprocal_rank."""
        table = listed_results(rows, rewards, ("id", "subset"))
        scored = np.stack(list(table["rewards"]))
        rank = 1 + (scored[:, 1:] >= scored[:, :1]).sum(axis=1)
        return table.assign(correct=rank == 1, reciprocal_rank=1 / rank)

    def score(self, table: pd.DataFrame) -> dict[str, float]:
        """Scores from 0 to 1 with 95% intervals.

        Returns:
            `total`, `mean-reciprocal-rank`, `subject/<subject>`; `n` problems; `ties`, the share of problems
            whose right and best wrong solution get equal rewards.
        """
        one: NDArray[np.object_] = np.full(len(table), "all", dtype=object)
        scores = weighted_scores(table["correct"], one, {"total": {"all": 1.0}})
        scores |= weighted_scores(table["reciprocal_rank"], one, {"mean-reciprocal-rank": {"all": 1.0}})
        subjects = table.groupby("subset")["correct"].mean()
        scores |= {f"subject/{subject}": float(share) for subject, share in subjects.items()}
        scored = np.stack(list(table["rewards"]))
        ties = float((scored[:, 0] == scored[:, 1:].max(axis=1)).mean())
        return scores | {"n": float(len(table)), "ties": ties}

    def differences(self, table: pd.DataFrame, other: pd.DataFrame) -> dict[str, PairedDifference]:
        """What a model's total is above another's on the same problems."""
        check_same_rows(table, other)
        return {"total": paired_difference(table["correct"], other["correct"])}


def _fields(row: Row) -> dict[str, object]:
    return {"id": row.name("problem_id"), "subset": row.name("subject"), "prompt": row.text("problem")}
