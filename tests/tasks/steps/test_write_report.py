"""The report of a run as its folder has it, in files and in Prefect."""

import pandas as pd
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.runtime import flow_run

from tasks.run.run_config import RunConfig
from tasks.run.run_folder import RunFolderError, open_run
from tasks.run.sources import LEFT_OUT
from tasks.steps.write_report import run_report, write_report
from tasks.tracking.mlflow_runs import link_tracking

PAIRS = ["a", "b", "c", "d"]
MARGINS = [[1.0, -1.0, -1.0, -1.0], [1.0, 1.0, -1.0, 1.0]]
"""Held-out margins of round 0 and round 1."""


@pytest.fixture
def run(tmp_path):
    config = RunConfig.model_validate(
        {
            "name": "tiny",
            "folder": str(tmp_path),
            "rounds": 3,
            "evaluation": {"benchmarks": {"rewardbench": "sample://rewardbench"}},
        }
    )
    with open_run(config) as run:
        outputs = {
            "train": run.write_table("train.parquet", pd.DataFrame({"pair_id": PAIRS})),
            LEFT_OUT: run.write_json("left_out.json", {"empty chosen": 2}),
        }
        run.record("prepare", "key", outputs, 0.1)
        yield run


def finish_round(run, t, validation):
    margins = MARGINS[t]
    rewards = pd.DataFrame({"pair_id": PAIRS, "margin": margins})
    run.write_table(f"round-{t}/heldout_rewards.parquet", rewards)
    if t:
        allocation = {"pair_id": PAIRS, "margin": [0.5, -0.5, 0.0, 2.0], "budget": [1, 2, 1, 0]}
        run.write_table(f"round-{t}/allocation.parquet", pd.DataFrame(allocation))
    accuracy = sum(margin > 0 for margin in margins) / len(margins)
    ends = {f"heldout/{name}": 0.5 for name in ("accuracy_low", "accuracy_high", "chance_low", "chance_high")}
    run.write_json(
        f"round-{t}/metrics.json",
        {"round": t, "validation/accuracy": validation, "heldout/accuracy": accuracy} | ends,
    )


def test_a_run_without_a_finished_round_has_no_report(run):
    with pytest.raises(RunFolderError, match="no round is finished yet"):
        run_report(run)


def test_a_report_reaches_as_far_as_the_run_has_come(run):
    finish_round(run, 0, 0.5)
    report = run_report(run)
    assert (len(report.rounds), report.best, report.difference, report.budgets) == (1, 0, None, {})
    assert report.data_notes == ["Left out 2 rows: empty chosen."]


def test_the_best_round_is_compared_with_round_0_pair_by_pair(run):
    finish_round(run, 0, 0.5)
    finish_round(run, 1, 0.6)
    report = run_report(run)
    assert report.best == 1
    assert report.difference.value == 0.5
    assert report.budgets[1].tolist() == [1, 2, 1, 0]
    assert report.margins[1].tolist() == [0.5, -0.5, 0.0, 2.0]


def test_where_round_0_is_best_the_last_round_is_compared(run):
    finish_round(run, 0, 0.6)
    finish_round(run, 1, 0.5)
    report = run_report(run)
    assert (report.best, report.compared, report.difference.value) == (0, 1, 0.5)
    assert {t: margins.tolist() for t, margins in report.heldout.items()} == dict(enumerate(MARGINS))


def test_rounds_are_compared_on_rewardbench_where_both_have_it(run):
    for t in (0, 1):
        finish_round(run, t, 0.5 + t / 10)
        table = pd.DataFrame({"id": PAIRS, "subset": "hep-go", "correct": [bool(t), False, True, True]})
        assert run_report(run).benchmarks == {}
        run.write_table(f"round-{t}/rewardbench.parquet", table)
    assert run_report(run).benchmarks["RewardBench reasoning"].value == 0.25


def test_the_report_is_written_and_shown_in_prefect_with_a_link_to_mlflow(run, in_flow):
    finish_round(run, 0, 0.5)
    finish_round(run, 1, 0.6)

    def story():
        report = write_report(run)
        link_tracking("http://127.0.0.1:5000/#/experiments/1/runs/2")
        return report, flow_run.id

    report, flow_run_id = in_flow(story)
    assert report.best == 1
    assert run.path("report.md").read_text(encoding="utf-8").startswith("# tiny\n")
    assert run.path("figures/accuracy.png").stat().st_size > 0
    with get_client(sync_client=True) as client:
        shown = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        )
    data = {artifact.key: artifact.data for artifact in shown}
    assert set(data) == {"rounds", "report", "mlflow"}
    assert "1 (best)" in data["rounds"]
    assert data["report"].startswith("# tiny\n")
    assert "figures/" not in data["report"]
    assert "http://127.0.0.1:5000/#/experiments/1/runs/2" in data["mlflow"]
