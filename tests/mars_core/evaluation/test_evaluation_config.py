import json

import pytest
from pydantic import ValidationError

from mars_core.config import Configuration
from mars_core.evaluation.benchmark_files import BenchmarkError
from mars_core.evaluation.benchmarks.rewardbench import RewardBench
from mars_core.evaluation.benchmarks.rewardbench2 import RewardBench2
from mars_core.evaluation.evaluation_config import EvaluationConfig, read_benchmarks

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
