"""The figures of a round in one file, and which round is the result."""

import math

import pytest

from tasks.run.round_metrics import best_round, read_metrics
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import ArtifactRef, open_run
from tasks.steps.summarise_round import summarise_round

pytestmark = pytest.mark.usefixtures("without_prefect")


@pytest.fixture
def run(tmp_path):
    config = RunConfig.model_validate({"name": "tiny", "folder": str(tmp_path), "rounds": 2})
    with open_run(config) as run:
        yield run


def artifact(uri, rows=None):
    return ArtifactRef(uri=uri, sha256=uri, rows=rows)


def test_the_metrics_of_all_steps_of_a_round_are_gathered(run):
    run.record("round-1-margins", "key", {}, 1.5)
    run.record("round-1-fit", "key", {}, 2.0)
    run.record("round-10-fit", "key", {}, 100.0)
    train, synthetic = artifact("train", rows=4), [artifact("one", rows=3), artifact("two", rows=2)]
    run.note_metrics(1, {"loss": 0.25})
    run.note_metrics(1, {"snr": math.nan})
    run.note_metrics(10, {"loss": 0.5})
    metrics = run.json(summarise_round(run, 1, train, synthetic))
    assert metrics == {
        "round": 1,
        "train/originals": 4,
        "train/synthetic": 5,
        "loss": 0.25,
        "snr": None,
        "seconds": 3.5,
    }


def test_metrics_are_read_round_by_round_and_one_that_does_not_exist_is_nan(run):
    run.write_json("round-0/metrics.json", {"round": 0.0, "snr": None})
    run.write_json("round-1/metrics.json", {"round": 1.0, "snr": 0.5})
    first, second = read_metrics(run)
    assert math.isnan(first["snr"])
    assert second == {"round": 1, "snr": 0.5}


def test_rounds_after_an_unfinished_one_or_beyond_the_configured_number_are_not_read(run):
    for t in (0, 2, 3):
        run.write_json(f"round-{t}/metrics.json", {"round": t})
    assert [metrics["round"] for metrics in read_metrics(run)] == [0]
    run.write_json("round-1/metrics.json", {"round": 1})
    assert [metrics["round"] for metrics in read_metrics(run)] == [0, 1, 2]


def test_the_best_round_is_the_first_of_the_greatest_validation_accuracy():
    rounds = [
        {"validation/accuracy": validation, "heldout/accuracy": heldout}
        for validation, heldout in ((0.5, 0.9), (0.75, 0.5), (0.75, 0.6))
    ]
    assert best_round(rounds) == 1
