"""MLflow: one parent run a run folder, one child run a round.

Logging is a step of its own and may be repeated: a run is found again by the identity of its folder, and
a round whose metrics were logged before is left alone. A start that ended half-way through a round leaves
no double rows either: a metric bears the time of the file it is read from, and MLflow keeps equal rows once.
Everything but a model, which MLflow takes no other way, goes through a client and a run id: the fluent API's
active run belongs to a thread and would start stray runs.
"""

import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.exceptions import MlflowException
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from mars_core.config import TrackingConfig, flat
from mars_core.errors import MarsError
from mars_core.evaluation import BENCHMARKS
from mars_core.reward_model import ModelConfig, RewardModel
from tasks.run_folder import ArtifactRef, RunFolder

SQLITE = "sqlite:///"
LOCAL_STORE = "mlflow.db"
LOCAL_ARTIFACTS = "mlartifacts"
LOCAL_PORT = 5000
"""Where `mars ui` serves a local store, unless the port is taken."""
METRICS_AT_ONCE, PARAMETERS_AT_ONCE = 1000, 100
"""Most of one request to MLflow."""
logging.getLogger("mlflow").setLevel(logging.ERROR)  # its notes on schema migrations and model cards
HEADLINES = (
    "validation/accuracy", "heldout/accuracy", "heldout/accuracy_low", "heldout/accuracy_high",
    "heldout/mean_margin", "heldout/snr", "heldout/brier", "heldout/calibration_error", "rewardbench/total",
    "rewardbench/section/chat", "rewardbench/section/chat-hard", "rewardbench/section/safety",
    "rewardbench/section/reasoning", "rewardbench2/total",
)  # fmt: skip
"""Figures that the parent carries: as curves over rounds, and as the result of the best round."""


class TrackingError(MarsError, RuntimeError):
    """MLflow does not know a run or a model; the message says which, and where it was looked for."""


def tracking_uri(config: TrackingConfig) -> str:
    """Where MLflow keeps the numbers: as configured, by environment, or in the working folder."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{Path(LOCAL_STORE).resolve()}"


@task(name="track run", task_run_name="track run", cache_policy=NO_CACHE, persist_result=False)
def track_run(run: RunFolder, sets: dict[str, ArtifactRef]) -> str:
    """Find or start the parent run; logs the configuration, the three sets and benchmarks. Returns its id."""
    config = run.config.tracking
    client = _client(config)
    experiment_id = _experiment_id(client, config)
    identity = {"mars.run": run.identity, "mars.kind": "run"}
    tags = identity | {"mars.folder": str(run.root)} | config.tags
    if config.parent:
        tags["mlflow.parentRunId"] = config.parent
    parent = _find(client, experiment_id, identity) or client.create_run(
        experiment_id, run_name=run.config.name, tags=tags
    )
    run_id: str = parent.info.run_id
    # A parameter of MLflow is set once: the first start's value of an operational key stays, and
    # config.yaml among the artifacts has the present one.
    parameters = [
        Param(key, str(value)[:6000])
        for key, value in _parameters(run).items()
        if key not in parent.data.params
    ]
    for start in range(0, len(parameters), PARAMETERS_AT_ONCE):
        client.log_batch(run_id, params=parameters[start : start + PARAMETERS_AT_ONCE])
    client.log_inputs(run_id, [_dataset(run, name, part) for name, part in sets.items()])
    client.log_artifact(run_id, str(run.path("config.yaml")))
    client.set_tag(run_id, "prefect.flow_run", str(flow_run.id))
    client.set_tag(run_id, "prefect.url", str(flow_run.ui_url))
    client.update_run(run_id, status="RUNNING")
    return run_id


@contextmanager
def marked_failed(config: TrackingConfig, run_id: str) -> Iterator[None]:
    """Let MLflow show a run as failed if the `with` block ends by an exception."""
    try:
        yield
    except BaseException:
        with suppress(MlflowException):  # the error that ended the run is the one to tell
            _client(config).set_terminated(run_id, status="FAILED")
        raise


@task(name="track round", task_run_name="round {round} · track", cache_policy=NO_CACHE, persist_result=False)
def track_round(run: RunFolder, round: int, parent_id: str, metrics: ArtifactRef, model: ArtifactRef) -> str:
    """Log a round as a child run, once; a second call with the same metrics changes nothing."""
    client = _client(run.config.tracking)
    experiment_id = client.get_run(parent_id).info.experiment_id
    identity = {"mars.run": run.identity, "mars.kind": "round", "mars.round": str(round)}
    child = _find(client, experiment_id, identity) or client.create_run(
        experiment_id,
        run_name=f"{run.config.name} · round {round}",
        tags=identity | {"mlflow.parentRunId": parent_id},
    )
    child_id: str = child.info.run_id
    if child.data.tags.get("mars.logged") != metrics.sha256:
        figures = {name: value for name, value in run.json(metrics).items() if value is not None}
        time_ms = _time_ms(run.path(metrics))
        rows = [Metric(name, value, time_ms, round) for name, value in figures.items()]
        _log(client, child_id, rows)
        _log(client, parent_id, [row for row in rows if row.key in HEADLINES])
        curve = run.path(f"round-{round}/training.jsonl")
        if curve.exists():
            _log(client, child_id, _training_curve(curve))
        client.log_artifact(child_id, str(run.path(metrics)))
        client.set_tag(child_id, "mars.logged", metrics.sha256)
    if run.config.tracking.models == "all":
        log_model(client, run, child_id, model)
    client.set_terminated(child_id)
    return child_id


@task(name="track result", task_run_name="track result", cache_policy=NO_CACHE, persist_result=False)
def track_result(
    run: RunFolder, parent_id: str, rounds: list[dict[str, float]], best: int, models: list[ArtifactRef]
) -> str:
    """Log the best round's figures, model and report on the parent; returns the address of its page."""
    client = _client(run.config.tracking)
    result = {name: rounds[best][name] for name in HEADLINES if name in rounds[best]} | {"round": float(best)}
    known = client.get_run(parent_id).data.metrics
    now_ms = int(time.time() * 1000)
    _log(
        client,
        parent_id,
        [
            Metric(f"result/{name}", value, now_ms, 0)
            for name, value in result.items()
            if math.isfinite(value) and known.get(f"result/{name}") != value
        ],
    )
    client.log_artifact(parent_id, str(run.path("report.md")))
    client.log_artifacts(parent_id, str(run.path("figures")), "figures")
    report = run.path("report.md").read_text(encoding="utf-8")
    client.set_tag(parent_id, "mlflow.note.content", report[:5000])
    if run.config.tracking.models == "best":
        log_model(client, run, parent_id, models[best])
    client.set_terminated(parent_id)
    return run_address(run.config.tracking, client.get_run(parent_id))


@task(name="track comparison", task_run_name="track comparison", cache_policy=NO_CACHE, persist_result=False)
def track_comparison(name: str, identity: str, config: TrackingConfig) -> str:
    """Find or start the run of a comparison, under which its cells are shown. Returns its run id."""
    client = _client(config)
    experiment_id = _experiment_id(client, config)
    tags = {"mars.run": identity, "mars.kind": "comparison"}
    found = _find(client, experiment_id, tags) or client.create_run(experiment_id, run_name=name, tags=tags)
    run_id: str = found.info.run_id
    client.set_tag(run_id, "prefect.flow_run", str(flow_run.id))
    client.update_run(run_id, status="RUNNING")
    return run_id


@task(name="track cell", task_run_name="track cell", cache_policy=NO_CACHE, persist_result=False)
def track_cell(run: RunFolder, trained: dict[str, int]) -> None:
    """Log what a comparison matches, optimizer steps and pairs seen, as parameters of a cell's run."""
    client = _client(run.config.tracking)
    experiment_id = _experiment_id(client, run.config.tracking)
    found = _find(client, experiment_id, {"mars.run": run.identity, "mars.kind": "run"})
    if found:  # a parameter is set once: a cell that grew by a round keeps its first values
        known = found.data.params
        parameters = [Param(name, str(value)) for name, value in trained.items() if name not in known]
        client.log_batch(found.info.run_id, params=parameters)


@task(name="track result", task_run_name="track result", cache_policy=NO_CACHE, persist_result=False)
def track_comparison_result(
    config: TrackingConfig, run_id: str, folder: Path, means: dict[str, float], failed: bool
) -> None:
    """Log the arms' means and the report on the run of a comparison."""
    client = _client(config)
    now_ms = int(time.time() * 1000)
    _log(client, run_id, [Metric(name, value, now_ms, 0) for name, value in means.items()])
    for name in ("results.md", "results.json"):
        client.log_artifact(run_id, str(folder / name))
    client.log_artifacts(run_id, str(folder / "figures"), "figures")
    page = (folder / "results.md").read_text(encoding="utf-8")
    client.set_tag(run_id, "mlflow.note.content", page[:5000])
    client.set_terminated(run_id, status="FAILED" if failed else "FINISHED")


@task(name="registered model", task_run_name="{reference}", cache_policy=NO_CACHE, persist_result=False)
def registered_checkpoint(config: TrackingConfig, reference: str, folder: Path) -> str:
    """Fetch a registered model (models:/NAME@ALIAS or models:/NAME/VERSION); its checkpoint within a folder.

    MLflow keeps the tokenizer of a transformers model apart from its network; here they come together.

    Raises:
        TrackingError: there is no such model.
    """
    client = _client(config)
    try:
        with _fluent(client.tracking_uri):
            fetched = Path(mlflow.artifacts.download_artifacts(reference, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"{reference}: not to be had from MLflow at {client.tracking_uri}: {error}"
        ) from error
    tokenizer = fetched / "components" / "tokenizer"
    if not tokenizer.is_dir():
        return str(fetched)
    shutil.copytree(tokenizer, fetched / "model", dirs_exist_ok=True)
    return str(fetched / "model")


def run_page(config: TrackingConfig, run_id: str) -> str:
    """The address of a run's page, whoever started it.

    Raises:
        TrackingError: there is no such run.
    """
    try:
        return run_address(config, _client(config).get_run(run_id))
    except MlflowException as error:
        raise TrackingError(
            f"{tracking_uri(config)} has no run {run_id!r}; a run's id is on its page"
        ) from error


@task(name="track evaluation", task_run_name="track", cache_policy=NO_CACHE, persist_result=False)
def track_evaluation(
    config: TrackingConfig, run_id: str, figures: dict[str, float], files: list[Path]
) -> None:
    """Log figures as metrics of a run, and files under its artifacts' evaluation/."""
    client = _client(config)
    now_ms = int(time.time() * 1000)
    _log(
        client,
        run_id,
        [Metric(name, value, now_ms, 0) for name, value in figures.items() if math.isfinite(value)],
    )
    for file in files:
        client.log_artifact(run_id, str(file), "evaluation")


def run_address(config: TrackingConfig, run: Run) -> str:
    """The page of a run in MLflow; of a local store, as `mars ui` serves it."""
    uri = tracking_uri(config)
    server = uri if uri.startswith("http") else f"http://127.0.0.1:{LOCAL_PORT}"
    return f"{server.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def make_store(uri: str) -> None:
    """Make a local store that is not there yet, whole or not at all; a server's is the server's to make.

    MLflow makes its tables one after the other. Where that is interrupted, or two processes do it at once,
    it is left with a database that it can neither use nor mend.
    """
    store = _local_file(uri)
    if store is None or store.exists():
        return
    store.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{store}.lock"):
        if not store.exists():
            beside = Path(f"{store}.partial")
            beside.unlink(missing_ok=True)
            MlflowClient(SQLITE + str(beside)).search_experiments(max_results=1)
            beside.replace(store)


def _client(config: TrackingConfig) -> MlflowClient:
    uri = tracking_uri(config)
    make_store(uri)
    return MlflowClient(uri)


def _local_file(uri: str) -> Path | None:
    return Path(uri.removeprefix(SQLITE)).resolve() if uri.startswith(SQLITE) else None


def _artifact_location(uri: str) -> str | None:
    """Beside the database of a local store; a server knows itself where it keeps artifacts."""
    store = _local_file(uri)
    return (store.parent / LOCAL_ARTIFACTS).as_uri() if store else None


def _parameters(run: RunFolder) -> dict[str, Any]:
    """The resolved configuration by dotted keys, in the characters that MLflow takes."""
    values = flat(run.config.model_dump(mode="json"))
    return {re.sub(r"[^\w\-./ :]", "_", key): value for key, value in values.items()}


def _experiment_id(client: MlflowClient, config: TrackingConfig) -> str:
    """The MLflow experiment of the configuration, made where it is not there yet."""
    found = client.get_experiment_by_name(config.experiment)
    if found:
        return found.experiment_id
    location = _artifact_location(tracking_uri(config))
    return client.create_experiment(config.experiment, artifact_location=location)


def _find(client: MlflowClient, experiment_id: str, tags: dict[str, str]) -> Run | None:
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = client.search_runs([experiment_id], filter_string=wanted, max_results=1)
    return found[0] if found else None


def _dataset(run: RunFolder, name: str, part: ArtifactRef) -> DatasetInput:
    sources = run.config.evaluation if name in BENCHMARKS else run.config.data
    source = getattr(sources, name) or run.config.data.train
    dataset = Dataset(
        name=name,
        digest=part.sha256[:36],
        source_type="mars",
        source=json.dumps({"source": source, "artifact": part.uri}),
        profile=json.dumps({"rows" if name in BENCHMARKS else "pairs": part.rows}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", name)])


def _time_ms(file: Path) -> int:
    return file.stat().st_mtime_ns // 1_000_000


def _training_curve(file: Path) -> list[Metric]:
    time_ms = _time_ms(file)
    names = (
        "loss", "accuracy", "margin", "learning_rate", "tokens_per_second", "padding", "gradient_norm",
        "validation_loss",
    )  # fmt: skip
    return [
        Metric(f"training/{name}", figures[name], time_ms, figures["step"])
        for figures in map(json.loads, file.read_text().splitlines())
        for name in names
        if name in figures
    ]


def _log(client: MlflowClient, run_id: str, metrics: list[Metric]) -> None:
    for start in range(0, len(metrics), METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_AT_ONCE])


@contextmanager
def _fluent(uri: str) -> Iterator[None]:
    """Point MLflow's fluent API to a store for the length of a `with` block, and leave no trace of it.

    MLflow keeps the address in the environment, where the next run of this process would take it for its own.
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def log_model(client: MlflowClient, run: RunFolder, run_id: str, model: ArtifactRef) -> str:
    """Log a checkpoint, once, as an MLflow model that `mlflow.transformers.load_model` loads; its id.

    The network and its tokenizer are handed over in memory: MLflow's way of logging a folder asks
    transformers 5 for a pipeline in a form that it no longer has.
    """
    tags = client.get_run(run_id).data.tags
    if tags.get("mars.model") == model.sha256 and "mars.model.id" in tags:
        return tags["mars.model.id"]
    loaded = RewardModel.load(str(run.path(model)), ModelConfig(device="cpu"))
    with _fluent(client.tracking_uri), mlflow.start_run(run_id=run_id):
        logged = mlflow.transformers.log_model(
            transformers_model={"model": loaded.network, "tokenizer": loaded.tokenizer},
            name="reward_model",
            task="text-classification",
            pip_requirements=["torch", "transformers"],
        )
    client.set_tag(run_id, "mars.model.id", logged.model_id)
    client.set_tag(run_id, "mars.model", model.sha256)
    return logged.model_id
