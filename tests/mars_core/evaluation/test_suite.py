import json

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from mars_core.evaluation.benchmarks.rewardbench import RewardBenchError
from mars_core.evaluation.suite import (
    EvaluationConfig,
    benchmark_results,
    constancy,
    length_rules,
    number_of_texts,
    read_benchmarks,
)
from mars_core.model.checkpoints import ModelError
from mars_core.model.reward_model import ModelConfig, RewardModel, pair_rewards

SAMPLES = EvaluationConfig(rewardbench="sample://rewardbench", rewardbench2="sample://rewardbench2")
ROW = {"id": "1", "subset": "hep-go", "prompt": "Write a sum.", "chosen": "a + b", "rejected": "a - b"}


@pytest.fixture(scope="module")
def model(tiny_decoder):
    """A reward model whose tokenizer came without a pad token."""
    return RewardModel.load(str(tiny_decoder), ModelConfig(max_length=64, precision="float32"))


@pytest.fixture
def small_file(tmp_path):
    """A file with one row of RewardBench."""
    file = tmp_path / "bench.jsonl"
    file.write_text(json.dumps(ROW) + "\n")
    return str(file)


def test_only_the_benchmarks_that_are_named_are_read():
    assert read_benchmarks(EvaluationConfig()) == ({}, [])
    rows, warnings = read_benchmarks(EvaluationConfig(rewardbench2="sample://rewardbench2"))
    assert (list(rows), warnings) == (["rewardbench2"], [])


def test_wrong_counts_are_warned_about_with_both_numbers_and_strictness_refuses_them(small_file):
    rows, warnings = read_benchmarks(EvaluationConfig(rewardbench=small_file))
    told = "RewardBench subset hep-go has 1 rows, the official split has 164"
    assert len(rows["rewardbench"]) == 1
    assert told in warnings
    assert len(warnings) == 23
    with pytest.raises(RewardBenchError) as error:
        read_benchmarks(EvaluationConfig(rewardbench=small_file, strict=True))
    assert told in str(error.value)
    assert str(error.value).startswith(small_file)


def test_strictness_lets_the_built_in_samples_pass():
    rows, warnings = read_benchmarks(SAMPLES.model_copy(update={"strict": True}))
    assert (list(rows), warnings) == (["rewardbench", "rewardbench2"], [])


def test_one_pass_gives_both_benchmarks_the_rewards_that_each_has_by_itself(model):
    rows, _ = read_benchmarks(SAMPLES)
    done = []
    together = dict(benchmark_results(model, rows, done.append))
    assert sum(done) == number_of_texts(rows) == 2 * 230 + 5 * 6 * 4 + 6 * 4 + sum((8, 7, 7, 6, 7, 7))
    pairs = rows["rewardbench"].rename_column("id", "pair_id")
    alone = pair_rewards(model, pairs)
    for side in ("reward_chosen", "reward_rejected"):
        np.testing.assert_allclose(together["rewardbench"][side], alone[side], atol=1e-5)
    row = rows["rewardbench2"][3]
    answers = [*row["chosen"], *row["rejected"]]
    rewards = model.score([row["prompt"]] * len(answers), answers)
    np.testing.assert_allclose(together["rewardbench2"]["rewards"][3], rewards, atol=1e-5)


def test_a_text_that_both_benchmarks_hold_is_scored_once(model, small_file, tmp_path):
    other = tmp_path / "two.jsonl"
    row = ROW | {"subset": "Math", "chosen": ["a + b"], "rejected": ["a - b", "a * b"]}
    other.write_text(json.dumps(row) + "\n")
    rows, _ = read_benchmarks(EvaluationConfig(rewardbench=small_file, rewardbench2=str(other)))
    scored = []
    handle = model.head.register_forward_pre_hook(lambda _, inputs: scored.append(len(inputs[0])))
    results = dict(benchmark_results(model, rows))
    handle.remove()
    assert sum(scored) == 3
    assert results["rewardbench2"]["rewards"][0][0] == results["rewardbench"]["reward_chosen"][0]


def test_a_reward_that_is_no_number_is_told_with_its_row(model, small_file, monkeypatch):
    rows, _ = read_benchmarks(EvaluationConfig(rewardbench=small_file))
    rewards, features = np.array([1.0, np.nan], np.float32), np.empty((2, 0), np.float32)
    monkeypatch.setattr(model, "score_windows", lambda *_: [(rewards, features)])
    with pytest.raises(ModelError, match="1 of 2 texts are NaN or infinite: hep-go/1"):
        list(benchmark_results(model, rows))


def test_nothing_to_run_gives_nothing(model):
    assert list(benchmark_results(model, {})) == []


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
    rules = length_rules("rewardbench2", Dataset.from_list(rows))
    # Math and Precise IF have 2 and 4 equal lengths; all right answers to the prompt of Ties are the longest
    assert rules["longer_wins"] == pytest.approx((1 + 0 + 1 / 2 + 1 / 4 + 0 + 1.01) / 6)
    assert rules["shorter_wins"] == pytest.approx((0 + 1 + 0 + 1 / 4 + 0 - 0.01) / 6)


def test_length_rules_on_rewardbench_weigh_its_subsets_and_take_equal_lengths_for_wrong():
    chosen = {"alpacaeval-easy": "long", "mt-bench-hard": "b", "donotanswer": "ab", "math-prm": "long"}
    rows = [
        {"id": "1", "subset": subset, "section": "", "prompt": "?", "chosen": text, "rejected": "ab"}
        for subset, text in {**chosen, "hep-go": "a"}.items()
    ]
    rules = length_rules("rewardbench", Dataset.from_list(rows))
    assert rules["longer_wins"] == pytest.approx((1 + 0 + 0 + 984 / (984 + 164)) / 4)
    assert rules["shorter_wins"] == pytest.approx((0 + 1 + 0 + 164 / (984 + 164)) / 4)


def test_length_rules_have_no_total_where_a_subset_is_missing(small_file):
    rows, _ = read_benchmarks(EvaluationConfig(rewardbench=small_file))
    assert np.isnan(list(length_rules("rewardbench", rows["rewardbench"]).values())).all()


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
