"""`mars align`: a tiny chat model sampled in this process, and judged by two tiny reward models."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from flows.cli import app
from mars_core.alignment.methods.method import METHODS
from mars_core.evaluation.outliers import distances, latents_of, reference_of
from mars_core.model.reward_model import ModelConfig, RewardModel

SAMPLES, PROMPTS = 5, 6


@pytest.fixture(scope="module")
def aligned(prefect_server, alignment):
    made = alignment(PROMPTS, SAMPLES)
    made.report = made.start()
    return made


def test_every_prompt_has_its_responses_with_a_reward_and_gold(aligned):
    responses, rewards = aligned.table("round-0/responses"), aligned.table("round-0/response_rewards")
    assert responses["prompt_id"].nunique() == PROMPTS
    assert responses.groupby("prompt_id").size().max() <= SAMPLES
    assert rewards[["prompt_id", "sample"]].equals(responses[["prompt_id", "sample"]])
    assert (rewards["reward"] == rewards["reward_0"]).all()  # of one model, as it is
    assert not np.allclose(rewards["reward"], rewards["gold"])


def test_the_best_of_n_has_the_greatest_reward_and_says_what_gold_makes_of_it(aligned):
    best, most = aligned.table("round-0/best_of_n"), aligned.report.found.most
    expected = [
        np.mean([max(some) for some in combinations(row, most)]) - np.mean(row) for row in best["rewards"]
    ]
    assert aligned.report.found.proxy[most].value == pytest.approx(np.mean(expected), rel=1e-5)
    assert set(aligned.report.found.gold) == set(aligned.report.found.proxy)
    assert aligned.report.sentence in (aligned.root / "report.md").read_text()
    metrics = json.loads((aligned.root / "summary.json").read_text())["metrics"]
    assert metrics["responses/sent"] == PROMPTS
    assert metrics[f"reward_gain_of_best_of_{most}"] > 0


def test_a_second_start_computes_nothing_and_asks_nothing(aligned):
    before, asked = aligned.steps(), aligned.asked()
    assert aligned.start().sentence == aligned.report.sentence
    assert aligned.steps() == before
    assert aligned.asked() == asked


def test_another_reward_model_samples_nothing_anew(aligned, tiny_chat_decoder):
    before = aligned.steps()
    changed = aligned.start("name=other", f"rewards.models=[{tiny_chat_decoder}]", "rewards.gold=null")
    assert "without rewards.gold nothing says whether it is better" in changed.sentence
    assert changed.metrics["responses/cached"] == PROMPTS
    assert aligned.steps() == before


def test_a_penalty_of_outliers_is_of_the_distance_from_the_untrained_policys_responses(aligned, bottleneck):
    aligned.start("name=near", f"rewards.models=[{bottleneck}]", "rewards.outlier_penalty=0.5")
    rewards = pd.read_parquet(aligned.folder / "runs/near/round-0/response_rewards.parquet")
    assert rewards["reward"].to_numpy() == pytest.approx(rewards["reward_0"] - 0.5 * rewards["distance"])
    responses = aligned.table("round-0/responses")
    model = RewardModel.load(str(bottleneck), ModelConfig(max_length=64, precision="float32"))
    latents = latents_of(model, list(responses["prompt"]), list(responses["response"]))
    expected = distances(latents, reference_of(latents))
    assert rewards["distance"].to_numpy() == pytest.approx(expected, rel=1e-4)


def test_mlflow_has_one_run_with_the_page(aligned):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{aligned.folder}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("mars").experiment_id])
    [run] = [run for run in found if run.info.run_name == "tiny"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["mars.kind"] == "alignment"
    assert "report.md" in {file.path for file in client.list_artifacts(run.info.run_id)}
    assert run.data.metrics["prompts/n"] == PROMPTS
    aligned.start()
    assert len(client.get_metric_history(run.info.run_id, "prompts/n")) == 1


def test_a_dry_run_counts_and_leaves_nothing(aligned, monkeypatch):
    monkeypatch.chdir(aligned.folder)
    done = CliRunner().invoke(app, ["align", "align.yaml", "name=dry", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert f"at most {PROMPTS * SAMPLES * 8}" in done.output
    assert not (aligned.folder / "runs/dry").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("generation.backend=rules", "cannot respond to prompts"),
        ("samples=1", "samples"),
        ("prompts.number=100000", "100,000 prompts are wanted"),
        ("rewards.models=[]", "rewards.models"),
        ("reward.gold=x", "rewards"),
    ],
)
def test_what_cannot_work_is_told_before_any_work(aligned, monkeypatch, change, said):
    monkeypatch.chdir(aligned.folder)
    done = CliRunner().invoke(app, ["align", "align.yaml", "name=none", change, "--dry-run"])
    assert done.exit_code == 1
    assert said in " ".join(done.stderr.split())


@pytest.mark.parametrize("name", ["align", "align_llama", "align_training"])
def test_the_configurations_that_come_with_the_project_are_valid(name):
    file = Path(__file__).parents[2] / f"deployments/experiments/{name}.yaml"
    done = CliRunner().invoke(
        app, ["align", str(file), "prompts.source=sample://preferences", "prompts.number=9", "--dry-run"]
    )
    assert done.exit_code == 0, done.output
    assert "at most" in done.output
    assert "policy:" in CliRunner().invoke(app, ["config", str(file)]).output


@pytest.mark.parametrize("method", METHODS.names())
def test_the_configuration_for_a_gpu_passes_its_dry_run_with_each_training_method(method):
    file = Path(__file__).parents[2] / "deployments/experiments/align_llama.yaml"
    keys = ["prompts.source=sample://preferences", "prompts.number=9", f"training={{method: {method}}}"]
    done = CliRunner().invoke(app, ["align", str(file), *keys, "--dry-run"])
    assert done.exit_code == 0, done.output
    assert f"100 optimizer steps of {method}" in done.output
