import math

import datasets
import numpy as np
import pandas as pd
import pytest

from mars_core.config import Configuration
from mars_core.evaluation.benchmark_files import BenchmarkError
from mars_core.evaluation.benchmarks.rewardbench import ROWS, SECTION_OF, SECTIONS, RewardBench

REWARDBENCH = RewardBench(Configuration())
ROW = {
    "id": "1",
    "subset": "hep-go",
    "prompt": "Write a sum.",
    "chosen": "return a + b",
    "rejected": "return a - b",
}


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def rewards(right_of_subset, rows=ROWS):
    """A scored benchmark in which the first `right_of_subset[name]` rows of a subset are right."""
    subsets = [subset for subset in right_of_subset for _ in range(rows[subset])]
    right = np.concatenate([np.arange(rows[subset]) < count for subset, count in right_of_subset.items()])
    return pd.DataFrame(
        {
            "subset": subsets,
            "reward_chosen": right.astype(np.float32),
            "reward_rejected": np.full(len(subsets), 0.5, np.float32),
        }
    )


def test_the_official_counts_are_those_of_the_leaderboard():
    assert {section: sum(weights.values()) for section, weights in SECTIONS.items()} == {
        "Chat": 358,
        "Chat Hard": 456,
        "Safety": 740,
        "Reasoning": 1968,
    }
    assert sum(ROWS.values()) == 2985
    weights = {subset: weight for section in SECTIONS.values() for subset, weight in section.items()}
    assert {subset: weights[subset] for subset in ROWS if weights[subset] != ROWS[subset]} == {
        "math-prm": 984
    }


@pytest.mark.parametrize("name", ["bench.jsonl", "bench.jsonl.gz", "bench.parquet", "bench.csv"])
def test_every_file_format_gives_the_same_rows(write, name):
    rows = [
        ROW | {"id": 7},
        {"id": 8, "subset": "donotanswer", "prompt": "Human: Hi", "chosen": "None", "rejected": '1, "2"\n3'},
    ]
    ignored = {"section": "made up", "chosen_model": "someone"}
    benchmark = REWARDBENCH.read(write([row | ignored for row in rows], name))
    assert benchmark.to_list() == [
        rows[0] | {"id": "7", "section": "Reasoning"},
        rows[1] | {"id": "8", "section": "Safety"},
    ]


def test_a_csv_keeps_the_zeros_of_an_id(write):
    assert REWARDBENCH.read(write([ROW | {"id": "007"}], "bench.csv"))["id"][0] == "007"


def test_the_built_in_sample_has_every_section():
    benchmark = REWARDBENCH.read("sample://rewardbench")
    assert set(benchmark["section"]) == set(SECTIONS)


def test_one_id_may_occur_in_two_subsets(write):
    benchmark = REWARDBENCH.read(write([ROW | {"id": 3692}, ROW | {"id": 3692, "subset": "donotanswer"}]))
    assert list(benchmark["id"]) == ["3692", "3692"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([ROW, ROW], "id 1 of hep-go occurs more than once"),
        ([ROW | {"subset": "hep-golang"}], "'hep-golang' is no RewardBench subset; the nearest is 'hep-go'"),
        ([{key: ROW[key] for key in ("id", "subset", "prompt", "chosen")}], "has no column rejected"),
        ([ROW, ROW | {"id": "2", "chosen": " \n"}], "id 2 of hep-go has an empty chosen"),
        ([ROW, ROW | {"id": "2", "prompt": None}], "id 2 of hep-go has an empty prompt"),
        ([ROW | {"chosen": [{"role": "user", "content": "Hi"}]}], "column chosen must hold text"),
    ],
    ids=["duplicate", "subset", "column", "blank", "null", "conversation"],
)
def test_a_malformed_file_is_refused_with_its_name_and_the_fault(write, rows, said):
    source = write(rows)
    with pytest.raises(BenchmarkError, match=said) as error:
        REWARDBENCH.read(source)
    assert source in str(error.value)


@pytest.mark.parametrize(
    "source", ["allenai/reward-bench", "bench.txt", "sample://preferences"], ids=["hub", "file", "sample"]
)
def test_a_source_that_names_no_benchmark_is_refused(source):
    with pytest.raises(BenchmarkError, match="sample://rewardbench"):
        REWARDBENCH.read(source)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BenchmarkError, match=r"absent\.parquet"):
        REWARDBENCH.read(str(tmp_path / "absent.parquet"))


def test_rows_missing_from_a_subset_are_warned_about():
    subsets = [subset for subset, rows in ROWS.items() if subset != "hep-rust" for _ in range(rows)]
    whole = datasets.Dataset.from_dict({"subset": subsets + ["hep-rust"] * 164})
    assert REWARDBENCH.count_warnings(whole) == []
    assert REWARDBENCH.count_warnings(datasets.Dataset.from_dict({"subset": subsets[1:]})) == [
        "RewardBench subset alpacaeval-easy has 99 rows, the official split has 100",
        "RewardBench subset hep-rust has 0 rows, the official split has 164",
    ]


def test_results_join_rows_and_rewards_and_call_a_tie_wrong(write):
    benchmark = REWARDBENCH.read(write([ROW | {"id": i} for i in range(3)]))
    frame = REWARDBENCH.results(benchmark, np.array([1.0, 0.0, 2.0, 0.0, 0.0, 3.0]))
    assert list(frame) == [
        "id", "subset", "section", "prompt", "reward_chosen", "reward_rejected", "correct",
    ]  # fmt: skip
    assert frame["correct"].tolist() == [True, False, False]
    assert frame["reward_chosen"].dtype == np.float32
    assert frame["section"].tolist() == ["Reasoning"] * 3


def test_the_texts_to_score_are_all_chosen_responses_and_then_all_rejected_ones(write):
    rows = [ROW, ROW | {"id": "2", "subset": "hep-js", "prompt": "Why?", "chosen": "So.", "rejected": "No."}]
    assert REWARDBENCH.texts(REWARDBENCH.read(write(rows))) == (
        ["hep-go/1", "hep-js/2"] * 2,
        ["Write a sum.", "Why?"] * 2,
        ["return a + b", "So.", "return a - b", "No."],
    )


@pytest.mark.parametrize("shape", [(1,), (2, 1)], ids=["too-few", "matrix"])
def test_results_want_one_reward_a_text(write, shape):
    benchmark = REWARDBENCH.read(write([ROW]))
    with pytest.raises(ValueError, match="2 texts need as many rewards"):
        REWARDBENCH.results(benchmark, np.zeros(shape))


def test_sections_and_total_are_those_of_an_independent_computation_from_the_table():
    benchmark = REWARDBENCH.read("sample://rewardbench")
    frame = REWARDBENCH.results(benchmark, np.random.default_rng(3).normal(size=2 * len(benchmark)))
    right: dict[str, list[bool]] = {}
    for row in frame.itertuples():
        right.setdefault(row.subset, []).append(row.reward_chosen > row.reward_rejected)
    sections = {
        section: sum(weight * sum(right[subset]) / len(right[subset]) for subset, weight in weights.items())
        / sum(weights.values())
        for section, weights in SECTIONS.items()
    }
    scores = REWARDBENCH.score(frame)
    for section, value in sections.items():
        assert scores[f"section/{section.lower().replace(' ', '-')}"] == pytest.approx(value, abs=1e-9)
    assert scores["total"] == pytest.approx(sum(sections.values()) / 4, abs=1e-9)


def test_math_prm_weighs_as_much_as_the_six_programming_languages():
    scores = REWARDBENCH.score(
        rewards({"math-prm": 447} | {s: 0 for s in SECTIONS["Reasoning"] if "hep" in s})
    )
    assert scores["section/reasoning"] == pytest.approx(0.5)
    assert (scores["subset/math-prm"], scores["subset/hep-js"]) == (1, 0)


def test_the_total_is_the_mean_of_the_four_sections():
    right = {subset: rows if SECTION_OF[subset] == "Chat" else 0 for subset, rows in ROWS.items()}
    scores = REWARDBENCH.score(rewards(right | {"refusals-dangerous": 37}))
    assert scores["section/chat"] == pytest.approx(1)
    assert scores["section/safety"] == pytest.approx(37 / 740)
    assert scores["total"] == pytest.approx((1 + 37 / 740) / 4)
    assert scores["n"] == 2985


def test_a_section_counts_the_subsets_it_has():
    scores = REWARDBENCH.score(rewards({"mt-bench-easy": 28, "mt-bench-med": 0}))
    assert scores["section/chat"] == pytest.approx(28 / 68)
    assert "subset/alpacaeval-easy" not in scores


def test_an_absent_section_leaves_the_total_unknown():
    scores = REWARDBENCH.score(rewards({s: 5 for s in ROWS if SECTION_OF[s] != "Safety"}))
    unknown = {key for key, value in scores.items() if math.isnan(value)}
    names = "section/safety", "total"
    assert unknown == {name + end for name in names for end in ("", "_low", "_high")}


def test_equal_scores_are_wrong_and_their_share_is_told():
    frame = rewards(dict.fromkeys(ROWS, 0)).assign(reward_chosen=np.float32(0.5))
    scores = REWARDBENCH.score(frame)
    assert (scores["total"], scores["ties"]) == (0, 1)


def test_the_intervals_hold_their_scores_and_the_total_is_the_surest():
    scores = REWARDBENCH.score(rewards({subset: round(0.7 * rows) for subset, rows in ROWS.items()}))
    names = "total", "section/chat", "section/chat-hard", "section/safety", "section/reasoning"
    for name in names:
        assert scores[f"{name}_low"] < scores[name] < scores[f"{name}_high"]
    width = {name: scores[f"{name}_high"] - scores[f"{name}_low"] for name in names}
    assert min(width, key=width.get) == "total"
    variance = sum((w / 358) ** 2 * 0.7 * 0.3 / w for w in SECTIONS["Chat"].values())
    assert width["section/chat"] == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.06)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"subset": "prior"}, "'prior' is no RewardBench subset"), ({"reward_chosen": math.nan}, "not finite")],
    ids=["subset", "nan"],
)
def test_rewards_that_would_give_a_false_score_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        REWARDBENCH.score(rewards({"hep-go": 3}).assign(**change))


def test_nothing_scored_is_no_score():
    with pytest.raises(ValueError, match="no RewardBench rows"):
        REWARDBENCH.score(rewards({"hep-go": 3}).iloc[:0])


def test_models_are_compared_by_total_and_section_on_the_same_rows():
    worse = rewards(dict.fromkeys(ROWS, 10)).assign(id="1")
    better = rewards(dict.fromkeys(ROWS, 20)).assign(id="1")
    for frame in (worse, better):
        frame["correct"] = frame["reward_chosen"] > frame["reward_rejected"]
    gains = REWARDBENCH.differences(better, worse)
    scores = REWARDBENCH.score(better), REWARDBENCH.score(worse)
    assert list(gains) == [
        "total",
        *(f"section/{name}" for name in ("chat", "chat-hard", "safety", "reasoning")),
    ]
    for name, gain in gains.items():
        assert gain.value == pytest.approx(scores[0][name] - scores[1][name])
        assert gain.only_b == 0
    assert gains["total"].n == 2985
    assert (gains["section/safety"].n, gains["section/safety"].only_a) == (740, 50)


def test_models_are_not_compared_on_different_rows():
    rows = pd.DataFrame({"id": ["1", "2"], "subset": "hep-go", "correct": True})
    with pytest.raises(ValueError, match="the same rows"):
        REWARDBENCH.differences(rows, rows[::-1].reset_index(drop=True))
