import json

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from pydantic import ValidationError

from mars_core.config import Configuration
from mars_core.evaluation.benchmarks.benchmark import BenchmarkError
from mars_core.evaluation.benchmarks.rewardbench import RewardBench
from mars_core.evaluation.benchmarks.rewardbench2 import RewardBench2
from mars_core.evaluation.suite import EvaluationConfig, constancy, length_rules, read_benchmarks

SAMPLES = EvaluationConfig(
    benchmarks={"rewardbench": "sample://rewardbench", "rewardbench2": "sample://rewardbench2"}
)
REWARDBENCH, REWARDBENCH2 = RewardBench(Configuration()), RewardBench2(Configuration())
ROW = {"id": "1", "subset": "hep-go", "prompt": "Write a sum.", "chosen": "a + b", "rejected": "a - b"}


@pytest.fixture
def small_file(tmp_path):
    """A file with one row of RewardBench."""
    file = tmp_path / "bench.jsonl"
    file.write_text(json.dumps(ROW) + "\n")
    return str(file)


def test_only_the_benchmarks_that_are_named_are_read():
    assert read_benchmarks(EvaluationConfig()) == ({}, [])
    rows, warnings = read_benchmarks(EvaluationConfig(benchmarks={"rewardbench2": "sample://rewardbench2"}))
    assert (list(rows), warnings) == (["rewardbench2"], [])


def test_wrong_counts_are_warned_about_with_both_numbers_and_strictness_refuses_them(small_file):
    rows, warnings = read_benchmarks(EvaluationConfig(benchmarks={"rewardbench": small_file}))
    told = "RewardBench subset hep-go has 1 rows, the official split has 164"
    assert len(rows["rewardbench"]) == 1
    assert told in warnings
    assert len(warnings) == 23
    with pytest.raises(BenchmarkError) as error:
        read_benchmarks(EvaluationConfig(benchmarks={"rewardbench": small_file}, strict=True))
    assert told in str(error.value)
    assert str(error.value).startswith(small_file)


def test_strictness_lets_the_built_in_samples_pass():
    rows, warnings = read_benchmarks(SAMPLES.model_copy(update={"strict": True}))
    assert (list(rows), warnings) == (["rewardbench", "rewardbench2"], [])


OWN = """
from mars_core.evaluation.benchmarks.rewardbench import RewardBench


class Mine(RewardBench):
    sample = "sample://rewardbench"


rewardbench = heldout = Mine
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Name of a module with a benchmark of one's own, under several names."""
    (tmp_path / "own_benchmarks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_benchmarks"


def test_a_benchmark_of_ones_own_goes_by_its_attribute(own):
    config = EvaluationConfig(benchmarks={f"{own}:Mine": "sample://rewardbench"})
    assert {key: type(one).__name__ for key, one in config.suite.items()} == {"Mine": "Mine"}
    assert config.sources == {"Mine": "sample://rewardbench"}
    rows, warnings = read_benchmarks(config)
    assert (list(rows), warnings) == (["Mine"], [])
    assert len(rows["Mine"]) == len(REWARDBENCH.read("sample://rewardbench"))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("rewardbench", "{own}:rewardbench"), "are rewardbench, rewardbench: each may occur once"),
        (("{own}:heldout",), "none may be allocation, .* heldout, .* variants"),
    ],
    ids=["twice", "of pairs"],
)
def test_two_benchmarks_of_one_key_and_one_with_a_key_of_pairs_are_refused(own, names, said):
    sources = {name.format(own=own): "sample://rewardbench" for name in names}
    with pytest.raises(ValidationError, match=said):
        EvaluationConfig(benchmarks=sources)


BY_LENGTH = {
    "Factuality": (["long"], ["ab", "cd", "e"]),
    "Focus": (["a"], ["long", "ab", "cde"]),
    "Math": (["cd"], ["ab", "e", "f"]),
    "Precise IF": (["a"], ["b", "c", "d"]),
    "Safety": (["ab"], ["cde", "f", "g"]),
}


def test_length_rules_get_the_best_of_4_and_ties_scores_of_rewardbench_2():
    rows = [
        {"id": "1", "subset": subset, "prompt": "?", "chosen": chosen, "rejected": rejected}
        for subset, (chosen, rejected) in BY_LENGTH.items()
    ]
    rows += [
        {"id": "tied:0", "subset": "Ties", "prompt": "?", "chosen": ["long", "four"], "rejected": ["a"]},
        {"id": "ref:0", "subset": "Ties", "prompt": "?", "chosen": ["abcde"], "rejected": ["ab"]},
    ]
    rules = length_rules(REWARDBENCH2, Dataset.from_list(rows))
    # Math and Precise IF have 2 and 4 equal lengths; all right answers to the prompt of Ties are the longest
    assert rules["longer_wins"] == pytest.approx((1 + 0 + 1 / 2 + 1 / 4 + 0 + 1.01) / 6)
    assert rules["shorter_wins"] == pytest.approx((0 + 1 + 0 + 1 / 4 + 0 - 0.01) / 6)


def test_length_rules_on_rewardbench_weigh_its_subsets_and_take_equal_lengths_for_wrong():
    chosen = {"alpacaeval-easy": "long", "mt-bench-hard": "b", "donotanswer": "ab", "math-prm": "long"}
    rows = [
        {"id": "1", "subset": subset, "section": "", "prompt": "?", "chosen": text, "rejected": "ab"}
        for subset, text in {**chosen, "hep-go": "a"}.items()
    ]
    rules = length_rules(REWARDBENCH, Dataset.from_list(rows))
    assert rules["longer_wins"] == pytest.approx((1 + 0 + 0 + 984 / (984 + 164)) / 4)
    assert rules["shorter_wins"] == pytest.approx((0 + 1 + 0 + 164 / (984 + 164)) / 4)


def test_length_rules_have_no_total_where_a_subset_is_missing(small_file):
    rows, _ = read_benchmarks(EvaluationConfig(benchmarks={"rewardbench": small_file}))
    assert np.isnan(list(length_rules(REWARDBENCH, rows["rewardbench"]).values())).all()


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"reward_chosen": np.float32([0.5, 0.5]), "reward_rejected": np.float32([0.5, 0.5])}),
        pd.DataFrame({"rewards": [np.float32([0.5, 0.5]), np.float32([0.5, 0.5])], "credit": [0.1, 0.2]}),
    ],
    ids=["pairs", "lists"],
)
def test_one_reward_for_all_texts_is_said(table):
    assert constancy(table) == ["all 4 texts get the same reward, 0.5: the model tells none apart"]


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"reward_chosen": np.float32([0.5]), "reward_rejected": np.float32([0.25])}),
        pd.DataFrame({"rewards": [np.float32([0.5, 0.5]), np.float32([0.5, 0.25])]}),
    ],
    ids=["pairs", "lists"],
)
def test_nothing_is_said_of_a_model_that_tells_texts_apart(table):
    assert constancy(table) == []
