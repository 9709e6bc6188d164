"""Rewards become metrics: of preference pairs, and of benchmarks by what each declares."""

import json

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from mars_core.config import Configuration
from mars_core.errors import ModelError
from mars_core.evaluation.benchmarks.rewardbench import RewardBench
from mars_core.evaluation.benchmarks.rewardbench2 import RewardBench2
from mars_core.evaluation.calibration import brier_score, expected_calibration_error
from mars_core.evaluation.evaluation_config import EvaluationConfig, read_benchmarks
from mars_core.evaluation.length_bias import length_bias, lengths
from mars_core.evaluation.measure import (
    constancy,
    length_rules,
    measure_benchmark,
    measure_pairs,
    pairs_summary,
)
from mars_core.evaluation.statistics import pairwise_summary
from mars_core.model.scoring import Cut
from mars_core.tables import Table, write

REWARDBENCH, REWARDBENCH2 = RewardBench(Configuration()), RewardBench2(Configuration())
ROW = {"id": "1", "subset": "hep-go", "prompt": "Write a sum.", "chosen": "a + b", "rejected": "a - b"}
PAIRS = Dataset.from_dict(
    {"prompt": ["a", "b", "c"], "chosen": ["long text", "ab", "abc"], "rejected": ["short", "abcd", "a"]}
)
TABLE = pd.DataFrame(
    {
        "pair_id": ["a", "b", "c"],
        "margin": np.float32([0.5, -0.25, 2.0]),
        "reward_chosen": np.float32([1, 0, 2]),
    }
)

UNCUT = Cut(0, 0, [])


@pytest.fixture
def pairs(tmp_path):
    """The pairs as a table."""
    write(tmp_path / "pairs.parquet", PAIRS)
    return Table(tmp_path / "pairs.parquet")


@pytest.fixture
def small_file(tmp_path):
    """A file with one row of RewardBench."""
    file = tmp_path / "bench.jsonl"
    file.write_text(json.dumps(ROW) + "\n")
    return str(file)


def scored(benchmark, rows, seed=0):
    """What scoring gives of a benchmark, drawn by a seed."""
    rewards = np.random.default_rng(seed).normal(size=len(benchmark.texts(rows).rows)).astype(np.float32)
    if not benchmark.pairwise:
        return {"rewards": rewards}
    chosen, rejected = np.split(rewards, 2)
    return {"rewards": rewards, "margins": chosen - rejected}


# Pairs


def test_pairs_have_the_metrics_of_their_margins_and_lengths_under_the_name_of_their_set(pairs):
    measured = measure_pairs("heldout", pairs, TABLE, cut=Cut(3, 1, []))
    bias = length_bias(TABLE["margin"], lengths(PAIRS["chosen"]), lengths(PAIRS["rejected"]))
    wanted = {
        **pairwise_summary(TABLE["margin"].to_numpy()),
        **bias,
        "brier": brier_score(TABLE["margin"]),
        "calibration_error": expected_calibration_error(TABLE["margin"]),
        "same_tokens": 0.0,
        "prompts_cut": 3.0,
        "responses_cut": 1.0,
        "constant": 0.0,
    }
    assert measured.metrics == pytest.approx(
        {f"heldout/{name}": value for name, value in wanted.items()}, nan_ok=True
    )
    assert measured.table is TABLE
    assert measured.notes == []


def test_where_the_objective_knows_how_sure_it_is_pairs_tell_whether_that_finds_errors(pairs):
    assert "heldout/uncertainty/error_auroc" not in measure_pairs("heldout", pairs, TABLE, UNCUT).metrics
    unsure = TABLE.assign(variance_chosen=[1, 9, 1], variance_rejected=[1, 1, 4])  # the second is wrong
    measured = measure_pairs("heldout", pairs, unsure, UNCUT).metrics
    assert measured["heldout/uncertainty/error_auroc"] == 1
    assert measured["heldout/uncertainty/accuracy_of_70"] == 1


def test_a_summary_of_pairs_needs_no_texts(pairs):
    measured = measure_pairs("validation", pairs, TABLE, cut=UNCUT).metrics
    summary = pairs_summary(TABLE)
    assert {"accuracy", "mean_margin", "brier", "calibration_error"} <= set(summary)
    assert {f"validation/{name}": value for name, value in summary.items()}.items() <= measured.items()


def test_one_reward_for_all_texts_is_a_metric_and_a_note_with_the_name_of_the_set(pairs):
    same = TABLE.assign(margin=np.float32([0] * 3), reward_chosen=np.float32([0.5] * 3), reward_rejected=0.5)
    measured = measure_pairs("heldout", pairs, same, cut=UNCUT)
    assert measured.metrics["heldout/constant"] == 1
    assert measured.notes == [
        "heldout: all 6 texts get the same reward, 0.5: the model tells none apart",
    ]


def test_pairs_whose_responses_are_the_same_tokens_are_counted_and_named(pairs):
    measured = measure_pairs("heldout", pairs, TABLE, cut=Cut(0, 2, [1]))
    assert measured.metrics["heldout/same_tokens"] == 1
    (note,) = measured.notes
    assert note.startswith("heldout: the responses of 1 of 3 pairs are the same tokens")
    assert note.endswith(": b")


# Benchmarks


def test_a_benchmark_has_its_own_scores_and_those_of_the_length_rules_under_its_key():
    rows = REWARDBENCH2.read("sample://rewardbench2")
    numbers = scored(REWARDBENCH2, rows)
    measured = measure_benchmark("mine", REWARDBENCH2, rows, numbers, cut=Cut(2, 5, []))
    table = REWARDBENCH2.results(rows, numbers["rewards"])
    pd.testing.assert_frame_equal(measured.table, table)
    wanted = {
        **REWARDBENCH2.score(table),
        **length_rules(REWARDBENCH2, rows),
        "subsets_of_other_size": float(len(REWARDBENCH2.count_warnings(rows))),
        "prompts_cut": 2.0,
        "responses_cut": 5.0,
        "constant": 0.0,
    }
    assert measured.metrics == pytest.approx(
        {f"mine/{name}": value for name, value in wanted.items()}, nan_ok=True
    )
    assert measured.metrics["mine/subsets_of_other_size"] == 6


def test_a_pairwise_benchmark_has_margins_and_what_follows_from_them_too():
    rows = REWARDBENCH.read("sample://rewardbench")
    numbers = scored(REWARDBENCH, rows)
    numbers["margins"] = numbers["margins"] / 2  # an objective's margin need not be the rewards' difference
    measured = measure_benchmark("rewardbench", REWARDBENCH, rows, numbers, cut=UNCUT)
    np.testing.assert_array_equal(measured.table["margin"], numbers["margins"])
    bias = length_bias(numbers["margins"], lengths(rows["chosen"]), lengths(rows["rejected"]))
    wanted = {
        **REWARDBENCH.score(measured.table),
        **bias,
        "brier": brier_score(numbers["margins"]),
        "calibration_error": expected_calibration_error(numbers["margins"]),
        "same_tokens": 0.0,
        **length_rules(REWARDBENCH, rows),  # by the benchmark's own scoring, not a share of the rows
    }
    found = {name: measured.metrics[f"rewardbench/{name}"] for name in wanted}
    assert found == pytest.approx(wanted)
    assert wanted["longer_wins"] != pytest.approx(bias["longer_wins"])


def test_a_reward_that_is_no_number_is_told_with_its_row(small_file):
    rows = REWARDBENCH.read(small_file)
    numbers = {"rewards": np.array([1.0, np.nan], np.float32), "margins": np.array([np.nan], np.float32)}
    with pytest.raises(ModelError, match="1 of 2 texts are NaN or infinite: hep-go/1"):
        measure_benchmark("rewardbench", REWARDBENCH, rows, numbers, cut=UNCUT)


# Rules of length, and models that tell nothing apart

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
