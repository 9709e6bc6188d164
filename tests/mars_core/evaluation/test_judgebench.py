"""JudgeBench by rewards that are worked out by hand."""

import numpy as np
import pytest

from mars_core.config import Configuration
from mars_core.evaluation.benchmark_files import BenchmarkError
from mars_core.evaluation.benchmarks.judgebench import JudgeBench

JUDGEBENCH = JudgeBench(Configuration())


def row(number, source="mmlu-pro-law", label="A>B", model="gpt-4o-2024-05-13"):
    return {
        "pair_id": f"p{number}",
        "original_id": None,
        "source": source,
        "question": "What is 2 + 2?",
        "response_model": model,
        "response_A": f"A{number}",
        "response_B": f"B{number}",
        "label": label,
    }


ALL = [
    row(1),
    row(2, "mmlu-pro-math", "B>A"),
    row(3, "livebench-reasoning"),
    row(4, "livebench-math", "B>A"),
    row(5, "livecodebench"),
]
CLAUDE = row(6, "livecodebench", model="claude-3-5-sonnet-20240620")


def scored(source, margins):
    rows = JUDGEBENCH.read(source)
    return JUDGEBENCH.score(JUDGEBENCH.results(rows, [*margins, *[0] * len(margins)]))


def test_the_label_says_which_answer_is_right(write):
    rows = JUDGEBENCH.read(write(ALL, "gpt.jsonl"))
    assert rows["chosen"][:] == ["A1", "B2", "A3", "B4", "A5"]
    assert rows["rejected"][:] == ["B1", "A2", "B3", "A4", "B5"]


def test_the_total_is_over_all_pairs_and_not_a_mean_of_categories(write):
    scores = scored(write(ALL, "gpt.jsonl"), [1, 1, -1, 0, 1])
    assert scores["total"] == pytest.approx(3 / 5)
    categories = ("knowledge", "reasoning", "mathematics", "coding")
    assert [scores[f"section/gpt-4o-{name}"] for name in categories] == [1, 0, 0, 1]


def test_equal_rewards_are_wrong_whatever_the_label_and_the_publishers_rule_is_told(write):
    scores = scored(write(ALL, "gpt.jsonl"), [0] * 5)
    assert (scores["total"], scores["ties"]) == (0, 1)
    assert "counts them as B>A" in JUDGEBENCH.equal_rewards


def test_pairs_by_claude_have_a_score_of_their_own(write, tmp_path):
    write(ALL, "data/a.jsonl")
    write([CLAUDE], "data/b.jsonl")
    scores = scored(str(tmp_path / "data"), [1] * 5 + [-1])
    assert scores["total"] == 1
    assert scores["section/claude-3-5-sonnet-coding"] == 0
    assert np.isnan(scores["section/claude-3-5-sonnet"])


def test_a_category_without_rows_leaves_no_total(write):
    source = write(ALL[:4], "gpt.jsonl")
    assert np.isnan(scored(source, [1] * 4)["total"])
    told = JUDGEBENCH.count_warnings(JUDGEBENCH.read(source))
    assert "JudgeBench subset gpt-4o-coding has 0 rows, the official split has 42" in told
    assert not any("claude" in warning for warning in told)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row(1, label="A=B")], "row 1 label must be one of A>B, B>A, it is 'A=B'"),
        ([row(1, "gsm8k")], "row 1 source must begin with mmlu-pro"),
        ([row(1, model="o1")], "row 1 response_model must begin with gpt-4o"),
        ([row(1) | {"response_B": None}], "row 1 response_B must be text, it is None"),
        ([row(1), row(1)], "row 2 repeats id p1"),
    ],
    ids=["label", "source", "model", "null", "twice"],
)
def test_a_row_of_another_format_is_refused_with_row_and_field(write, rows, said):
    with pytest.raises(BenchmarkError, match=said):
        JUDGEBENCH.read(write(rows, "gpt.jsonl"))
