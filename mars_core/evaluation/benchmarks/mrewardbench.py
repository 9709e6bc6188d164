"""M-RewardBench (arXiv 2410.15522): RewardBench in 23 languages.

A language is scored as RewardBench is: subsets weighted by RewardBench's official counts make a section, and
the mean of the four sections the language's score. The total is the mean of the languages. The publisher's
code also prints the share of all of a language's rows, so the mean of those stands beside it, as
`total-by-row`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
from datasets import Dataset
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import bmat, coo_array
from scipy.sparse.csgraph import connected_components

from mars_core.evaluation.benchmark_files import Row, read_rows, to_dataset
from mars_core.evaluation.benchmarks.benchmark import (
    Benchmark,
    check_same_rows,
    paired_results,
    paired_texts,
    weighted_scores,
)
from mars_core.evaluation.benchmarks.rewardbench import SECTIONS
from mars_core.evaluation.contamination import Texts, prompt_numbers
from mars_core.evaluation.statistics import PairedDifference, paired_score_difference

LANGUAGES = (
    "arb_Arab", "ces_Latn", "deu_Latn", "ell_Grek", "fra_Latn", "heb_Hebr", "hin_Deva", "ind_Latn",
    "ita_Latn", "jpn_Jpan", "kor_Hang", "nld_Latn", "pes_Arab", "pol_Latn", "por_Latn", "ron_Latn",
    "rus_Cyrl", "spa_Latn", "tur_Latn", "ukr_Cyrl", "vie_Latn", "zho_Hans", "zho_Hant",
)  # fmt: skip
SUBSETS = tuple(subset for weights in SECTIONS.values() for subset in weights)
SLUGS = {section: section.lower().replace(" ", "-") for section in SECTIONS}


class MRewardBench(Benchmark):
    """M-RewardBench: chat, safety and reasoning in 23 languages."""

    title = "M-RewardBench"
    version = "2"
    pairwise = True
    sections = (
        "total-by-row",
        *(f"section/{slug}" for slug in SLUGS.values()),
    )
    definitions: ClassVar[Mapping[str, str]] = {
        "total": "mean of the 23 languages, each the mean of its four sections",
        "total-by-row": "mean of the 23 languages, each the share of its rows",
        **{f"section/{slug}": "mean of the 23 languages" for slug in SLUGS.values()},
        **{f"language/{language}": "mean of the four sections, as RewardBench" for language in LANGUAGES},
    }
    notes = (
        "A section weighs its subsets by RewardBench's official counts, as the publisher's code does.",
        "Its intervals take the rows of a prompt, in all languages, for one draw.",
    )
    hub = "CohereLabsCommunity/multilingual-reward-bench"

    def read(self, source: str) -> Dataset:
        """Its rows: id, subset (LANGUAGE:SUBSET), language, prompt, chosen, rejected.

        Args:
            source: CohereLabsCommunity/multilingual-reward-bench@REVISION, one of its folders such as
                …/multilingual-reward-bench/deu_Latn@REVISION, or a file or folder with the publisher's fields
                id, prompt, chosen, rejected, subset (or source, its former name), and language where the
                path does not name one.

        Raises:
            BenchmarkError: it is none of these; a row lacks a field, has another language or subset, or is
                there twice.
        """
        patterns = tuple(f"{language}/test-*.parquet" for language in LANGUAGES)
        one_language = source.partition("@")[0].rpartition("/")[2] in LANGUAGES
        rows = read_rows(source, self.title, self.hub, ("test-*.parquet",) if one_language else patterns)
        return to_dataset([(row, _fields(row)) for row in rows], source)

    def count_warnings(self, rows: Dataset) -> list[str]:
        """Sentences on languages that are missing, and on subsets that a language lacks."""
        found = Counter(rows["subset"])
        there = {subset.partition(":")[0] for subset in found}
        absent = [language for language in LANGUAGES if language not in there]
        warnings = [f"{self.title} has no rows in {', '.join(absent)}"] if absent else []
        for language in sorted(there):
            lacking = [subset for subset in SUBSETS if not found[f"{language}:{subset}"]]
            if lacking:
                warnings.append(f"{self.title} {language} has no rows of {', '.join(lacking)}")
        return warnings

    def texts(self, rows: Dataset) -> Texts:
        """The 2n texts of n rows: first all chosen responses, then all rejected ones."""
        return paired_texts(rows)

    def results(self, rows: Dataset, rewards: ArrayLike) -> pd.DataFrame:
        """Columns id, subset, language, prompt, reward_chosen, reward_rejected, correct.

        The prompt is a number that rows share which are translations of each other, or have the same prompt.
        """
        table = paired_results(rows, rewards, ("id", "subset", "language"))
        table.insert(3, "prompt", _prompt_numbers(table, rows["prompt"][:]))
        return table

    def score(self, table: pd.DataFrame) -> dict[str, float]:
        """Scores from 0 to 1 with 95% intervals.

        Returns:
            `total`, `total-by-row` and `section/<section>`, nan without all languages;
            `language/<language>`, nan without a section; `<language>/<section>`, over the subsets that are
            there (`count_warnings` names the others); `n` rows; `ties`, the share of equal rewards.
        """
        subsets = table["subset"].to_numpy(dtype=object)
        prompts = table["prompt"]
        scores = weighted_scores(table["correct"], subsets, _weights(set(subsets)), prompts)
        languages = table["language"].to_numpy(dtype=object)
        by_row = dict.fromkeys(LANGUAGES, 1 / len(LANGUAGES))
        scores |= weighted_scores(table["correct"], languages, {"total-by-row": by_row}, prompts)
        equal = table["reward_chosen"] == table["reward_rejected"]
        return scores | {"n": float(len(table)), "ties": float(equal.mean())}

    def differences(self, table: pd.DataFrame, other: pd.DataFrame) -> dict[str, PairedDifference]:
        """What a model's total is above another's on the same rows, if they have one."""
        check_same_rows(table, other)
        subsets = table["subset"].to_numpy(dtype=object)
        total = _weights(set(subsets))["total"]
        if not total:
            return {}
        right = table["correct"], other["correct"]
        return {"total": paired_score_difference(*right, subsets, total, clusters=table["prompt"])}


def _prompt_numbers(table: pd.DataFrame, prompts: Sequence[str]) -> NDArray[np.int32]:
    """A number for each prompt with its translations: a row has one id in all languages."""
    rows = pd.factorize(table["subset"].str.partition(":")[2] + "/" + table["id"])[0]
    texts = prompt_numbers(prompts)
    shape = (rows.max() + 1, texts.max() + 1)
    shared = coo_array((np.ones(len(rows)), (rows, texts)), shape=shape)
    both = bmat([[None, shared], [shared.T, None]])
    numbers: NDArray[np.int32] = connected_components(both, directed=False)[1]
    return numbers[rows]


def _weights(present: set[str]) -> dict[str, dict[str, float]]:
    """Score → subset → weight; none where the score is not defined."""
    weights: dict[str, dict[str, float]] = {}
    for language in LANGUAGES:
        for section, counts in SECTIONS.items():
            there = {
                f"{language}:{subset}": n for subset, n in counts.items() if f"{language}:{subset}" in present
            }
            weights[f"{language}/{SLUGS[section]}"] = {
                name: n / sum(there.values()) for name, n in there.items()
            }
    for language in LANGUAGES:
        weights[f"language/{language}"] = _mean([weights[f"{language}/{slug}"] for slug in SLUGS.values()])
    for slug in SLUGS.values():
        weights[f"section/{slug}"] = _mean([weights[f"{language}/{slug}"] for language in LANGUAGES])
    weights["total"] = _mean([weights[f"language/{language}"] for language in LANGUAGES])
    known = {language for language in LANGUAGES if any(name.startswith(f"{language}:") for name in present)}
    return {
        name: own for name, own in weights.items() if name.partition("/")[0] not in set(LANGUAGES) - known
    }


def _mean(parts: list[dict[str, float]]) -> dict[str, float]:
    """The weights of the mean of several scores; none where one of them has none."""
    if not all(parts):
        return {}
    return {name: weight / len(parts) for part in parts for name, weight in part.items()}


def _fields(row: Row) -> dict[str, object]:
    named = [part for part in LANGUAGES if part in row.file]
    language = named[0] if named else row.one_of("language", LANGUAGES)
    subset = row.one_of("source" if "subset" not in row.values else "subset", SUBSETS)
    return {
        "id": row.name("id"),
        "subset": f"{language}:{subset}",
        "language": language,
        "prompt": row.text("prompt"),
        "chosen": row.text("chosen"),
        "rejected": row.text("rejected"),
    }
