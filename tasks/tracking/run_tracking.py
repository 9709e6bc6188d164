"""MLflow: one parent run a run folder, one child run a round; what of a folder is sent there, and when.

Sending is a step of its own and may be repeated: a run is found again by the identity of its folder, and what
MLflow has of it is left alone. Each time everything is sent that is missing, so that a server which was away
for a while gets all in the end. A sending that was cut short leaves no double rows either: a metric bears the
time of the file it is read from, and MLflow keeps equal rows once. Everything but a model, which MLflow takes
no other way, goes through a client and a run id: the fluent API's active run belongs to a thread and would
start stray runs.
"""

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from mars_core.evaluation.suite import BENCHMARKS, sources
from mars_core.experiment import TrackingConfig, flat
from mars_core.files import digest
from mars_core.model.reward_model import ModelConfig, RewardModel
from mars_core.report.wording import share, without_figures
from tasks.processes.addresses import shown
from tasks.run.prefect_api import tolerated
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.steps.summarise_round import best_round, read_metrics
from tasks.tracking.mlflow_store import (
    LOCAL_PORT,
    Delivery,
    TrackingError,
    artifact_location,
    fluent,
    reached,
    told,
    tracking_uri,
)

METRICS_AT_ONCE, PARAMETERS_AT_ONCE = 1000, 100
"""Most of one request to MLflow."""
NOTE_LENGTH = 5000
"""Most of a description in MLflow, in characters."""
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Lets MLflow open an experiment with its runs and charts, and not with its pages for chat applications."""
HEADLINES = (
    "validation/accuracy", "heldout/accuracy", "heldout/accuracy_low", "heldout/accuracy_high",
    "heldout/mean_margin", "heldout/snr", "heldout/brier", "heldout/calibration_error", "rewardbench/total",
    "rewardbench/section/chat", "rewardbench/section/chat-hard", "rewardbench/section/safety",
    "rewardbench/section/reasoning", "rewardbench2/total", "contamination/heldout/exact",
    "contamination/heldout/near", "contamination/heldout/accuracy", "curvature/beta", "curvature/mean_gain",
    "curvature/worst_gain", "curvature/gamma_curv/0.5",
)  # fmt: skip
"""Figures that the parent carries: as curves over rounds, and as the result of the best round."""
Track = Callable[..., None]
Cell = tuple[RunFolder, dict[str, int]]
"""A finished cell: its run, and its optimizer steps and pairs seen over all rounds."""


@contextmanager
def tracked(run: RunFolder) -> Iterator[Track]:
    """Send a run to MLflow as it goes on in a `with` block, and as failed if that ends by an exception.

    Yields a function that is told how many rounds are finished, and by `ended=True` that all is written.

    Raises:
        TrackingError: at the beginning, MLflow refuses what no waiting will make it take.
    """
    delivery = Delivery(run.config.tracking, run.root)

    def track(rounds: int = 0, *, ended: bool = False, first: bool = False) -> None:
        title = "track run" if first else "track result" if ended else f"round {rounds - 1} · track"
        _track(title, delivery, run, rounds, ended=ended, first=first)

    track(first=True)
    try:
        yield track
    except BaseException:
        delivery.attempt(lambda client: _mark_failed(client, run))
        raise
    finally:
        delivery.close()


@task(name="track", task_run_name="{title}", cache_policy=NO_CACHE, persist_result=False)
def _track(title: str, delivery: Delivery, run: RunFolder, rounds: int, *, ended: bool, first: bool) -> None:
    """Send MLflow what it has not got of a run's folder; link its page when that is first there."""

    def send(client: MlflowClient) -> str:
        return run_address(delivery.config, send_run(client, run, rounds, ended=ended))

    page = delivery.attempt(send, first=first)
    if page and page != delivery.page:
        link_tracking(page)
        delivery.page = page


def send_run(client: MlflowClient, run: RunFolder, rounds: int, *, ended: bool = False) -> Run:
    """Bring MLflow up to a run's folder: the run, its first rounds, and its result if it has ended.

    Returns:
        The parent run.
    """
    experiment_id = _experiment_id(client, run.config.tracking)
    found = client.search_runs([experiment_id], f"tags.`mars.run` = '{run.identity}'")
    known = {known.data.tags.get("mars.round", ""): known for known in found}
    parent = _send_start(client, run, experiment_id, known.get(""))
    for t in range(rounds):
        _send_round(client, run, t, parent, known.get(str(t)))
    if ended:
        _send_result(client, run, rounds, parent)
    return client.get_run(parent.info.run_id)


def _send_start(client: MlflowClient, run: RunFolder, experiment_id: str, known: Run | None) -> Run:
    """Find or start the parent run; sends the configuration, the three sets and benchmarks."""
    config = run.config
    tags = {"mars.run": run.identity, "mars.kind": "run", "mars.folder": str(run.root)} | config.tracking.tags
    if config.tracking.parent:
        tags["mlflow.parentRunId"] = config.tracking.parent
    parent = known or client.create_run(experiment_id, run_name=config.name, tags=tags)
    run_id = parent.info.run_id
    sets = _sets(run)
    this_start = digest(run.path("config.yaml").read_text(), [part.sha256 for part in sets.values()], tags)
    if parent.data.tags.get("mars.started") == this_start:
        return parent
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
    described = {"mlflow.note.content": f"Self-refinement in {config.rounds} rounds. {_prefect_link()}"}
    for name, value in (tags | described | _flow_run()).items():
        client.set_tag(run_id, name, value)
    client.update_run(run_id, status="RUNNING")
    client.set_tag(run_id, "mars.started", this_start)
    return client.get_run(run_id)


def _send_round(client: MlflowClient, run: RunFolder, t: int, parent: Run, known: Run | None) -> None:
    """Send a round as a child run; one that MLflow has is left alone, but for a model that it lacks."""
    metrics = run.outputs(f"round-{t}-metrics")[""]
    child = known or client.create_run(
        parent.info.experiment_id,
        run_name=f"{run.config.name} · round {t}",
        tags={
            "mars.run": run.identity,
            "mars.kind": "round",
            "mars.round": str(t),
            "mlflow.parentRunId": parent.info.run_id,
        },
    )
    run_id = child.info.run_id
    if child.data.tags.get("mars.logged") != metrics.sha256:
        figures = {name: value for name, value in run.json(metrics).items() if value is not None}
        time_ms = _time_ms(run.path(metrics))
        rows = [Metric(name, value, time_ms, t) for name, value in figures.items()]
        _log(client, run_id, rows)
        _log(client, parent.info.run_id, [row for row in rows if row.key in HEADLINES])
        curve = run.path(f"round-{t}/training.jsonl")
        if curve.exists():
            _log(client, run_id, _training_curve(curve))
        client.log_artifact(run_id, str(run.path(metrics)))
        described = {"mlflow.note.content": f"{_round_in_words(figures)} {_prefect_link()}"}
        for name, value in (described | _flow_run()).items():
            client.set_tag(run_id, name, value)
        client.set_terminated(run_id)
        client.set_tag(run_id, "mars.logged", metrics.sha256)
    if run.config.tracking.models == "all" and run.path(f"round-{t}/model").exists():
        log_model(client, run, child, t)  # a comparison may have made room before it was to keep all
        client.set_terminated(run_id)


def _send_result(client: MlflowClient, run: RunFolder, finished: int, parent: Run) -> None:
    """Send the figures and model of the round that counts, and the report, to the parent."""
    run_id = parent.info.run_id
    rounds = read_metrics(run)[:finished]
    fixed = run.config.evaluation.benchmark_rounds == "last"
    t = finished - 1 if fixed else best_round(rounds)
    result = {name: rounds[t][name] for name in HEADLINES if name in rounds[t]} | {"round": float(t)}
    report = run.path("report.md").read_text(encoding="utf-8")
    ended = digest(report, result, parent.data.tags.get("mars.started"))
    if parent.data.tags.get("mars.ended") != ended:
        now_ms = int(time.time() * 1000)
        _log(
            client,
            run_id,
            [
                Metric(f"result/{name}", value, now_ms, 0)
                for name, value in result.items()
                if math.isfinite(value) and parent.data.metrics.get(f"result/{name}") != value
            ],
        )
        client.log_artifact(run_id, str(run.path("report.md")))
        if run.path("figures").exists():  # of a comparison's cells none are drawn
            client.log_artifacts(run_id, str(run.path("figures")), "figures")
        client.set_tag(run_id, "mlflow.note.content", _note(report))
    if run.config.tracking.models == "best":
        log_model(client, run, parent, t)
    client.set_terminated(run_id)
    client.set_tag(run_id, "mars.ended", ended)


def _mark_failed(client: MlflowClient, run: RunFolder) -> None:
    experiment_id = _experiment_id(client, run.config.tracking)
    parent = _find(client, experiment_id, {"mars.run": run.identity, "mars.kind": "run"})
    if parent:
        client.set_terminated(parent.info.run_id, status="FAILED")


class ComparisonTracking:
    """What MLflow gets of a comparison: a run under which those of its cells are shown."""

    def __init__(self, name: str, identity: str, config: TrackingConfig, root: Path) -> None:
        """Of the comparison in the folder `root`, which no other folder has the identity of."""
        self.name, self.identity, self.config = name, identity, config
        self.delivery = Delivery(config, root)
        self.parent: str | None = None
        """Id of the comparison's run; None while MLflow is away."""

    def start(self, client: MlflowClient) -> str:
        """Find or start the comparison's run. Returns its id."""
        experiment_id = _experiment_id(client, self.config)
        tags = {"mars.run": self.identity, "mars.kind": "comparison"}
        found = _find(client, experiment_id, tags)
        run = found or client.create_run(experiment_id, run_name=self.name, tags=tags)
        run_id: str = run.info.run_id
        for name, value in _flow_run().items():
            client.set_tag(run_id, name, value)
        client.update_run(run_id, status="RUNNING")
        return run_id

    def end(self, client: MlflowClient, cells: Sequence[Cell], means: dict[str, float], status: str) -> str:
        """Send what is missing of finished cells, the arms' means, and the report; its page's address."""
        run_id = self.start(client)
        for run, trained in cells:
            tracking = run.config.tracking.model_copy(update={"parent": run_id})
            shown_under = RunFolder(run.root, run.config.model_copy(update={"tracking": tracking}))
            sent = send_run(client, shown_under, run.config.rounds + 1, ended=True)
            # A parameter is set once: a cell that grew by a round keeps its first values.
            missing = [Param(name, str(n)) for name, n in trained.items() if name not in sent.data.params]
            client.log_batch(sent.info.run_id, params=missing)
        now_ms = int(time.time() * 1000)
        _log(client, run_id, [Metric(name, value, now_ms, 0) for name, value in means.items()])
        folder = self.delivery.folder
        for name in ("results.md", "results.json"):
            client.log_artifact(run_id, str(folder / name))
        client.log_artifacts(run_id, str(folder / "figures"), "figures")
        page = (folder / "results.md").read_text(encoding="utf-8")
        client.set_tag(run_id, "mlflow.note.content", _note(page))
        client.set_terminated(run_id, status=status)
        return run_address(self.config, client.get_run(run_id))


@contextmanager
def tracked_comparison(
    name: str, identity: str, config: TrackingConfig, root: Path
) -> Iterator[ComparisonTracking]:
    """Show a comparison in MLflow for the length of a `with` block; failed if that ends by an exception.

    Raises:
        TrackingError: at the beginning, MLflow refuses what no waiting will make it take.
    """
    tracking = ComparisonTracking(name, identity, config, root)
    _track_comparison(tracking)
    try:
        yield tracking
    except BaseException:
        tracking.delivery.attempt(
            lambda client: client.set_terminated(tracking.start(client), status="FAILED")
        )
        raise
    finally:
        tracking.delivery.close()


@task(name="track comparison", task_run_name="track comparison", cache_policy=NO_CACHE, persist_result=False)
def _track_comparison(tracking: ComparisonTracking) -> None:
    """Send MLflow the beginning of a comparison."""
    tracking.parent = tracking.delivery.attempt(tracking.start, first=True)


@task(name="track result", task_run_name="track result", cache_policy=NO_CACHE, persist_result=False)
def track_comparison_result(
    tracking: ComparisonTracking, cells: Sequence[Cell], means: dict[str, float], failed: bool
) -> None:
    """Send MLflow the arms' means and the report, and what it lacks of finished cells; link its page."""
    status = "FAILED" if failed else "FINISHED"
    page = tracking.delivery.attempt(lambda client: tracking.end(client, cells, means, status))
    if page:
        link_tracking(page)


@task(name="registered model", task_run_name="{reference}", cache_policy=NO_CACHE, persist_result=False)
def registered_checkpoint(config: TrackingConfig, reference: str, folder: Path) -> str:
    """Fetch a registered model (models:/NAME@ALIAS or models:/NAME/VERSION); its checkpoint within a folder.

    MLflow keeps the tokenizer of a transformers model apart from its network; here they come together.

    Raises:
        TrackingError: there is no such model.
    """
    try:
        with fluent(reached(config).tracking_uri):
            fetched = Path(mlflow.artifacts.download_artifacts(reference, dst_path=str(folder)))
    except Exception as error:  # stores of artifacts raise many kinds
        raise TrackingError(
            f"{reference}: not to be had; MLflow at {shown(tracking_uri(config))} {told(error)}"
        ) from error
    tokenizer = fetched / "components" / "tokenizer"
    if not tokenizer.is_dir():
        return str(fetched)
    shutil.copytree(tokenizer, fetched / "model", dirs_exist_ok=True)
    return str(fetched / "model")


def run_page(config: TrackingConfig, run_id: str) -> str:
    """The address of a run's page, whoever started it.

    Raises:
        TrackingError: there is no such run, or MLflow is away.
    """
    address = shown(tracking_uri(config))
    try:
        return run_address(config, reached(config).get_run(run_id))
    except Exception as error:
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            raise TrackingError(f"{address} has no run {run_id!r}; a run's id is on its page") from error
        raise TrackingError(
            f"the run {run_id!r} cannot be looked for: MLflow at {address} {told(error)}"
        ) from error


@task(name="track evaluation", task_run_name="track", cache_policy=NO_CACHE, persist_result=False)
def track_evaluation(
    config: TrackingConfig, run_id: str, figures: dict[str, float], files: list[Path]
) -> None:
    """Log figures as metrics evaluation/… of a run, apart from those of its rounds, and files beside them.

    Raises:
        TrackingError: MLflow does not take them; they lie in the files.
    """

    def send(client: MlflowClient) -> None:
        now_ms = int(time.time() * 1000)
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        _log(
            client, run_id, [Metric(f"evaluation/{name}", value, now_ms, 0) for name, value in finite.items()]
        )
        for file in files:
            client.log_artifact(run_id, str(file), "evaluation")

    try:
        send(reached(config))
    except Exception as error:
        raise TrackingError(
            f"MLflow at {shown(tracking_uri(config))} {told(error)}; all figures are in {files[-1]}"
        ) from error


def run_address(config: TrackingConfig, run: Run) -> str:
    """The page of a run in MLflow; of a local store, as `mars ui` serves it."""
    uri = tracking_uri(config)
    server = uri if uri.startswith("http") else f"http://127.0.0.1:{LOCAL_PORT}"
    return f"{shown(server).rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def link_tracking(address: str) -> None:
    """Put a page of MLflow one click away in Prefect."""
    with tolerated():
        create_link_artifact(key="mlflow", link=address, link_text="This run in MLflow")


def _flow_run() -> dict[str, str]:
    """The Prefect flow run that sends, as tags."""
    return {"prefect.flow_run": str(flow_run.id), "prefect.url": str(flow_run.ui_url)}


def _prefect_link() -> str:
    return f"[This run in Prefect]({flow_run.ui_url})" if flow_run.ui_url else ""


def _note(page: str) -> str:
    """A page as the description of an MLflow run: whole paragraphs, and the link to Prefect before them."""
    text = f"{_prefect_link()}\n\n{without_figures(page)}".strip()
    return text if len(text) <= NOTE_LENGTH else text[:NOTE_LENGTH].rpartition("\n\n")[0]


def _round_in_words(figures: dict[str, float]) -> str:
    names = {
        "validation/accuracy": "validation",
        "heldout/accuracy": "held-out",
        "rewardbench/total": "RewardBench",
    }
    shares = [f"{name} {share(figures[key])}" for key, name in names.items() if key in figures]
    return f"Accuracy: {', '.join(shares)}."


def _parameters(run: RunFolder) -> dict[str, Any]:
    """The resolved configuration by dotted keys, in the characters that MLflow takes."""
    values = flat(run.config.model_dump(mode="json"))
    return {re.sub(r"[^\w\-./ :]", "_", key): value for key, value in values.items()}


def _experiment_id(client: MlflowClient, config: TrackingConfig) -> str:
    """The MLflow experiment of the configuration, made where it is not there yet."""
    found = client.get_experiment_by_name(config.experiment)
    if found:
        return found.experiment_id
    location = artifact_location(tracking_uri(config))
    return client.create_experiment(config.experiment, artifact_location=location, tags=KIND)


def _find(client: MlflowClient, experiment_id: str, tags: dict[str, str]) -> Run | None:
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = client.search_runs([experiment_id], filter_string=wanted, max_results=1)
    return found[0] if found else None


def _sets(run: RunFolder) -> dict[str, ArtifactRef]:
    """The three sets and the rows of each benchmark, as their steps recorded them."""
    benchmarks = run.outputs("benchmarks") if sources(run.config.evaluation) else {}
    return run.outputs("prepare") | benchmarks


def _dataset(run: RunFolder, name: str, part: ArtifactRef) -> DatasetInput:
    section = run.config.evaluation if name in BENCHMARKS else run.config.data
    source = getattr(section, name) or run.config.data.train
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


def log_model(client: MlflowClient, run: RunFolder, to: Run, t: int) -> str:
    """Send a round's checkpoint, once, as an MLflow model for `mlflow.transformers.load_model`; its id.

    The network and its tokenizer are handed over in memory: MLflow's way of logging a folder asks
    transformers 5 for a pipeline in a form that it no longer has.
    """
    step = "fit" if run.path(f".steps/round-{t}-fit.json").exists() else "adopt"
    model = run.outputs(f"round-{t}-{step}")[""]
    if to.data.tags.get("mars.model") == model.sha256 and "mars.model.id" in to.data.tags:
        return to.data.tags["mars.model.id"]
    loaded = RewardModel.load(str(run.path(model)), ModelConfig(device="cpu"))
    with fluent(client.tracking_uri), mlflow.start_run(run_id=to.info.run_id):
        logged = mlflow.transformers.log_model(
            transformers_model={"model": loaded.network, "tokenizer": loaded.tokenizer},
            name="reward_model",
            task="text-classification",
            pip_requirements=["torch", "transformers"],
        )
    client.set_tag(to.info.run_id, "mars.model.id", logged.model_id)
    client.set_tag(to.info.run_id, "mars.model", model.sha256)
    return logged.model_id
