"""MLflow: one parent run for each run folder, with one child run for each round.

Sending is a separate step and may be repeated: a run is found again by the identity of its folder, and only
what MLflow lacks is sent, so that a server that was down for a while gets everything in the end. An
interrupted send leaves no duplicate rows: a metric has the timestamp of its file, and MLflow keeps equal rows
once. Everything goes through a client and a run id, except models, which need MLflow's fluent API: that API's
active run belongs to a thread, and would start stray runs.
"""

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from prefect import task
from prefect.cache_policies import NO_CACHE

from mars_core.config import flat, public
from mars_core.files import digest
from mars_core.report.wording import share
from tasks.run import prefect_api
from tasks.run.round_metrics import best_round, read_metrics
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.sources import LEFT_OUT
from tasks.tracking.logged_models import log_model
from tasks.tracking.mlflow_runs import (
    experiment_id_of,
    find_run,
    flow_run_tags,
    link_tracking,
    log_metrics,
    note_of,
    prefect_link,
    run_address,
)
from tasks.tracking.mlflow_store import (
    Delivery,
)

PARAMETERS_AT_ONCE = 100
"""Most parameters in one request to MLflow."""
HEADLINES = (
    "validation/accuracy", "heldout/accuracy", "heldout/accuracy_low", "heldout/accuracy_high",
    "heldout/mean_margin", "heldout/snr", "heldout/brier", "heldout/calibration_error",
    "robustness/robust_accuracy", "robustness/robust_accuracy_low", "robustness/robust_accuracy_high",
    "contamination/heldout/exact", "contamination/heldout/near", "contamination/heldout/accuracy",
    "curvature/beta", "curvature/mean_gain", "curvature/worst_gain", "curvature/gamma_curv/0.5",
)  # fmt: skip
"""Metrics of the parent run, besides those of benchmarks: as curves over rounds, and as the result."""
Track = Callable[..., None]


@contextmanager
def tracked(run: RunFolder) -> Iterator[Track]:
    """Send a run to MLflow during a `with` block, and mark it as failed if that raises an exception.

    Without a flow run nothing is sent: the run is a cell on another node, and its comparison sends it.
    Yields a function to call with the number of finished rounds, and with `ended=True` when all is written.

    Raises:
        TrackingError: at the start, MLflow refuses the data for a reason that waiting does not change.
    """
    if not prefect_api.has_flow_run():  # whoever started it has the folder, and the rights to send it
        yield lambda *args, **keys: None
        return
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
    """Send what MLflow lacks of a run's folder; link its page once it exists."""

    def send(client: MlflowClient) -> str:
        return run_address(delivery.config, send_run(client, run, rounds, ended=ended))

    page = delivery.attempt(send, first=first)
    if page and page != delivery.page:
        link_tracking(page)
        delivery.page = page


def send_run(client: MlflowClient, run: RunFolder, rounds: int, *, ended: bool = False) -> Run:
    """Update MLflow from a run's folder: the run, its first `rounds` rounds, and its result if it has ended.

    Returns:
        The parent run.
    """
    experiment_id = experiment_id_of(client, run.config.tracking)
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
    # MLflow sets a parameter once: an operational key keeps the value of the first start, and
    # config.yaml among the artifacts has the present one.
    parameters = [
        Param(key, str(value)[:6000])
        for key, value in _parameters(run).items()
        if key not in parent.data.params
    ]
    for start in range(0, len(parameters), PARAMETERS_AT_ONCE):
        client.log_batch(run_id, params=parameters[start : start + PARAMETERS_AT_ONCE])
    client.log_inputs(run_id, [_dataset(run, name, part) for name, part in sets.items()])
    resolved = yaml.safe_dump(public(config), sort_keys=False, allow_unicode=True)
    client.log_text(run_id, resolved, "config.yaml")
    described = {"mlflow.note.content": f"Self-refinement in {config.rounds} rounds. {prefect_link()}"}
    for name, value in (tags | described | flow_run_tags()).items():
        client.set_tag(run_id, name, value)
    client.update_run(run_id, status="RUNNING")
    client.set_tag(run_id, "mars.started", this_start)
    return client.get_run(run_id)


def _send_round(client: MlflowClient, run: RunFolder, t: int, parent: Run, known: Run | None) -> None:
    """Send a round as a child run; if MLflow has it, send only a missing model."""
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
        metrics_of_round = {name: value for name, value in run.json(metrics).items() if value is not None}
        time_ms = _time_ms(run.path(metrics))
        rows = [Metric(name, value, time_ms, t) for name, value in metrics_of_round.items()]
        log_metrics(client, run_id, rows)
        log_metrics(client, parent.info.run_id, [row for row in rows if row.key in headlines_of(run)])
        curve = run.path(run.of_round(t).training)
        if curve.exists():
            log_metrics(client, run_id, _training_curve(curve))
        client.log_artifact(run_id, str(run.path(metrics)))
        described = {"mlflow.note.content": f"{_round_in_words(run, metrics_of_round)} {prefect_link()}"}
        for name, value in (described | flow_run_tags()).items():
            client.set_tag(run_id, name, value)
        client.set_terminated(run_id)
        client.set_tag(run_id, "mars.logged", metrics.sha256)
    if run.config.tracking.models == "all" and run.path(run.of_round(t).model).exists():
        log_model(client, run, child, t)  # a comparison may have removed it before `tracking.models` was all
        client.set_terminated(run_id)


def _send_result(client: MlflowClient, run: RunFolder, finished: int, parent: Run) -> None:
    """Send the metrics and the model of the best round, and the report, to the parent run."""
    run_id = parent.info.run_id
    rounds = read_metrics(run)[:finished]
    fixed = run.config.evaluation.benchmark_rounds == "last"
    t = finished - 1 if fixed else best_round(rounds)
    result = {name: rounds[t][name] for name in headlines_of(run) if name in rounds[t]} | {"round": float(t)}
    report = run.path("report.md").read_text(encoding="utf-8")
    ended = digest(report, result, parent.data.tags.get("mars.started"))
    if parent.data.tags.get("mars.ended") != ended:
        now_ms = int(time.time() * 1000)
        log_metrics(
            client,
            run_id,
            [
                Metric(f"result/{name}", value, now_ms, 0)
                for name, value in result.items()
                if math.isfinite(value) and parent.data.metrics.get(f"result/{name}") != value
            ],
        )
        client.log_artifact(run_id, str(run.path("report.md")))
        if run.path("figures").exists():  # cells of a comparison have none
            client.log_artifacts(run_id, str(run.path("figures")), "figures")
        client.set_tag(run_id, "mlflow.note.content", note_of(report))
    if run.config.tracking.models == "best":
        log_model(client, run, parent, t)
    client.set_terminated(run_id)
    client.set_tag(run_id, "mars.ended", ended)


def _mark_failed(client: MlflowClient, run: RunFolder) -> None:
    experiment_id = experiment_id_of(client, run.config.tracking)
    parent = find_run(client, experiment_id, {"mars.run": run.identity, "mars.kind": "run"})
    if parent:
        client.set_terminated(parent.info.run_id, status="FAILED")


def headlines_of(run: RunFolder) -> tuple[str, ...]:
    """Metrics of the parent run: `HEADLINES`, and headline and sections of each benchmark."""
    suite = run.config.evaluation.suite
    return HEADLINES + tuple(
        f"{key}/{score}" for key, one in suite.items() for score in (one.headline, *one.sections)
    )


def _round_in_words(run: RunFolder, metrics: dict[str, float]) -> str:
    suite = run.config.evaluation.suite
    names = {"validation/accuracy": "validation", "heldout/accuracy": "held-out"}
    names |= {f"{key}/{one.headline}": one.title for key, one in suite.items()}
    shares = [f"{name} {share(metrics[key])}" for key, name in names.items() if key in metrics]
    return f"Accuracy: {', '.join(shares)}."


def _parameters(run: RunFolder) -> dict[str, Any]:
    """The resolved configuration by dotted keys, in characters that MLflow accepts."""
    values = flat(public(run.config))
    return {re.sub(r"[^\w\-./ :]", "_", key): value for key, value in values.items()}


def _sets(run: RunFolder) -> dict[str, ArtifactRef]:
    """The three sets and the rows of each benchmark, as their steps recorded them."""
    benchmarks = run.outputs("benchmarks") if run.config.evaluation.benchmarks else {}
    pairs = {name: part for name, part in run.outputs("prepare").items() if name != LEFT_OUT}
    return pairs | benchmarks


def _dataset(run: RunFolder, name: str, part: ArtifactRef) -> DatasetInput:
    benchmarks = run.config.evaluation.sources
    source = benchmarks.get(name) or getattr(run.config.data, name) or run.config.data.train
    dataset = Dataset(
        name=name,
        digest=part.sha256[:36],
        source_type="mars",
        source=json.dumps({"source": source, "artifact": part.uri}),
        profile=json.dumps({"rows" if name in benchmarks else "pairs": part.rows}),
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
        Metric(f"training/{name}", of_step[name], time_ms, of_step["step"])
        for of_step in map(json.loads, file.read_text().splitlines())
        for name in names
        if name in of_step
    ]
