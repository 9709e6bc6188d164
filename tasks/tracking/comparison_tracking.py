"""MLflow: the run of a comparison, which is the parent of its cells' runs."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.run.run_config import TrackingConfig
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
from tasks.tracking.mlflow_store import (
    Delivery,
)
from tasks.tracking.run_tracking import send_run

Cell = tuple[RunFolder, dict[str, int]]
"""A finished cell: its run, and its optimizer steps and pairs seen over all rounds."""


class ComparisonTracking:
    """A comparison in MLflow: a run that is the parent of its cells' runs."""

    def __init__(self, name: str, identity: str, config: TrackingConfig, root: Path) -> None:
        """Track the comparison in the folder `root`; `identity` is unique to that folder."""
        self.name, self.identity, self.config = name, identity, config
        self.delivery = Delivery(config, root)
        self.parent: str | None = None
        """Id of the comparison's run; None while MLflow is not available."""

    def start(self, client: MlflowClient) -> str:
        """Find or start the comparison's run. Returns its id."""
        experiment_id = experiment_id_of(client, self.config)
        tags = {"mars.run": self.identity, "mars.kind": "comparison"}
        found = find_run(client, experiment_id, tags)
        run = found or client.create_run(experiment_id, run_name=self.name, tags=tags)
        run_id: str = run.info.run_id
        for name, value in flow_run_tags().items():
            client.set_tag(run_id, name, value)
        client.update_run(run_id, status="RUNNING")
        return run_id

    def end(self, client: MlflowClient, cells: Sequence[Cell], means: dict[str, float], status: str) -> str:
        """Send the missing data of finished cells, the arms' means, and the report; returns its page's
        address."""
        run_id = self.start(client)
        for run, trained in cells:
            tracking = run.config.tracking.model_copy(update={"parent": run_id})
            shown_under = RunFolder(run.root, run.config.model_copy(update={"tracking": tracking}))
            sent = send_run(client, shown_under, run.config.rounds + 1, ended=True)
            # A parameter is set once: a cell that grew by a round keeps its first values.
            missing = [Param(name, str(n)) for name, n in trained.items() if name not in sent.data.params]
            client.log_batch(sent.info.run_id, params=missing)
        now_ms = int(time.time() * 1000)
        log_metrics(client, run_id, [Metric(name, value, now_ms, 0) for name, value in means.items()])
        folder = self.delivery.folder
        for name in ("results.md", "results.json"):
            client.log_artifact(run_id, str(folder / name))
        client.log_artifacts(run_id, str(folder / "figures"), "figures")
        page = (folder / "results.md").read_text(encoding="utf-8")
        client.set_tag(run_id, "mlflow.note.content", note_of(page))
        client.set_terminated(run_id, status=status)
        return run_address(self.config, client.get_run(run_id))


@contextmanager
def tracked_comparison(
    name: str, identity: str, config: TrackingConfig, root: Path
) -> Iterator[ComparisonTracking]:
    """Show a comparison in MLflow during a `with` block, as failed if that raises an exception.

    Raises:
        TrackingError: at the start, MLflow refuses the data for a reason that waiting does not change.
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
    """Send the start of a comparison to MLflow."""
    tracking.parent = tracking.delivery.attempt(tracking.start, first=True)


@task(name="track result", task_run_name="track result", cache_policy=NO_CACHE, persist_result=False)
def track_comparison_result(
    tracking: ComparisonTracking, cells: Sequence[Cell], means: dict[str, float], failed: bool
) -> None:
    """Send the arms' means, the report, and missing data of finished cells to MLflow; link its page."""
    status = "FAILED" if failed else "FINISHED"
    page = tracking.delivery.attempt(lambda client: tracking.end(client, cells, means, status))
    if page:
        link_tracking(page)
