"""The report of a run as its folder has it, in files and in Prefect."""

import shutil

import pandas as pd
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.runtime import flow_run

from mars_core.report.run_report import markdown
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import RunFolderError, open_run
from tasks.run.sources import LEFT_OUT
from tasks.steps.write_report import run_report, write_report
from tasks.tracking.mlflow_runs import link_tracking

PAIRS = ["a", "b", "c", "d"]
ORIGINALS = {"pair_id": PAIRS} | {
    part: [f"{part} of {pair}" for pair in PAIRS] for part in ("prompt", "chosen", "rejected")
}
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
            "train": run.write_table("train.parquet", pd.DataFrame(ORIGINALS)),
            "heldout": run.write_table("heldout.parquet", pd.DataFrame(ORIGINALS)),
            LEFT_OUT: run.write_json("left_out.json", {"empty chosen": 2}),
        }
        run.record("prepare", "key", outputs, 0.1)
        yield run


def finish_round(run, t, validation, **metrics):
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
        {"round": t, "validation/accuracy": validation, "heldout/accuracy": accuracy} | ends | metrics,
    )


def finish_round_with_texts(run, t):
    """The same with synthetic pairs of `a`, which is the harder one, and of `b`."""
    finish_round(run, t, 0.5, **{"synthetic/low_limit": 0.1})
    margins = pd.DataFrame({"pair_id": PAIRS, "margin": [-0.5, 0.5, -2.0, 0.0]})
    rewrites = {"pair_id": ["a"], "rewritten": "chosen", "chosen": "rewritten", "rejected": "rejected of a"}
    variants = {"parent_id": ["b", "a"], "part": "rejected", "variant": 1, "text": ["new of b", "new of a"]}
    synthetic = {
        "synthetic_id": ["1", "2"],
        "parent_id": ["b", "a"],
        "prompt_variant": 0,
        "chosen_variant": 0,
    }
    synthetic |= {"rejected_variant": 1, "margin_before": [0.25, -0.25], "margin_after": [0.75, 0.125]}
    tables = {"rewrites": rewrites, "variants": variants, "synthetic": synthetic, "margins": margins}
    for name, table in tables.items():
        run.write_table(f"round-{t}/{name}.parquet", pd.DataFrame(table))


def test_a_run_without_a_finished_round_has_no_report(run):
    with pytest.raises(RunFolderError, match="no round is finished yet"):
        run_report(run)


def test_a_report_reaches_as_far_as_the_run_has_come(run):
    finish_round(run, 0, 0.5)
    report = run_report(run)
    assert (len(report.rounds), report.best, report.difference, report.budgets) == (1, 0, None, {})
    assert report.data_notes == ["Left out 2 rows: empty chosen."]


def test_a_report_says_how_texts_are_rendered(run, tiny_chat_decoder):
    finish_round(run, 0, 0.5)
    run.write(run.of_round(0).model, lambda folder: shutil.copytree(tiny_chat_decoder, folder))
    assert run_report(run).data_notes[-1] == "Texts are rendered by the tokenizer's chat template."


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


def test_the_report_shows_the_texts_of_the_last_round_that_made_any(run):
    finish_round(run, 0, 0.5)
    assert run_report(run).texts is None
    finish_round_with_texts(run, 1)
    page = markdown(run_report(run))
    assert page.index("### Original a: margin −0.500") < page.index("### Original b: margin 0.500")
    assert "| **chosen** | chosen of a | rewritten |  |" in page
    assert "| **rejected** | rejected of a |  | new of a |" in page
    assert "rejected 1 (−0.250 → 0.125)." in page
    assert "Original c" not in page
    assert "What the guards dropped" not in page


def test_the_report_shows_what_guards_dropped_where_the_round_kept_some_of_it(run):
    finish_round(run, 0, 0.5)
    finish_round_with_texts(run, 1)
    told = {"role": "paraphrase_chosen", "pair_id": "c", "source": "chosen of c", "text": "Something else."}
    rows = pd.DataFrame([told | {"reason": "meaning lost", "number": 0.63}])
    run.write_table(run.of_round(1).dropped_paraphrases, rows)
    [shown] = [line for line in markdown(run_report(run)).splitlines() if "| Something else. |" in line]
    assert shown.startswith(
        "| meaning lost (cosine similarity 0.63) | paraphrase of chosen, c | chosen of c |"
    )
