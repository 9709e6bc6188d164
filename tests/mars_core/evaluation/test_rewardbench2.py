"""RewardBench 2 by cases that are worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_core.config import Configuration
from mars_core.evaluation.benchmark_files import BenchmarkError
from mars_core.evaluation.benchmarks.rewardbench2 import ROWS, RewardBench2, credit, ties_credits

REWARDBENCH2 = RewardBench2(Configuration())
ROW = {
    "id": "7",
    "subset": "Math",
    "prompt": "What is 2 + 2?",
    "chosen": ["4"],
    "rejected": ["5", "3", "22"],
}
TIED = ROW | {"id": "tied:0", "subset": "Ties", "prompt": "Name an even number.", "chosen": ["2", "4"]}
TANH = math.tanh


def ties(*rows):
    """Rows of Ties as (id, right rewards, wrong rewards)."""
    return pd.DataFrame(
        [{"id": row, "rewards": [*right, *wrong], "num_correct": len(right)} for row, right, wrong in rows]
    )


# ------------------------------------------------------------------------------------------------- reading


def test_the_official_counts_are_those_of_the_test_split():
    assert sum(ROWS.values()) == 1865
    assert list(ROWS) == ["Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties"]


@pytest.mark.parametrize("name", ["bench.jsonl", "bench.jsonl.gz", "bench.parquet"])
def test_every_file_format_gives_the_same_rows(write, name):
    rows = [ROW, TIED]
    official = {"num_correct": 1, "num_incorrect": 3, "total_completions": 4, "models": ["someone"]}
    assert REWARDBENCH2.read(write([row | official for row in rows], name)).to_list() == rows


def test_the_built_in_sample_has_every_subset():
    assert set(REWARDBENCH2.read("sample://rewardbench2")["subset"]) == set(ROWS)


def test_an_empty_answer_may_be_judged(write):
    assert REWARDBENCH2.read(write([ROW | {"rejected": ["5", ""]}]))["rejected"][0] == ["5", ""]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([ROW, ROW], "id 7 of Math occurs more than once"),
        ([ROW | {"subset": "Maths"}], "'Maths' is no RewardBench 2 subset; the nearest is 'Math'"),
        ([{key: ROW[key] for key in ("id", "subset", "prompt", "chosen")}], "has no column rejected"),
        ([ROW | {"chosen": "4"}], "column chosen must hold lists of text"),
        ([ROW | {"prompt": " "}], "id 7 of Math has an empty prompt"),
        ([ROW, ROW | {"id": "8", "rejected": []}], "id 8 of Math needs at least one chosen and one rejected"),
        ([ROW | {"rejected": ["5", None]}], "id 7 of Math needs at least one chosen and one rejected text"),
        ([ROW | {"chosen": ["4", "four"]}], "id 7 of Math has 2 chosen texts, where one answer is right"),
        ([TIED | {"id": "0"}], "id 0 of Ties is neither ref:NUMBER nor tied:NUMBER"),
        ([TIED | {"chosen": ["2"]}], "id tied:0 of Ties has one chosen text, where several"),
    ],
    ids=["twice", "subset", "column", "text", "blank", "none", "null", "two-right", "kind", "not-tied"],
)
def test_a_malformed_file_is_refused_with_its_name_and_the_fault(write, rows, said):
    source = write(rows)
    with pytest.raises(BenchmarkError, match=said) as error:
        REWARDBENCH2.read(source)
    assert source in str(error.value)


@pytest.mark.parametrize("source", ["allenai/reward-bench-2", "sample://rewardbench"], ids=["hub", "sample"])
def test_a_source_that_names_no_such_benchmark_is_refused(source):
    with pytest.raises(BenchmarkError, match="sample://rewardbench2"):
        REWARDBENCH2.read(source)


def test_rows_missing_from_a_subset_are_warned_about():
    subsets = [subset for subset, rows in ROWS.items() if subset != "Focus" for _ in range(rows)]
    assert REWARDBENCH2.count_warnings(Dataset.from_dict({"subset": subsets[1:]})) == [
        "RewardBench 2 subset Factuality has 474 rows, the official split has 475",
        "RewardBench 2 subset Focus has 0 rows, the official split has 495",
    ]


# ------------------------------------------------------------------------------------------------- scoring


def test_results_hold_the_rewards_of_each_row_with_the_right_answers_first(write):
    benchmark = REWARDBENCH2.read(write([ROW, TIED]))
    texts = REWARDBENCH2.texts(benchmark)
    assert texts.rows == ["Math/7"] * 4 + ["Ties/tied:0"] * 5
    assert texts.responses == ["4", "5", "3", "22", "2", "4", "5", "3", "22"]
    frame = REWARDBENCH2.results(benchmark, np.arange(9)[::-1])
    assert list(frame) == ["id", "subset", "rewards", "num_correct", "credit"]
    assert [rewards.tolist() for rewards in frame["rewards"]] == [[8, 7, 6, 5], [4, 3, 2, 1, 0]]
    assert frame["num_correct"].tolist() == [1, 2]
    assert frame["credit"][0] == 1
    assert math.isnan(frame["credit"][1])
    assert frame["rewards"][0].dtype == np.float32


def test_results_want_one_reward_a_text(write):
    with pytest.raises(ValueError, match="4 texts need as many rewards"):
        REWARDBENCH2.results(REWARDBENCH2.read(write([ROW])), np.zeros(5))


@pytest.mark.parametrize(
    ("rewards", "earned"),
    [([3, 1, 2, 0], 1), ([1, 3, 2, 0], 0), ([2, 2, 1, 0], 1 / 2), ([0, 0, 0, 0], 1 / 4), ([1, 2, 2, 0], 0)],
    ids=["best", "not-best", "two-best", "all-equal", "others-tied"],
)
def test_the_right_answer_shares_the_credit_with_those_it_is_tied_with_at_the_top(rewards, earned):
    assert credit(rewards) == earned


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # gaps 4 (tied) and 3 (ref), spread 1: everything right
        ([("tied:0", [5, 6], [1]), ("ref:0", [4], [1])], 1 + 0.01 * TANH(3 - 1)),
        # gap 1 of the tied row is no more than its spread of 2: its two accuracies alone
        ([("tied:0", [5, 7], [4]), ("ref:0", [9], [1])], 0.6 + 0.01 * TANH(1 / 2 - 1)),
        # the tied gap exceeds the spread, the reference's does not
        ([("tied:0", [5, 6], [1]), ("ref:0", [2], [1])], 0.8 + 0.01 * TANH(1 - 1)),
        # a right answer below a wrong one in both rows
        ([("tied:0", [0, 6], [1]), ("ref:0", [0], [1])], 0.01 * TANH(-1 / 6 - 1)),
        # equal rewards of a right and a wrong answer are not a gap above zero
        ([("tied:0", [1, 3], [1]), ("ref:0", [1], [1])], 0.01 * TANH(0 - 1)),
        # zero spread: +∞, −∞ and 0/0 go into tanh
        ([("tied:0", [2, 2], [1]), ("ref:0", [4], [1])], 1 + 0.01),
        ([("tied:0", [1, 1], [2]), ("ref:0", [4], [1])], 0.3 - 0.01),
        ([("tied:0", [1, 1], [1]), ("ref:0", [4], [1])], 0.3 + 0),
        # three prompts, of which one lacks its reference and one its tied row: each share over its own rows
        (
            [
                ("tied:0", [5, 6], [1]), ("ref:0", [4], [1]),
                ("tied:1", [0, 6], [1]),
                ("ref:2", [0], [1]),
            ],
            0.30 / 2 + 0.30 / 2 + 0.20 + 0.20 + 0.01 * TANH(2),
        ),
        # two prompts that differ
        (
            [("tied:0", [5, 6], [1]), ("ref:0", [4], [1]), ("tied:1", [5, 7], [4]), ("ref:1", [0], [1])],
            0.30 + 0.30 / 2 + 0.20 / 2 + 0.20 / 2 + 0.01 * (TANH(2) + TANH(-1 / 2 - 1)) / 2,
        ),
    ],
    ids=[
        "all", "wide-spread", "weak-reference", "wrong", "equal", "no-spread-right", "no-spread-wrong",
        "no-spread-no-gap", "missing-partners", "two-prompts",
    ],
)  # fmt: skip
def test_the_score_of_ties_is_the_one_worked_out_by_hand(rows, expected):
    assert ties_credits(ties(*rows)).mean() == pytest.approx(expected, abs=1e-12)


def test_ties_without_a_prompt_that_has_both_rows_have_no_score():
    assert np.isnan(ties_credits(ties(("tied:0", [1, 2], [0]), ("tied:1", [1, 2], [0])))).all()


@settings(max_examples=20)
@given(shift=st.integers(-50, 50), scale=st.integers(1, 9), seed=st.integers(0, 99))
def test_scores_do_not_change_when_all_rewards_are_shifted_and_stretched(shift, scale, seed):
    benchmark = REWARDBENCH2.read("sample://rewardbench2")
    rewards = np.random.default_rng(seed).integers(-4, 5, len(REWARDBENCH2.texts(benchmark).rows))
    frames = [REWARDBENCH2.results(benchmark, some) for some in (rewards, scale * rewards + shift)]
    assert ties_credits(ties_of(frames[1])).mean() == pytest.approx(ties_credits(ties_of(frames[0])).mean())
    assert frames[0]["credit"].equals(frames[1]["credit"])


def test_two_models_are_compared_by_what_each_prompt_earns_them():
    benchmark = REWARDBENCH2.read("sample://rewardbench2")
    rng = np.random.default_rng(3)
    frames = [
        REWARDBENCH2.results(benchmark, rng.normal(size=len(REWARDBENCH2.texts(benchmark).rows)))
        for _ in range(2)
    ]
    scores = [REWARDBENCH2.score(frame) for frame in frames]
    gain = REWARDBENCH2.differences(*frames)["total"]
    assert gain.value == pytest.approx(scores[0]["total"] - scores[1]["total"])
    assert gain.low < gain.value < gain.high
    assert gain.only_a + gain.only_b <= gain.n < len(benchmark)  # a prompt of Ties has two rows
    without_focus = [frame[frame["subset"] != "Focus"] for frame in frames]
    assert REWARDBENCH2.differences(*without_focus) == {}
    with pytest.raises(ValueError, match="the same rows"):
        REWARDBENCH2.differences(frames[0], frames[1][::-1])


def ties_of(frame):
    return frame[frame["subset"] == "Ties"]


def test_the_total_is_the_mean_of_the_six_subsets():
    benchmark = REWARDBENCH2.read("sample://rewardbench2")
    rewards = np.random.default_rng(0).normal(size=len(REWARDBENCH2.texts(benchmark).rows))
    frame = REWARDBENCH2.results(benchmark, rewards)
    scores = REWARDBENCH2.score(frame)
    names = ["factuality", "precise-if", "math", "safety", "focus", "ties"]
    assert scores["total"] == pytest.approx(np.mean([scores[f"subset/{name}"] for name in names]))
    assert scores["subset/precise-if"] == frame.loc[frame["subset"] == "Precise IF", "credit"].mean()
    assert scores["subset/ties"] == pytest.approx(ties_credits(ties_of(frame)).mean())
    assert scores["n"] == len(benchmark)
    for name in ("total", "subset/ties", "subset/focus"):
        assert scores[f"{name}_low"] <= scores[name] <= scores[f"{name}_high"]


def test_the_share_of_ties_counts_rows_whose_worst_right_and_best_wrong_rewards_are_equal():
    rewards = [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [2.0, 1.0, 1.0], [2.0, 2.0, 1.0]]
    frame = pd.DataFrame(
        {
            "id": ["1", "2", "3", "tied:0", "tied:1"],
            "subset": ["Math", "Math", "Focus", "Ties", "Ties"],
            "rewards": rewards,
            "num_correct": [1, 1, 1, 2, 2],
        }
    )
    assert REWARDBENCH2.score(frame)["ties"] == 2 / 5


def test_an_absent_subset_leaves_the_total_unknown():
    benchmark = REWARDBENCH2.read("sample://rewardbench2")
    rewards = np.random.default_rng(0).normal(size=len(REWARDBENCH2.texts(benchmark).rows))
    frame = REWARDBENCH2.results(benchmark, rewards)
    scores = REWARDBENCH2.score(frame[frame["subset"] != "Safety"])
    unknown = {name for name, value in scores.items() if math.isnan(value)}
    assert {"total", "total_low", "total_high"} <= unknown
    assert all(name.endswith(("_low", "_high")) for name in unknown - {"total"})
    assert "subset/safety" not in scores


@pytest.mark.parametrize(
    ("change", "said"),
    [({"subset": "Chat"}, "'Chat' is no RewardBench 2"), ({"rewards": [[1.0, math.nan]]}, "not finite")],
    ids=["subset", "nan"],
)
def test_rewards_that_would_give_a_false_score_are_refused(change, said):
    frame = pd.DataFrame({"id": ["7"], "subset": ["Math"], "rewards": [[1.0, 0.0]], "num_correct": [1]})
    with pytest.raises(ValueError, match=said):
        REWARDBENCH2.score(frame.assign(**change))


def test_nothing_scored_is_no_score():
    with pytest.raises(ValueError, match="no RewardBench 2 rows"):
        REWARDBENCH2.score(pd.DataFrame())
