"""MLflow: the metrics of one evaluation, in an existing run."""

import math
import time
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric
from prefect import task
from prefect.cache_policies import NO_CACHE

from mars_core.config import redact
from tasks.run.run_config import TrackingConfig
from tasks.tracking.mlflow_runs import log_metrics, run_address
from tasks.tracking.mlflow_store import (
    TrackingError,
    reached,
    told,
    tracking_uri,
)


def run_page(config: TrackingConfig, run_id: str) -> str:
    """The address of a run's page, for any run.

    Raises:
        TrackingError: there is no such run, or MLflow is not available.
    """
    address = redact(tracking_uri(config))
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
    config: TrackingConfig, run_id: str, metrics: dict[str, float], files: list[Path], part: str = ""
) -> None:
    """Log metrics of a run as evaluation/…, separate from those of its rounds, and the files.

    Of one model among several they are evaluation/PART/….

    Raises:
        TrackingError: MLflow does not accept them; the files have them.
    """

    def send(client: MlflowClient) -> None:
        place = f"evaluation/{part}" if part else "evaluation"
        now_ms = int(time.time() * 1000)
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        log_metrics(
            client, run_id, [Metric(f"{place}/{name}", value, now_ms, 0) for name, value in finite.items()]
        )
        for file in files:
            client.log_artifact(run_id, str(file), place)

    try:
        send(reached(config))
    except Exception as error:
        raise TrackingError(
            f"MLflow at {redact(tracking_uri(config))} {told(error)}; all metrics are in {files[-1]}"
        ) from error
