"""Reward models on benchmarks and preference pairs of one's own."""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from datasets import Dataset
from prefect import flow
from pydantic import Field, SerializeAsAny, model_validator

from mars_core.config import ConfigError, Configuration, Operational, origin, override, put, read, validated
from mars_core.data.pairs import DataConfig
from mars_core.evaluation import robustness
from mars_core.evaluation.benchmarks.benchmark import BENCHMARKS
from mars_core.evaluation.evaluation_config import EvaluationConfig
from mars_core.evaluation.league import Source
from mars_core.generation import GenerationConfig
from mars_core.method.guards import GuardsConfig
from mars_core.method.semantics import SemanticsConfig
from mars_core.model.reward_model import ModelConfig
from mars_core.model.scoring import ScoreSpec
from mars_core.objectives.objective import ObjectiveConfig
from tasks.compute.compute import ComputeConfig
from tasks.inspect.estimate_evaluation import estimate_evaluation
from tasks.run.run_config import TrackingConfig
from tasks.steps.measure_checkpoint import definitions, measure_checkpoint, write_summary
from tasks.steps.read_evaluation_sources import read_evaluation_sources
from tasks.steps.transform_pairs import changed_pairs
from tasks.steps.write_league import FILES, write_league
from tasks.tracking.evaluation_tracking import run_page, track_evaluation
from tasks.tracking.logged_models import fetched
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
    semantics: SemanticsConfig = SemanticsConfig()
    """The embedder, which some transforms of robustness and guards need."""
    generation: SerializeAsAny[GenerationConfig] = Field(default_factory=GenerationConfig)
    """Who writes the paraphrases that robustness may ask for."""
    guards: GuardsConfig = GuardsConfig()
    """Which of them are dropped."""
    output: str
    """Folder for the tables, summary.json and evaluation.md."""
    mlflow_run: str | None = None
    """Id of the MLflow run that gets the metrics and files."""
    tracking: TrackingConfig = TrackingConfig()
    """Where MLflow is."""

    @model_validator(mode="after")
    def _robustness_can_be_measured(self) -> "EvaluateConfig":
        wanted = self.evaluation.robustness
        if wanted.rows and wanted.of == "pairs" and not self.data.heldout:
            raise ValueError(
                "evaluation.robustness.of is pairs, and no pairs are named: give --pairs SOURCE, or set it "
                "to a benchmark with one chosen and one rejected response"
            )
        wanted.check(self.generation.capabilities)
        return self


def configuration(
    model: str,
    overrides: Sequence[str] = (),
    *,
    suite: str | None = None,
    benchmarks: Mapping[str, str] | None = None,
    folder: str = "evaluations",
) -> EvaluateConfig:
    """What to evaluate on which sources; where none is named, on the built-in samples of the benchmarks.

    Args:
        model: a checkpoint folder, package://NAME, hub/name@revision, or models:/NAME@ALIAS in MLflow.
        overrides: `dotted.key=value`, as in evaluation.robustness.rows=100 and model.max_length=1024.
        suite: name of a suite, or a YAML file with keys as those of `overrides`, which these override.
        benchmarks: name → source, besides those of the suite.
        folder: gets the folder of the model's results, unless an override says where that is.

    Raises:
        ConfigError: there is no such suite, an unknown key, or a value out of range.
    """
    values = read(suite_file(suite)) if suite else {}
    put(values, "model.backbone", model)
    values.setdefault("output", f"{folder}/{file_name(model)}")
    if benchmarks:
        of_suite = (values.get("evaluation") or {}).get("benchmarks") or {}
        put(values, "evaluation.benchmarks", {**of_suite, **benchmarks})
    override(values, overrides)
    evaluation = values.setdefault("evaluation", {})
    if not (values.get("data", {}).get("heldout") or evaluation.get("benchmarks")):
        samples = {name: BENCHMARKS.find(name).sample for name in BENCHMARKS.names()}
        evaluation["benchmarks"] = {name: sample for name, sample in samples.items() if sample}
    return validated(EvaluateConfig, values, origin(suite or "mars evaluate", overrides))


def suite_file(name: str) -> Path:
    """The file of a suite: one of the package's by its name, or a user's own.

    Raises:
        ConfigError: it is neither.
    """
    built_in = files("mars_core.evaluation") / "suites"
    names = sorted(
        file.name.removesuffix(".yaml") for file in built_in.iterdir() if file.name.endswith(".yaml")
    )
    if name in names:
        return Path(str(built_in / f"{name}.yaml"))
    if not Path(name).is_file():
        raise ConfigError(f"--suite {name}: is neither {' nor '.join(names)} nor a YAML file")
    return Path(name)


class Sources(NamedTuple):
    """What models are measured on."""

    tables: dict[str, Dataset]
    """Rows of benchmarks by their keys, `pairs`, and `robustness`, the changed pairs."""
    about: dict[str, dict[str, Any]]
    """What each source is."""
    remarks: list[str]
    """What a reader must know of them."""


@flow(name="evaluate", flow_run_name="evaluate {config.model.backbone}", persist_result=False)
def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Score a reward model on benchmarks and pairs; write tables, summary.json and a page, and log them.

    Returns:
        What summary.json holds.
    """
    page = _page(config)  # an unknown run is told before the work
    summary = _evaluate(config, _sources(config))
    if page:
        link_tracking(page)
    return summary


@flow(name="evaluate models", flow_run_name="evaluate models", persist_result=False)
def evaluate_models(configs: list[EvaluateConfig], folder: str) -> tuple[list[str], list[Source]]:
    """Score several models on the same sources, one after the other, and compare them.

    Args:
        configs: one for each model; they differ in the model and in the folder of its results.
        folder: gets league.md, league.png and league.json.

    Returns:
        The models, and their scores and ranks on each source.
    """
    first = configs[0]
    page = _page(first)
    sources = _sources(first.model_copy(update={"output": folder}))
    evaluated = [(Path(config.output), _evaluate(config, sources, _part(config))) for config in configs]
    found = write_league(Path(folder), first.evaluation.suite, sources.tables, evaluated)
    if first.mlflow_run and page:
        track_evaluation(first.tracking, first.mlflow_run, {}, [Path(folder) / name for name in FILES])
        link_tracking(page)
    return [config.model.backbone for config in configs], found


def estimates(configs: Sequence[EvaluateConfig]) -> dict[str, dict[str, str]]:
    """What scoring costs, by model.

    Raises:
        BenchmarkError, PairsError, ModelError: as the evaluation itself would.
    """
    first = configs[0]
    tables, _, _ = read_evaluation_sources.fn(first.evaluation, first.data)
    wanted, found = first.evaluation.robustness, {}
    changed = f"at most {wanted.rows * len(wanted.by_key):,} pairs more, for robustness"
    for config in configs:
        with fetched(config.tracking, config.model.backbone) as checkpoint:
            costs = estimate_evaluation(
                checkpoint, config.model, config.objective, config.evaluation.suite, tables
            )
        found[config.model.backbone] = costs | ({"changed pairs": changed} if wanted.rows else {})
    return found


def _part(config: EvaluateConfig) -> str:
    """A model's folder as a part of a metric's name, where MLflow takes no @."""
    return Path(config.output).name.replace("@", "-")


def _page(config: EvaluateConfig) -> str | None:
    """The address of the MLflow run that gets the metrics, if there is one."""
    return run_page(config.tracking, config.mlflow_run) if config.mlflow_run else None


def _sources(config: EvaluateConfig) -> Sources:
    """Read the sources, and change the pairs of the sample that robustness is measured on."""
    sources = Sources(*read_evaluation_sources(config.evaluation, config.data))
    wanted, folder = config.evaluation.robustness, Path(config.output)
    if wanted.rows:
        folder.mkdir(parents=True, exist_ok=True)
        changed: Dataset = changed_pairs(
            config.evaluation, sources.tables, config.semantics, config.guards, config.generation, folder
        )
        source = f"at most {wanted.rows} pairs of {wanted.of}, changed"
        sources.tables[robustness.KEY] = changed
        sources.about[robustness.KEY] = {"source": source, "rows": len(changed)}
    return sources


def _evaluate(config: EvaluateConfig, sources: Sources, part: str = "") -> dict[str, Any]:
    """Score a model, write its files, and log them; of several models `part` names this one."""
    model, folder, suite = config.model.backbone, Path(config.output), config.evaluation.suite
    with fetched(config.tracking, config.model.backbone) as checkpoint:
        spec = ScoreSpec(
            model=checkpoint, reward_model=config.model, objective=config.objective, output=folder
        )
        tables, metrics, notes = measure_checkpoint(
            config.compute.open(), spec, suite, sources.tables, folder
        )
    about = {
        "model": model,
        "sources": sources.about,
        "settings": config.model.model_dump(mode="json"),
        "definitions": definitions(suite, sources.tables),
    }
    summary, pages = write_summary(folder / "summary.json", about, suite, metrics, [*sources.remarks, *notes])
    if config.mlflow_run:
        track_evaluation(config.tracking, config.mlflow_run, metrics, [*tables, *pages], part)
    return summary


def file_name(reference: str) -> str:
    """A model's reference as the name of a folder: runs/a/round-1/model becomes runs-a-round-1-model."""
    place = Path(reference)
    if place.is_absolute() and place.is_relative_to(Path.cwd()):
        reference = str(place.relative_to(Path.cwd()))
    return re.sub(r"[^\w.@]+", "-", reference).strip("-.") or "model"
