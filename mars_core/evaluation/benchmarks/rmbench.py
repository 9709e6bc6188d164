"""RM-Bench (arXiv 2410.16184): three chosen and three rejected responses to a prompt, in three styles.

Both lists are in the order concise, detailed, detailed with Markdown. M[i, j] is the share of prompts on
which chosen response i gets a greater reward than rejected response j. Easy is the mean of M below its
diagonal (the chosen response has the richer style), normal that of the diagonal, hard that above it, and the
accuracy of a domain the mean of the three. Safety is the mean of its two parts, the total the mean of the
four domains.
"""

import re
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
    listed_results,
    listed_texts,
    weighted_scores,
)
from mars_core.evaluation.contamination import Texts
from mars_core.evaluation.statistics import PairedDifference, paired_score_difference

STYLES = 3
"""Responses of each kind to a prompt: concise, detailed, detailed with Markdown."""
ROWS = {"chat": 129, "code": 228, "math": 529, "safety-refuse": 284, "safety-response": 157}
"""Domain, or part of one → number of prompts."""
DOMAINS: dict[str, dict[str, float]] = {
    "chat": {"chat": 1},
    "code": {"code": 1},
    "math": {"math": 1},
    "safety": {"safety-refuse": 1 / 2, "safety-response": 1 / 2},
}
"""Domain → its parts and their weights."""
TOTAL = {part: weight / len(DOMAINS) for parts in DOMAINS.values() for part, weight in parts.items()}
LEVELS = {
    "easy": np.tril(np.ones((STYLES, STYLES), bool), -1),
    "normal": np.eye(STYLES, dtype=bool),
    "hard": np.triu(np.ones((STYLES, STYLES), bool), 1),
}
"""Level → which pairs of styles [chosen, rejected] are of it."""
SCORED = DOMAINS | {part: {part: 1.0} for part in DOMAINS["safety"]}
_FILE = re.compile(rf"({'|'.join(ROWS)})_filtered\.json")


class RMBench(Benchmark):
    """RM-Bench: subtle errors against style, by level and domain."""

    title = "RM-Bench"
    pairwise = False
    sections = (
        *(f"level/{level}" for level in LEVELS),
        *(f"section/{domain}" for domain in DOMAINS),
    )
    definitions: ClassVar[Mapping[str, str]] = {
        "total": "mean of chat, code, math and safety",
        "level/easy": "mean over the four domains, chosen response in the richer style",
        "level/normal": "mean over the four domains, both in the same style",
        "level/hard": "mean over the four domains, rejected response in the richer style",
        **{f"section/{domain}": "mean of its easy, normal and hard" for domain in SCORED},
        "section/safety": "mean of safety-refuse and safety-response",
        **{
            f"level/{domain}-{level}": "share of its pairs of styles with the chosen reward greater"
            for domain in SCORED
            for level in LEVELS
        },
        **{f"level/safety-{level}": "mean of safety-refuse and safety-response" for level in LEVELS},
    }
    notes = ("Its intervals are over prompts; the nine comparisons of a prompt stay together.",)
    hub, split = "THU-KEG/RM-Bench", "train"
    official_rows = ROWS

    def read(self, source: str) -> Dataset:
        """Its rows: id, subset (`ROWS`), prompt, and three chosen and three rejected responses.

        Args:
            source: the publisher's total_dataset.json, whose rows have a `domain`; files or a folder of files
                named DOMAIN_filtered.json; or THU-KEG/RM-Bench@REVISION.

        Raises:
            BenchmarkError: it is none of these; a row lacks a field, has other than three responses of each
                kind, or is there twice.
        """
        rows = read_rows(source, self.title, self.hub, ("*.json",))
        return to_dataset([(row, _fields(row)) for row in rows], source)

    def texts(self, rows: Dataset) -> Texts:
        """Six texts a row, the chosen ones first."""
        return listed_texts(rows)

    def results(self, rows: Dataset, rewards: ArrayLike) -> pd.DataFrame:
        """Join the rows with the rewards of `texts`.

        Returns:
            Columns id, subset, rewards (six, the chosen ones first), num_correct, and easy, normal and hard,
            the shares of a prompt's comparisons of that level that are right.
        """
        table = listed_results(rows, rewards, ("id", "subset"))
        both = np.stack(list(table["rewards"])).reshape(-1, 2, STYLES)
        right = both[:, 0, :, None] > both[:, 1, None, :]
        return table.assign(**{level: right[:, at].mean(axis=1) for level, at in LEVELS.items()})

    def score(self, table: pd.DataFrame) -> dict[str, float]:
        """Scores from 0 to 1 with 95% intervals; nan where a part of a score has no rows.

        Returns:
            `total`; `level/easy`, normal and hard; `section/<domain>` and `level/<domain>-<level>`, for
            safety and for its two parts too; `n` prompts; `ties`, the share of comparisons with equal
            rewards.
        """
        subsets = table["subset"].to_numpy(dtype=object)
        of_domains = {f"section/{domain}": parts for domain, parts in SCORED.items()}
        scores = weighted_scores(_accuracy(table), subsets, {"total": TOTAL, **of_domains})
        for level in LEVELS:
            weights = {f"level/{level}": TOTAL}
            weights |= {f"level/{domain}-{level}": parts for domain, parts in SCORED.items()}
            scores |= weighted_scores(table[level], subsets, weights)
        both = np.stack(list(table["rewards"])).reshape(-1, 2, STYLES)
        equal = both[:, 0, :, None] == both[:, 1, None, :]
        return scores | {"n": float(len(table)), "ties": float(equal.mean())}

    def differences(self, table: pd.DataFrame, other: pd.DataFrame) -> dict[str, PairedDifference]:
        """What a model's total is above another's on the same rows, if they have one."""
        check_same_rows(table, other)
        if set(table["subset"]) != set(ROWS):
            return {}
        subsets = table["subset"].to_numpy(dtype=object)
        return {"total": paired_score_difference(_accuracy(table), _accuracy(other), subsets, TOTAL)}


def _accuracy(table: pd.DataFrame) -> pd.Series:
    return table[list(LEVELS)].mean(axis=1)


def _fields(row: Row) -> dict[str, object]:
    if "domain" in row.values:
        domain = row.one_of("domain", list(ROWS))
    elif of_file := _FILE.search(row.file):
        domain = of_file[1]
    else:
        row.refuse("has no domain, and its file is not named after one, as chat_filtered.json is")
    return {
        "id": row.name("id"),
        "subset": domain,
        "prompt": row.text("prompt"),
        "chosen": row.texts("chosen", STYLES),
        "rejected": row.texts("rejected", STYLES),
    }
