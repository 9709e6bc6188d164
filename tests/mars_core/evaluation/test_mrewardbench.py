"""M-RewardBench: each language scored as RewardBench, and their means."""

import numpy as np
import pytest

from mars_core.config import Configuration
from mars_core.evaluation.benchmark_files import BenchmarkError
from mars_core.evaluation.benchmarks.mrewardbench import LANGUAGES, SUBSETS, MRewardBench
from mars_core.evaluation.benchmarks.rewardbench import SECTIONS, RewardBench

MREWARDBENCH = MRewardBench(Configuration())


def rows_of(*languages):
    """A row for every subset in each language."""
    return [
        {
            "id": number,
            "language": language,
            "subset": subset,
            "prompt": "?",
            "chosen": "yes",
            "rejected": "no",
        }
        for language in languages
        for number, subset in enumerate(SUBSETS)
    ]


def scored(source, right):
    rows = MREWARDBENCH.read(source)
    return MREWARDBENCH.score(MREWARDBENCH.results(rows, [*right, *[0.5] * len(rows)]))


def test_a_language_is_scored_as_rewardbench_is(write):
    rows = rows_of("deu_Latn")
    right = np.arange(len(rows)) % 3 == 0
    scores = scored(write(rows, "rows.json"), right)
    as_rewardbench = RewardBench(Configuration())
    same = [row | {"id": str(row["id"])} for row in rows]
    table = as_rewardbench.results(
        as_rewardbench.read(write(same, "same.jsonl")), [*right, *[0.5] * len(rows)]
    )
    expected = as_rewardbench.score(table)
    assert scores["language/deu_Latn"] == pytest.approx(expected["total"], abs=1e-9)
    for section in ("chat", "chat-hard", "safety", "reasoning"):
        assert scores[f"deu_Latn/{section}"] == pytest.approx(expected[f"section/{section}"], abs=1e-9)


def test_the_total_is_the_mean_of_all_languages_by_sections_and_by_rows(write):
    right = np.zeros((len(LANGUAGES), len(SUBSETS)))
    right[0] = 1
    right[1, : len(SECTIONS["Chat"])] = 1
    scores = scored(write(rows_of(*LANGUAGES), "rows.json"), right.ravel())
    assert scores["total"] == pytest.approx((1 + 1 / 4) / 23)
    assert scores["total-by-row"] == pytest.approx((1 + 5 / 23) / 23)
    assert scores["section/chat"] == pytest.approx(2 / 23)


def test_a_row_in_all_languages_is_one_draw_and_so_are_rows_with_the_same_prompt(write):
    rows = [
        row | {"prompt": f"{row['language']} {row['id'] // 2}"} for row in rows_of("deu_Latn", "fra_Latn")
    ]
    table = MREWARDBENCH.results(MREWARDBENCH.read(write(rows, "rows.json")), np.zeros(2 * len(rows)))
    n = len(SUBSETS)
    assert table["prompt"][:n].tolist() == table["prompt"][n:].tolist()
    assert table["prompt"].nunique() == (n + 1) // 2


def test_a_missing_language_or_section_leaves_no_mean_and_is_told(write):
    rows = [row for row in rows_of("deu_Latn") if row["subset"] not in SECTIONS["Chat"]]
    source = write(rows, "rows.json")
    scores = scored(source, np.ones(len(rows)))
    assert np.isnan([scores["total"], scores["total-by-row"], scores["language/deu_Latn"]]).all()
    assert scores["deu_Latn/safety"] == 1
    told = MREWARDBENCH.count_warnings(MREWARDBENCH.read(source))
    assert told[0].startswith("M-RewardBench has no rows in arb_Arab, ces_Latn, ell_Grek")
    assert told[1] == f"M-RewardBench deu_Latn has no rows of {', '.join(SECTIONS['Chat'])}"


def test_the_folder_names_the_language_before_the_row_does(write, tmp_path):
    write([row | {"language": "pl"} for row in rows_of("pol_Latn")], "pol_Latn/test.json")
    assert set(MREWARDBENCH.read(str(tmp_path))["language"]) == {"pol_Latn"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"language": "xx"}, "language must be one of arb_Arab"), ({"subset": "x"}, "subset must be one of")],
    ids=["language", "subset"],
)
def test_a_row_of_another_language_or_subset_is_refused(write, changed, said):
    with pytest.raises(BenchmarkError, match=f"row 1 {said}"):
        MREWARDBENCH.read(write([rows_of("deu_Latn")[0] | changed], "rows.json"))
