"""MLflow: one run for each alignment."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric
from prefect import task
from prefect.cache_policies import NO_CACHE

from mars_core.alignment.policy_changes import Trained, metrics_of_changes
from mars_core.config import public
from tasks.run.align_config import AlignConfig
from tasks.run.run_folder import RunFolder
from tasks.tracking.mlflow_runs import (
    experiment_id_of,
    find_run,
    flow_run_tags,
    link_tracking,
    log_metrics,
    note_of,
    run_address,
)
from tasks.tracking.mlflow_store import Delivery

CURVE = ("loss", "grad_norm", "reward", "kl", "completions/mean_length")
"""What is shown of the training curve; the latter three are logged by methods that sample in training."""


@task(name="track", task_run_name="track", cache_policy=NO_CACHE, persist_result=False)
def track_alignment(
    run: RunFolder[AlignConfig], metrics: dict[str, float], trained: Trained | None, files: list[Path]
) -> None:
    """Send the metrics and files of a folder, to the same MLflow run whenever it is started again; those of
    training by optimizer step."""

    def send(client: MlflowClient) -> str:
        experiment_id = experiment_id_of(client, run.config.tracking)
        tags = {"mars.run": run.identity, "mars.kind": "alignment"}
        found = find_run(client, experiment_id, tags)
        if found is None:
            described = tags | {"mars.folder": str(run.root)} | run.config.tracking.tags
            if run.config.tracking.parent:
                described["mlflow.parentRunId"] = run.config.tracking.parent
            found = client.create_run(experiment_id, run_name=run.config.name, tags=described)
        run_id = found.info.run_id
        # The time of what was measured: MLflow keeps equal rows once, however often it is sent.
        measured_ms = int(run.path(run.of_round(0).best_of_n).stat().st_mtime * 1000)
        by_step = [(0, metrics), *_of_training(run, trained)]
        measured = [
            Metric(name, value, measured_ms, step)
            for step, values in by_step
            for name, value in values.items()
            if math.isfinite(value)
        ]
        log_metrics(client, run_id, measured)
        for file in files:
            client.log_artifact(run_id, str(file))
        resolved = yaml.safe_dump(public(run.config), sort_keys=False, allow_unicode=True)
        client.log_text(run_id, resolved, "config.yaml")
        note = {"mlflow.note.content": note_of(files[0].read_text(encoding="utf-8"))}
        for name, value in (note | flow_run_tags()).items():
            client.set_tag(run_id, name, value)
        client.set_terminated(run_id)
        return run_address(run.config.tracking, found)

    delivery = Delivery(run.config.tracking, run.root)
    try:
        page = delivery.attempt(send)
        if page:
            link_tracking(page)
    finally:
        delivery.close()


def _of_training(
    run: RunFolder[AlignConfig], trained: Trained | None
) -> Iterator[tuple[int, dict[str, float]]]:
    """Optimizer step → metrics: of the training curve, and of the evaluations."""
    if trained is None:
        return
    last = run.path(run.of_round(len(trained.evaluations)).training)
    for entry in map(json.loads, last.read_text().splitlines()):
        yield entry["step"], {f"training/{name}": entry[name] for name in CURVE if name in entry}
    for steps, table in trained.evaluations.items():
        yield steps, metrics_of_changes(table)
