"""One reward model on RewardBench, RewardBench 2 and preference pairs of one's own."""

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect import flow

from mars_core.config import Configuration, override, validated
from mars_core.data.pairs import DataConfig
from mars_core.evaluation.suite import BENCHMARKS, EvaluationConfig
from mars_core.experiment import TrackingConfig
from mars_core.model.reward_model import ModelConfig
from tasks.steps.evaluate_reward_model import measure_checkpoint, write_summary
from tasks.steps.read_evaluation_sources import read_evaluation_sources
from tasks.tracking.evaluation_tracking import run_page, track_evaluation
from tasks.tracking.logged_models import registered_checkpoint
from tasks.tracking.mlflow_runs import link_tracking


class EvaluateConfig(Configuration):
    """Everything that `mars evaluate` needs to know."""

    model: ModelConfig
    """The reward model, as `backbone`, and how texts go through it."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """The benchmarks."""
    data: DataConfig = DataConfig()
    """Preference pairs, as `heldout`; `where` and `invalid` say which of their rows count."""
    output: str
    """Folder for the tables and summary.json."""
    mlflow_run: str | None = None
    """Id of the MLflow run that gets the figures and files."""
    tracking: TrackingConfig = TrackingConfig()
    """Where MLflow is."""


def configuration(model: str, overrides: Sequence[str] = ()) -> EvaluateConfig:
    """What to evaluate on which sources; where none is named, on the built-in samples of the benchmarks.

    Args:
        model: a checkpoint folder, package://NAME, hub/name@revision, or models:/NAME@ALIAS in MLflow.
        overrides: `dotted.key=value`, as in evaluation.rewardbench=FILE and model.max_length=1024.

    Raises:
        ConfigError: an unknown key, or a value out of range.
    """
    values: dict[str, Any] = {"model": {"backbone": model}, "output": f"evaluations/{file_name(model)}"}
    override(values, overrides)
    benchmarks = values.setdefault("evaluation", {})
    if not (values.get("data", {}).get("heldout") or benchmarks.keys() & BENCHMARKS.keys()):
        benchmarks |= {name: benchmark.ORIGIN.sample for name, benchmark in BENCHMARKS.items()}
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
        files, figures, notes = measure_checkpoint(checkpoint, config.model, tables, folder)
    about = {"model": model, "sources": sources, "settings": config.model.model_dump(mode="json")}
    summary = write_summary(folder / "summary.json", about, figures, [*remarks, *notes])
    if run_id and page:
        track_evaluation(config.tracking, run_id, figures, [*files, folder / "summary.json"])
        link_tracking(page)
    return summary


def file_name(reference: str) -> str:
    """A model's reference as the name of a folder: runs/a/round-1/model becomes runs-a-round-1-model."""
    place = Path(reference)
    if place.is_absolute() and place.is_relative_to(Path.cwd()):
        reference = str(place.relative_to(Path.cwd()))
    return re.sub(r"[^\w.@]+", "-", reference).strip("-.") or "model"
