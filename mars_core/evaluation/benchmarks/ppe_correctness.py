"""PPE Correctness (arXiv 2410.14872): 32 sampled answers to a prompt, each known to be right or wrong.

Three numbers of each of five sets of prompts, and their means over the five:

- accuracy on the publisher's pairs of a right and a wrong answer to one prompt;
- best of k: the share of right answers among those that a model rewards most of k answers drawn at random,
  without replacement, here in expectation over all draws. The answer of rank i (1 is the least) is the best
  of a draw with probability C(i − 1, k − 1) / C(n, k);
- AUC: how often a right answer is rewarded more than a wrong one. Answers to one prompt can be compared, or
  all of a set, so there are two: `auc-within` is a mean over prompts with both kinds, `auc-pooled` of a set.
"""

import re
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import pandas as pd
from datasets import Dataset
from numpy.typing import ArrayLike, NDArray
from scipy.special import comb

from mars_core.evaluation.benchmark_files import Row, read_rows, to_dataset
from mars_core.evaluation.benchmarks.benchmark import (
    Benchmark,
    by_row,
    check_same_rows,
    response_texts,
    weighted_scores,
)
from mars_core.evaluation.contamination import Texts
from mars_core.evaluation.statistics import PairedDifference, auc, paired_score_difference

SETS = ("mmlu-pro", "math", "gpqa", "ifeval", "mbpp-plus")
K = (1, 2, 4, 8, 16, 32)
MEASURES = ("accuracy", *(f"best-of-{k}" for k in K), "auc-within")
"""Columns of what a prompt adds to each number; nan where it has none."""
WORDS = {
    **{f"best-of-{k}": f"share of right answers among the most rewarded of {k}" for k in K},
    "auc-within": "right above wrong answers to one prompt, mean over prompts",
    "auc-pooled": "right above wrong answers to any prompts",
}
"""How a measure other than the accuracy is computed."""
ALIKE = {name: 1 / len(SETS) for name in SETS}
_SET = re.compile("(mmlu[-_]?pro|math|gpqa|ifeval|mbpp)", re.IGNORECASE)
_RESPONSE = re.compile(r"response_(\d+)")


class PPECorrectness(Benchmark):
    """PPE: right and wrong answers to five benchmarks of language models."""

    title = "PPE Correctness"
    pairwise = False
    headline = "accuracy"
    sections = (*(f"section/{name}" for name in SETS), f"mean/best-of-{K[-1]}", "mean/auc-within")
    definitions: ClassVar[Mapping[str, str]] = {
        "accuracy": "mean over the five sets",
        **{f"section/{name}": "share of the publisher's pairs, right answer rewarded more" for name in SETS},
        **{f"mean/{measure}": f"{words}; mean over the five sets" for measure, words in WORDS.items()},
        **{f"set/{name}-{measure}": words for name in SETS for measure, words in WORDS.items()},
    }
    curves: ClassVar[Mapping[str, Mapping[int, str]]] = {
        "right answers among the most rewarded of n": {k: f"mean/best-of-{k}" for k in K}
    }
    notes = (
        "An AUC may compare the answers to one prompt, or all of a set; both are shown. That of all has no "
        "interval.",
        "Its intervals are over prompts, whose answers stay together.",
    )
    equal_rewards = "which count as wrong, as half in an AUC, and the best of k is then a wrong answer"
    hub, split = "lmarena-ai/PPE-MMLU-Pro-Best-of-K", "train"

    def read(self, source: str) -> Dataset:
        """Its rows: id (question and model), subset (`SETS`), prompt, responses, right, pairs.

        Args:
            source: the five data sets of the hub with their revisions and ` + ` between them, or a file or
                folder with the publisher's fields question_id, model_name, prompt, response_1, response_2 …,
                scores and sampled_conflict_pairs, whose name tells the set (mmlu-pro, math, gpqa, ifeval,
                mbpp).

        Raises:
            BenchmarkError: it is none of these; a row lacks a field, has not one score for each response, a
                pair that is not of a right and a wrong answer, or is there twice.
        """
        rows = read_rows(source, self.title, self.hub, ("data/*.parquet",))
        return to_dataset([(row, _fields(row)) for row in rows], source)

    def count_warnings(self, rows: Dataset) -> list[str]:
        """One sentence for every set that has no rows; the publisher states no counts by set."""
        there = set(rows["subset"])
        return [f"{self.title} has no rows of {name}" for name in SETS if name not in there]

    def texts(self, rows: Dataset) -> Texts:
        """All answers row by row, in the publisher's order."""
        return response_texts(rows)

    def results(self, rows: Dataset, rewards: ArrayLike) -> pd.DataFrame:
        """Join the rows with the rewards of `texts`.

        Returns:
            Columns id, subset, rewards and right (lists), pairs_right and pairs (counts), and `MEASURES`, of
            which `accuracy` is nan for a prompt without pairs.

        Raises:
            ValueError: there is not one reward for each text.
        """
        scored = by_row(rewards, list(map(len, rows["right"])))
        lines = []
        for row, own in zip(rows, scored, strict=True):
            right = np.array(row["right"], dtype=bool)
            pairs = np.array(row["pairs"], dtype=int).reshape(-1, 2)
            won = int((own[pairs[:, 0]] > own[pairs[:, 1]]).sum())
            lines.append(
                {
                    "id": row["id"],
                    "subset": row["subset"],
                    "rewards": own,
                    "right": right,
                    "pairs_right": won,
                    "pairs": len(pairs),
                    "accuracy": won / len(pairs) if len(pairs) else np.nan,
                    **{f"best-of-{k}": best_of_k(own, right, k) for k in K},
                    "auc-within": auc(own, right),
                }
            )
        return pd.DataFrame(lines)

    def score(self, table: pd.DataFrame) -> dict[str, float]:
        """Scores from 0 to 1 with 95% intervals; nan where a set has no rows.

        Returns:
            `accuracy` and `section/<set>`; `mean/<measure>` and `set/<set>-<measure>` for `WORDS`; `n`
            prompts; `ties`, the share of right and wrong answers to one prompt that get equal rewards.
        """
        scores: dict[str, float] = {}
        for measure in MEASURES:
            values, subsets = _earned(table, measure)
            mean, of_set = _names(measure)
            weights = {mean: ALIKE, **{of_set(name): {name: 1.0} for name in SETS}}
            scores |= weighted_scores(values, subsets, weights)
        mean, of_set = _names("auc-pooled")
        pooled = {name: _pooled(table[table["subset"] == name]) for name in SETS}
        everything = {mean: float(np.mean(list(pooled.values())))}
        for name, value in (everything | {of_set(name): pooled[name] for name in SETS}).items():
            scores |= {name: value, f"{name}_low": np.nan, f"{name}_high": np.nan}
        return scores | {"n": float(len(table)), "ties": _ties(table)}

    def differences(self, table: pd.DataFrame, other: pd.DataFrame) -> dict[str, PairedDifference]:
        """What a model's accuracy is above another's on the same rows, if they have all five sets."""
        check_same_rows(table, other)
        (values, subsets), (others, _) = _earned(table, "accuracy"), _earned(other, "accuracy")
        if set(subsets) != set(SETS):
            return {}
        return {"accuracy": paired_score_difference(values, others, subsets, ALIKE)}


def best_of_k(rewards: ArrayLike, right: ArrayLike, k: int) -> float:
    """P(the most rewarded of k answers drawn from n without replacement is right); k is at most n.

    Of equal rewards a wrong answer is taken.
    """
    earned, is_right = np.asarray(rewards), np.asarray(right, dtype=bool)
    n = len(earned)
    if k > n:
        return float("nan")
    order = np.lexsort((~is_right, earned))
    best = comb(np.arange(n), k - 1) / comb(n, k)
    return float(best @ is_right[order])


def _names(measure: str) -> tuple[str, Callable[[str], str]]:
    """The score that is a measure's mean over the sets, and what that of one set is called."""
    if measure == "accuracy":
        return "accuracy", "section/{}".format
    return f"mean/{measure}", f"set/{{}}-{measure}".format


def _earned(table: pd.DataFrame, measure: str) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
    """What each prompt that counts adds to a measure, with its set; the mean of a set is the measure.

    A prompt's accuracy weighs as many pairs as it has, for the publisher's is a share of pairs.
    """
    counting = table[table[measure].notna()]
    values = counting[measure]
    if measure == "accuracy":
        mean_pairs = counting.groupby("subset")["pairs"].transform("mean")
        values = counting["pairs_right"] / mean_pairs
    return values.to_numpy(dtype=float), counting["subset"].to_numpy(dtype=object)


def _pooled(table: pd.DataFrame) -> float:
    if table.empty:
        return float("nan")
    return auc(np.concatenate(list(table["rewards"])), np.concatenate(list(table["right"])))


def _ties(table: pd.DataFrame) -> float:
    """The share of (right, wrong) answers to one prompt with equal rewards."""
    equal = total = 0
    for rewards, right in zip(table["rewards"], table["right"], strict=True):
        own, is_right = np.asarray(rewards), np.asarray(right, dtype=bool)
        equal += int((own[is_right][:, None] == own[~is_right]).sum())
        total += int(is_right.sum() * (~is_right).sum())
    return equal / total if total else float("nan")


def _fields(row: Row) -> dict[str, object]:
    named = _SET.search(row.file)
    if named is None:
        row.refuse(f"belongs to a file or data set whose name tells none of {', '.join(SETS)}")
    word = named[1].lower().replace("_", "-")
    [subset] = [name for name in SETS if name.replace("-", "").startswith(word.replace("-", ""))]
    numbers = sorted(int(found[1]) for field in row.values if (found := _RESPONSE.fullmatch(field)))
    responses = [row.checked(f"response_{n}", row.value(f"response_{n}")) for n in numbers]
    scores = row.value("scores")
    if not isinstance(scores, list) or len(scores) != len(responses) or not responses:
        row.refuse(f"scores must be one for each of its {len(responses)} responses")
    right = [_is_right(row, place, score) for place, score in enumerate(scores)]
    return {
        "id": f"{row.name('question_id')}:{row.name('model_name')}",
        "subset": subset,
        "prompt": row.text("prompt"),
        "responses": responses,
        "right": right,
        "pairs": [
            _pair(row, place, pair, right) for place, pair in enumerate(row.value("sampled_conflict_pairs"))
        ],
    }


def _is_right(row: Row, place: int, score: object) -> bool:
    value = score[0] if isinstance(score, list) and len(score) == 1 else score
    if value not in (0, 1):
        row.refuse(f"scores[{place}] must be 0 or 1, it is {score!r}")
    return bool(value)


def _pair(row: Row, place: int, pair: object, right: list[bool]) -> list[int]:
    """The places of the right and of the wrong answer of a pair, from 0."""
    if not (
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(at, int) and 0 <= at < len(right) for at in pair)
        and right[pair[0]] != right[pair[1]]
    ):
        row.refuse(
            f"sampled_conflict_pairs[{place}] must be the places of a right and a wrong response, "
            f"it is {pair}"
        )
    return sorted(pair, key=lambda at: not right[at])
