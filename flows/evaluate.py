"""One reward model on benchmarks and preference pairs of one's own."""

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from prefect import flow
from pydantic import Field, SerializeAsAny

from mars_core.config import Configuration, Operational, override, validated
from mars_core.data.pairs import DataConfig
from mars_core.evaluation.benchmarks.benchmark import BENCHMARKS
from mars_core.evaluation.evaluation_config import EvaluationConfig
from mars_core.model.reward_model import ModelConfig
from mars_core.model.scoring import ScoreSpec
from mars_core.objectives.objective import ObjectiveConfig
from tasks.compute.compute import ComputeConfig
from tasks.run.run_config import TrackingConfig
from tasks.steps.measure_checkpoint import definitions, measure_checkpoint, write_summary
from tasks.steps.read_evaluation_sources import read_evaluation_sources
from tasks.tracking.evaluation_tracking import run_page, track_evaluation
from tasks.tracking.logged_models import registered_checkpoint
from tasks.tracking.mlflow_runs import link_tracking


class EvaluateConfig(Configuration):
    """Everything that `mars evaluate` needs to know."""

    model: ModelConfig
    """The reward model, as `backbone`, and how texts go through it."""
    objective: SerializeAsAny[ObjectiveConfig] | None = None
    """What the model was trained by; by default what its checkpoint names. A class of one's own is named
    here."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """The benchmarks."""
    compute: Annotated[SerializeAsAny[ComputeConfig], Operational()] = Field(default_factory=ComputeConfig)
    """Where texts are scored."""
    data: SerializeAsAny[DataConfig] = Field(default_factory=DataConfig)
    """Preference pairs, as `heldout`; `format` says how they are read, `where` and `invalid` which of their
    rows count."""
    output: str
    """Folder for the tables and summary.json."""
    mlflow_run: str | None = None
    """Id of the MLflow run that gets the metrics and files."""
    tracking: TrackingConfig = TrackingConfig()
    """Where MLflow is."""


def configuration(model: str, overrides: Sequence[str] = ()) -> EvaluateConfig:
    """What to evaluate on which sources; where none is named, on the built-in samples of the benchmarks.

    Args:
        model: a checkpoint folder, package://NAME, hub/name@revision, or models:/NAME@ALIAS in MLflow.
        overrides: `dotted.key=value`, as in evaluation.benchmarks.rewardbench=FILE and model.max_length=1024.

    Raises:
        ConfigError: an unknown key, or a value out of range.
    """
    values: dict[str, Any] = {"model": {"backbone": model}, "output": f"evaluations/{file_name(model)}"}
    override(values, overrides)
    benchmarks = values.setdefault("evaluation", {})
    if not (values.get("data", {}).get("heldout") or benchmarks.get("benchmarks")):
        samples = {name: BENCHMARKS.find(name).sample for name in BENCHMARKS.names()}
        benchmarks["benchmarks"] = {name: sample for name, sample in samples.items() if sample}
    return validated(EvaluateConfig, values, "mars evaluate")


@flow(name="evaluate", flow_run_name="evaluate {config.model.backbone}", persist_result=False)
def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Score a reward model on benchmarks and pairs; write tables and summary.json, and log them.

    Returns:
        What summary.json holds.
    """
    model, folder = config.model.backbone, Path(config.output)
    run_id = config.mlflow_run
    page = run_page(config.tracking, run_id) if run_id else None  # an unknown run is told before the work
    tables, sources, remarks = read_evaluation_sources(config.evaluation, config.data)
    with TemporaryDirectory() as place:
        registered = model.startswith("models:/")
        checkpoint = registered_checkpoint(config.tracking, model, Path(place)) if registered else model
        spec = ScoreSpec(
            model=checkpoint, reward_model=config.model, objective=config.objective, output=folder
        )
        suite = config.evaluation.suite
        files, metrics, notes = measure_checkpoint(config.compute.open(), spec, suite, tables, folder)
    about = {
        "model": model,
        "sources": sources,
        "settings": config.model.model_dump(mode="json"),
        "definitions": definitions(suite, tables),
    }
    summary = write_summary(folder / "summary.json", about, metrics, [*remarks, *notes])
    if run_id and page:
        track_evaluation(config.tracking, run_id, metrics, [*files, folder / "summary.json"])
        link_tracking(page)
    return summary


def file_name(reference: str) -> str:
    """A model's reference as the name of a folder: runs/a/round-1/model becomes runs-a-round-1-model."""
    place = Path(reference)
    if place.is_absolute() and place.is_relative_to(Path.cwd()):
        reference = str(place.relative_to(Path.cwd()))
    return re.sub(r"[^\w.@]+", "-", reference).strip("-.") or "model"
