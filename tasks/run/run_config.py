"""The configuration of a run: the experiment, where it computes, and where it logs its metrics."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny

from mars_core.config import Address, Configuration, Operational
from mars_core.experiment import ExperimentConfig, load
from tasks.compute.compute import ComputeConfig


class TrackingConfig(Configuration):
    """Where a run logs its metrics. Nothing here changes a result."""

    uri: Annotated[Address | None, Operational()] = None
    """MLflow's tracking URI; by default MLFLOW_TRACKING_URI, or else mlflow.db in the working folder."""
    experiment: Annotated[str, Operational()] = "mars"
    """MLflow experiment of the run."""
    models: Annotated[Literal["best", "all", "none"], Operational()] = "best"
    """Which rounds' checkpoints are logged as MLflow models."""
    parent: Annotated[str | None, Operational()] = None
    """MLflow run that is the parent of this run, such as that of a comparison."""
    tags: Annotated[dict[str, str], Operational()] = Field(default={})
    """Tags of the run in MLflow."""


class RunConfig(ExperimentConfig):
    """Everything that `mars refine` needs to know."""

    compute: Annotated[SerializeAsAny[ComputeConfig], Operational()] = Field(default_factory=ComputeConfig)
    """Where scoring runs."""
    tracking: TrackingConfig = TrackingConfig()
    """Where the metrics are logged."""


def load_run(file: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's configuration from a YAML file, apply `dotted.key=value` overrides, validate.

    Raises:
        ConfigError: no such file, not a mapping, an unknown key, a value out of range.
    """
    return load(file, overrides, RunConfig)
