"""MLflow on SQLite: what a run logs, that logging may be repeated, and that a logged model is the model."""

import json
import os
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from prefect import flow
from prefect.runtime import flow_run

from mars_core.model.reward_model import ModelConfig, RewardModel
from tasks.run.run_config import RunConfig, TrackingConfig
from tasks.run.run_folder import open_run
from tasks.tracking import run_tracking as tracking
from tasks.tracking.evaluation_tracking import run_page
from tasks.tracking.logged_models import registered_checkpoint
from tasks.tracking.mlflow_runs import experiment_id_of, run_address
from tasks.tracking.mlflow_store import LOCAL_PORT, TrackingError, tracking_uri
from tasks.tracking.run_tracking import send_run

FIGURES = {
    "validation/accuracy": 0.5,
    "heldout/accuracy": 0.625,
    "heldout/snr": None,
    "selection/mean_margin": -1.5,
}
REPORT = "# Report — τ = 0.5\n\n![Accuracy](figures/accuracy.png)\n\nThe end.\n"
CURVE = {"loss": 0.7, "accuracy": 0.5, "margin": 0.1, "learning_rate": 1e-5, "tokens_per_second": 9.0} | {
    "padding": 0.1,
    "gradient_norm": 0.4,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory, mlflow_store):
    """Address of a database whose tables are there."""
    return f"sqlite:///{shutil.copy(mlflow_store, tmp_path_factory.mktemp('mlflow'))}"


@pytest.fixture(autouse=True)
def _own_address():
    """Logging a model sets MLflow's address for the whole process, by an environment variable."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    mlflow.set_tracking_uri(before or "")


class Tracked:
    """A run with a finished round or more, and the calls that log it."""

    def __init__(self, run, model_folder):
        self.run, self.config = run, run.config.tracking
        self.client = MlflowClient(self.config.uri)
        self.sets = {
            name: run.write_table(f"{name}.parquet", pd.DataFrame({"pair_id": list("abcd")[:rows]}))
            for name, rows in (("train", 4), ("validation", 2), ("heldout", 3))
        }
        run.record("prepare", "key", self.sets, 0)
        self.models = []
        for t, accuracy in enumerate((0.5, 0.75)):
            self.measured(t, accuracy)
            shutil.copytree(model_folder, run.path(f"round-{t}/model"), dirs_exist_ok=True)
            run.path(f"round-{t}/model/round.txt").write_text(str(t))
            self.models.append(run.adopt(f"round-{t}/model"))
        curve = [json.dumps(CURVE | {"step": step, "loss": 0.7 / step}) for step in (1, 2, 3)]
        run.path("round-1/training.jsonl").write_text("\n".join(curve) + "\n")
        run.record("round-0-adopt", "key", {"": self.models[0]}, 0)
        run.record("round-1-fit", "key", {"": self.models[1]}, 0)
        run.write("report.md", lambda path: path.write_text(REPORT, encoding="utf-8"))
        run.write("figures/accuracy.png", lambda path: path.write_bytes(b"png"))

    def measured(self, t, accuracy):
        """Let a round have another validation accuracy."""
        figures = FIGURES | {"validation/accuracy": accuracy, "round": float(t)}
        metrics = self.run.write_json(f"round-{t}/metrics.json", figures)
        self.run.record(f"round-{t}-metrics", "key", {"": metrics}, 0)

    def log(self):
        """Send everything; ids of the parent and of the rounds, and the address."""
        parent = send_run(self.client, self.run, 2, ended=True)
        return parent.info.run_id, self.rounds(), run_address(self.config, parent)

    def rounds(self):
        """Ids of the runs of the rounds."""
        of_round = {run.data.tags.get("mars.round"): run.info.run_id for run in self.all_runs()}
        return [of_round[str(t)] for t in (0, 1)]

    def rows(self, run_id):
        """Every metric row of a run: (name, step, value)."""
        return sorted(
            (metric.key, metric.step, metric.value)
            for name in self.client.get_run(run_id).data.metrics
            for metric in self.client.get_metric_history(run_id, name)
        )

    def all_runs(self):
        experiment = self.client.get_experiment_by_name(self.config.experiment)
        return self.client.search_runs([experiment.experiment_id])

    def logged_models(self):
        experiment = self.client.get_experiment_by_name(self.config.experiment)
        return [model.source_run_id for model in self.client.search_logged_models([experiment.experiment_id])]


@pytest.fixture
def tracked(request, store, tmp_path, tiny_decoder):
    """Makes a tracked run in an experiment of its own, again where it was if asked twice."""
    opened = []

    def make(models="none", **changes):
        config = RunConfig.model_validate(
            {
                "name": "tiny",
                "folder": str(tmp_path),
                "tracking": {"uri": store, "experiment": request.node.name, "models": models},
            }
            | changes
        )
        while opened:
            opened.pop().__exit__(None, None, None)
        context = open_run(config)
        run = context.__enter__()
        opened.append(context)
        return Tracked(run, tiny_decoder)

    yield make
    while opened:
        opened.pop().__exit__(None, None, None)


def test_a_run_is_a_parent_with_a_child_for_each_round(tracked):
    tiny = tracked()
    parent_id, round_ids, _ = tiny.log()
    parent, *rounds = (tiny.client.get_run(run_id) for run_id in (parent_id, *round_ids))
    assert len(tiny.all_runs()) == 3
    assert parent.info.run_name == "tiny"
    assert [child.data.tags["mlflow.parentRunId"] for child in rounds] == [parent_id] * 2
    assert [child.data.tags["mars.round"] for child in rounds] == ["0", "1"]
    assert {run.info.status for run in (parent, *rounds)} == {"FINISHED"}
    assert parent.data.tags["mars.folder"] == str(tiny.run.root)
    assert parent.data.tags["mlflow.note.content"] == "# Report — τ = 0.5\n\nThe end."
    assert rounds[1].data.tags["mlflow.note.content"] == "Accuracy: validation .750, held-out .625. "
    files = [file.path for file in tiny.client.list_artifacts(parent_id)]
    assert files == ["config.yaml", "figures", "report.md"]


def test_parameters_are_the_resolved_configuration_however_many_keys_it_has(tracked):
    where = {f"field_{n}": n for n in range(120)} | {"lang?": "en"}
    tiny = tracked(data={"where": where}, selection={"tau": 0.1})
    parent_id, _, _ = tiny.log()
    parameters = tiny.client.get_run(parent_id).data.params
    assert {name: parameters[f"data.where.{name}"] for name in where if name != "lang?"} == {
        name: str(value) for name, value in where.items() if name != "lang?"
    }
    assert parameters["selection.tau"] == "0.1"
    assert parameters["fit.learning_rate"] == "2e-05"
    assert parameters["generation.rewrite_chosen.top_p"] == "1.0"
    assert parameters["data.where.lang_"] == "en"


def test_mlflow_gets_no_field_of_a_request_that_may_be_a_secret(tracked, tmp_path):
    body = {"extra_body": {"api_key": "a-secret"}}
    tiny = tracked(generation={"backend": "vllm", "model": "m", "options": body})
    parent_id, _, _ = tiny.log()
    parameters = tiny.client.get_run(parent_id).data.params
    assert parameters["generation.options.extra_body"] == "(not shown)"
    sent = tiny.client.download_artifacts(parent_id, "config.yaml", str(tmp_path))
    assert "a-secret" not in Path(sent).read_text() + str(parameters)


def test_the_three_sets_are_dataset_inputs_with_their_digests(tracked):
    tiny = tracked()
    parent_id, _, _ = tiny.log()
    inputs = tiny.client.get_run(parent_id).inputs.dataset_inputs
    assert {(put.dataset.name, put.dataset.digest) for put in inputs} == {
        (name, part.sha256[:36]) for name, part in tiny.sets.items()
    }
    profiles = {put.tags[0].value: json.loads(put.dataset.profile)["pairs"] for put in inputs}
    assert profiles == {"train": 4, "validation": 2, "heldout": 3}


def test_metrics_of_a_round_are_logged_at_its_number_and_absent_ones_left_out(tracked):
    tiny = tracked()
    parent_id, (_, round_id), _ = tiny.log()
    of_round = [row for row in tiny.rows(round_id) if not row[0].startswith("training/")]
    assert of_round == [
        ("heldout/accuracy", 1, 0.625),
        ("round", 1, 1.0),
        ("selection/mean_margin", 1, -1.5),
        ("validation/accuracy", 1, 0.75),
    ]
    assert tiny.rows(parent_id) == [
        ("heldout/accuracy", 0, 0.625),
        ("heldout/accuracy", 1, 0.625),
        ("result/heldout/accuracy", 0, 0.625),
        ("result/round", 0, 1.0),
        ("result/validation/accuracy", 0, 0.75),
        ("validation/accuracy", 0, 0.5),
        ("validation/accuracy", 1, 0.75),
    ]


def test_the_training_curve_of_a_round_is_logged_by_step(tracked):
    tiny = tracked()
    _, (unfitted, fitted), _ = tiny.log()
    losses = [(step, value) for name, step, value in tiny.rows(fitted) if name == "training/loss"]
    assert losses == [(1, 0.7), (2, 0.35), (3, 0.7 / 3)]
    assert sum(name.startswith("training/") for name, _, _ in tiny.rows(fitted)) == 3 * len(CURVE)
    assert not any(name.startswith("training/") for name, _, _ in tiny.rows(unfitted))


def test_logging_everything_twice_changes_nothing(tracked):
    tiny = tracked(models="best")
    first = tiny.log()
    before = [tiny.rows(run.info.run_id) for run in tiny.all_runs()]
    assert tiny.log() == first
    assert [tiny.rows(run.info.run_id) for run in tiny.all_runs()] == before
    assert len(tiny.client.get_run(first[0]).inputs.dataset_inputs) == 3
    assert tiny.logged_models() == [first[0]]


def test_a_start_that_died_while_it_logged_is_made_up_for_without_double_rows(tracked):
    tiny = tracked()
    parent_id, rounds, _ = tiny.log()
    whole = [tiny.rows(run_id) for run_id in (parent_id, *rounds)]
    for run_id in rounds:  # all rows were sent, but not the mark that they were
        tiny.client.delete_tag(run_id, "mars.logged")
    assert tiny.log()[:2] == (parent_id, rounds)
    assert [tiny.rows(run_id) for run_id in (parent_id, *rounds)] == whole


def test_a_parent_that_was_created_and_nothing_more_gets_all_that_it_lacks(tracked):
    tiny = tracked()
    tiny.client.create_experiment(tiny.config.experiment, artifact_location=tiny.run.root.as_uri())
    experiment = tiny.client.get_experiment_by_name(tiny.config.experiment)
    tags = {"mars.run": tiny.run.identity, "mars.kind": "run"}
    bare = tiny.client.create_run(experiment.experiment_id, tags=tags).info.run_id
    assert send_run(tiny.client, tiny.run, 0).info.run_id == bare
    found = tiny.client.get_run(bare)
    assert found.data.params["selection.tau"] == "0.5"
    assert len(found.inputs.dataset_inputs) == 3


def test_a_start_with_other_operational_keys_goes_on_in_the_same_run(tracked):
    parent_id, *_ = tracked(rounds=1).log()
    tiny = tracked(rounds=5, model={"device": "cpu"})
    assert tiny.log()[0] == parent_id
    artifacts = tiny.client.get_run(parent_id).info.artifact_uri
    assert "rounds: 5" in mlflow.artifacts.load_text(f"{artifacts}/config.yaml")


def test_a_round_that_was_made_anew_is_logged_anew(tracked):
    tiny = tracked()
    first = tiny.log()
    tiny.measured(1, 0.875)
    later = tiny.run.path("round-1/metrics.json").stat().st_mtime + 1
    os.utime(tiny.run.path("round-1/metrics.json"), (later, later))
    assert tiny.log() == first
    for run_id in (first[0], first[1][1]):
        assert tiny.client.get_run(run_id).data.metrics["validation/accuracy"] == 0.875


def test_another_best_round_replaces_the_result(tracked):
    tiny = tracked()
    parent_id, _, _ = tiny.log()
    tiny.measured(0, 0.9)
    tiny.log()
    metrics = tiny.client.get_run(parent_id).data.metrics
    assert (metrics["result/round"], metrics["result/validation/accuracy"]) == (0, 0.9)


@pytest.mark.parametrize("models", ["none", "best", "all"])
def test_models_are_logged_as_configured(models, tracked):
    tiny = tracked(models=models)
    parent_id, rounds, _ = tiny.log()
    assert sorted(tiny.logged_models()) == sorted({"none": [], "best": [parent_id], "all": rounds}[models])


def test_models_of_logged_rounds_are_made_up_for_when_all_are_wanted_later(tracked):
    tracked(models="none").log()
    tiny = tracked(models="all")
    _, rounds, _ = tiny.log()
    assert sorted(tiny.logged_models()) == sorted(rounds)


def test_a_logged_model_loads_and_gives_the_same_rewards(tracked, monkeypatch):
    tiny = tracked(models="best")
    parent_id, _, _ = tiny.log()
    (logged,) = tiny.client.search_logged_models([tiny.client.get_run(parent_id).info.experiment_id])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tiny.client.tracking_uri)
    parts = mlflow.transformers.load_model(logged.model_uri, return_type="components")
    settings = ModelConfig(device="cpu", precision="float32")
    texts = ["What is a lark?", "Name a river."], ["A small songbird.", "The Loire is a river in France."]
    original = RewardModel.load(str(tiny.run.path(tiny.models[1])), settings).score(*texts)
    assert (
        RewardModel(parts["model"], parts["tokenizer"], settings).score(*texts).tolist() == original.tolist()
    )


def test_a_registered_model_is_fetched_as_a_checkpoint_that_gives_the_same_rewards(tracked, tmp_path):
    tiny = tracked(models="best")
    parent_id, _, _ = tiny.log()
    (logged,) = tiny.client.search_logged_models([tiny.client.get_run(parent_id).info.experiment_id])
    tiny.client.create_registered_model("tiny")
    version = tiny.client.create_model_version("tiny", logged.artifact_location).version
    tiny.client.set_registered_model_alias("tiny", "champion", version)
    folder = registered_checkpoint(tiny.config, "models:/tiny@champion", tmp_path / "fetched")
    settings = ModelConfig(device="cpu", precision="float32")
    texts = ["What is a lark?", "Name a river."], ["A small songbird.", "The Loire is a river in France."]
    original = RewardModel.load(str(tiny.run.path(tiny.models[1])), settings).score(*texts)
    assert RewardModel.load(folder, settings).score(*texts).tolist() == original.tolist()


def test_a_model_or_a_run_that_mlflow_does_not_know_is_told_with_the_address(store, tmp_path):
    config = TrackingConfig(uri=store)
    with pytest.raises(TrackingError, match=r"models:/nobody@champion.*mlflow\.db"):
        registered_checkpoint(config, "models:/nobody@champion", tmp_path)
    with pytest.raises(TrackingError, match=r"mlflow\.db has no run 'nobody'"):
        run_page(config, "nobody")


def test_the_run_is_tagged_with_the_prefect_flow_run_that_wrote_it(tracked, prefect_server):
    tiny = tracked()

    @flow(name="tiny", persist_result=False)
    def story():
        with tracking.tracked(tiny.run) as track:
            track(2)
        return flow_run.id, flow_run.ui_url

    story_run = story()
    for run in tiny.all_runs():
        assert (run.data.tags["prefect.flow_run"], run.data.tags["prefect.url"]) == story_run
        assert f"[This run in Prefect]({story_run[1]})" in run.data.tags["mlflow.note.content"]


def test_artifacts_of_a_local_store_lie_beside_its_database(tracked, store):
    tiny = tracked()
    parent_id, _, _ = tiny.log()
    folder = Path(store.removeprefix("sqlite:///")).parent.as_uri()
    assert tiny.client.get_run(parent_id).info.artifact_uri.startswith(f"{folder}/mlartifacts/")


def test_two_first_runs_at_once_share_the_experiment(store):
    config = TrackingConfig(uri=store, experiment="raced")
    other = MlflowClient(store).create_experiment("raced")

    class Slow(MlflowClient):
        asked = 0

        def get_experiment_by_name(self, name):
            self.asked += 1
            return None if self.asked == 1 else super().get_experiment_by_name(name)

    assert experiment_id_of(Slow(store), config) == other


def test_the_address_is_the_page_of_the_run(tracked):
    tiny = tracked()
    parent_id, _, address = tiny.log()
    experiment_id = tiny.client.get_run(parent_id).info.experiment_id
    assert address == f"http://127.0.0.1:{LOCAL_PORT}/#/experiments/{experiment_id}/runs/{parent_id}"
    remote = TrackingConfig(uri="https://mlflow.example.org/")
    page = run_address(remote, tiny.client.get_run(parent_id))
    assert page == f"https://mlflow.example.org/#/experiments/{experiment_id}/runs/{parent_id}"


def test_the_store_is_as_configured_or_of_the_environment_or_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(TrackingConfig()) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_uri(TrackingConfig()) == "http://mlflow:5000"
    assert tracking_uri(TrackingConfig(uri="sqlite:///a.db")) == "sqlite:///a.db"
