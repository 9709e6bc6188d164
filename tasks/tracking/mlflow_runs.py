"""Common parts of all runs in MLflow: their experiment, links, notes and metrics."""

from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from prefect.artifacts import create_link_artifact
from prefect.runtime import flow_run

from mars_core.config import redact
from mars_core.report.wording import without_figures
from tasks.run.prefect_api import tolerate_outage
from tasks.run.run_config import TrackingConfig
from tasks.tracking.mlflow_store import (
    LOCAL_PORT,
    artifact_location,
    tracking_uri,
)

METRICS_AT_ONCE = 1000
"""Most metrics in one request to MLflow."""
NOTE_LENGTH = 5000
"""Most characters of a description in MLflow."""
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""The tag that lets MLflow show an experiment's runs and charts first, not its pages for chat
applications."""


def run_address(config: TrackingConfig, run: Run) -> str:
    """The page of a run in MLflow; for a local store, the address at which `mars ui` serves it."""
    uri = tracking_uri(config)
    server = uri if uri.startswith("http") else f"http://127.0.0.1:{LOCAL_PORT}"
    return f"{redact(server).rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def link_tracking(address: str) -> None:
    """Link a page of MLflow in Prefect."""
    with tolerate_outage():
        create_link_artifact(key="mlflow", link=address, link_text="This run in MLflow")


def flow_run_tags() -> dict[str, str]:
    """The current Prefect flow run as tags."""
    return {"prefect.flow_run": str(flow_run.id), "prefect.url": str(flow_run.ui_url)}


def prefect_link() -> str:
    """A Markdown link to the Prefect flow run, if there is one."""
    return f"[This run in Prefect]({flow_run.ui_url})" if flow_run.ui_url else ""


def note_of(page: str) -> str:
    """A page as the description of an MLflow run: the link to Prefect, then as many paragraphs as fit."""
    text = f"{prefect_link()}\n\n{without_figures(page)}".strip()
    return text if len(text) <= NOTE_LENGTH else text[:NOTE_LENGTH].rpartition("\n\n")[0]


def experiment_id_of(client: MlflowClient, config: TrackingConfig) -> str:
    """The MLflow experiment of the configuration; it is created if necessary."""
    found = client.get_experiment_by_name(config.experiment)
    if found:
        return found.experiment_id
    location = artifact_location(tracking_uri(config))
    try:
        return client.create_experiment(config.experiment, artifact_location=location, tags=KIND)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_experiment_by_name(config.experiment).experiment_id  # another run was faster


def find_run(client: MlflowClient, experiment_id: str, tags: dict[str, str]) -> Run | None:
    """A run of an experiment that has these tags."""
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = client.search_runs([experiment_id], filter_string=wanted, max_results=1)
    return found[0] if found else None


def log_metrics(client: MlflowClient, run_id: str, metrics: list[Metric]) -> None:
    """Send metrics, in as many requests as they need."""
    for start in range(0, len(metrics), METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_AT_ONCE])
