"""An experiment's configuration: the sections that live beside what they configure, from YAML and overrides.

    config = load("deployments/experiments/quickstart.yaml", ["selection.tau=0.1", "rounds=3"])

A key is *scientific* unless it is marked `Operational`: scientific keys shape results and are part of
the cache keys of the steps that read them; operational ones (addresses, devices, concurrency) may change
between two starts of one run.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from mars_core.config import Address, Configuration, Operational
from mars_core.config import scientific as scientific
from mars_core.data.pairs import DataConfig
from mars_core.errors import MarsError
from mars_core.evaluation.suite import EvaluationConfig
from mars_core.fit.train import FitConfig
from mars_core.generation import GenerationConfig
from mars_core.method.augmentation import AugmentationConfig
from mars_core.method.guards import GuardsConfig
from mars_core.method.rewriting import RewritingConfig
from mars_core.method.selection import SelectionConfig
from mars_core.method.semantics import SemanticsConfig
from mars_core.model.reward_model import ModelConfig

Config = TypeVar("Config", bound=BaseModel)


class ConfigError(MarsError, ValueError):
    """The configuration is wrong; the message names the key and, for an unknown one, the nearest known."""


class TrackingConfig(Configuration):
    """Where the numbers of a run go. Nothing here changes a result."""

    uri: Annotated[Address | None, Operational()] = None
    """MLflow's tracking URI; by default MLFLOW_TRACKING_URI, or else mlflow.db in the working folder."""
    experiment: Annotated[str, Operational()] = "mars"
    """MLflow experiment of the run."""
    models: Annotated[Literal["best", "all", "none"], Operational()] = "best"
    """Which rounds' checkpoints are logged as MLflow models."""
    parent: Annotated[str | None, Operational()] = None
    """MLflow run that the run is shown under, such as that of a comparison."""
    tags: Annotated[dict[str, str], Operational()] = Field(default={})
    """Tags of the run in MLflow."""


class ExperimentConfig(Configuration):
    """Everything that `mars refine` needs to know."""

    name: Annotated[str, Operational()] = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run and of its folder."""
    folder: Annotated[str, Operational()] = "runs"
    """Folder that holds the run's folder."""
    shared_steps: Annotated[str | None, Operational()] = None
    """Folder through which runs share finished steps with equal inputs, such as round 0 of one seed."""
    seed: int = 0
    """Seed of the subset of originals, the head and the shuffling."""
    rounds: Annotated[int, Operational()] = Field(3, ge=1)
    """Rounds of self-refinement, T; may grow between starts."""
    data: DataConfig = DataConfig()
    """Where the preference pairs come from."""
    model: ModelConfig = ModelConfig()
    """The reward model's backbone."""
    selection: SelectionConfig = SelectionConfig()
    """Which pairs get synthetic variants."""
    semantics: SemanticsConfig = SemanticsConfig()
    """How the meaning of responses is compared."""
    rewriting: RewritingConfig = RewritingConfig()
    """How close pairs are sharpened."""
    generation: GenerationConfig = GenerationConfig()
    """Who writes paraphrases and rewrites."""
    guards: GuardsConfig = GuardsConfig()
    """What is asked of the texts."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """How paraphrases become synthetic pairs."""
    fit: FitConfig = FitConfig()
    """How the reward model is trained."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What it is measured on."""
    tracking: TrackingConfig = TrackingConfig()
    """Where the numbers go."""

    @model_validator(mode="after")
    def _somebody_can_respond(self) -> "ExperimentConfig":
        if self.augmentation.scheme == "west_of_n" and self.generation.backend == "rules":
            raise ValueError(
                "augmentation.scheme=west_of_n samples responses, which rules cannot write: "
                "name a chat model with generation.backend and generation.model"
            )
        return self

    @model_validator(mode="after")
    def _budget_is_counted_in_one_unit(self) -> "ExperimentConfig":
        augmentation = self.augmentation
        keys = {
            "augmentation.top_up=true": augmentation.top_up,
            "augmentation.pool": augmentation.pool,
            f"augmentation.scheme={augmentation.scheme}": not augmentation.writes_variants,
        }
        if self.selection.budget_unit == "paraphrases" and (set_keys := [key for key in keys if keys[key]]):
            raise ValueError(
                f"{' and '.join(set_keys)} counts synthetic pairs, and selection.budget_unit=paraphrases "
                "does not: leave one of the two out"
            )
        return self

    @property
    def run_folder(self) -> Path:
        """Folder of the run's artifacts."""
        return Path(self.folder) / self.name


def load(file: str | Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read an experiment from a YAML file, apply `dotted.key=value` overrides, validate.

    Raises:
        ConfigError: no such file, not a mapping, an unknown key, a value out of range.
    """
    return validated(ExperimentConfig, read(file, overrides), " ".join([str(file), *overrides]))


def read(file: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The values of a YAML file with `dotted.key=value` overrides, not validated.

    Raises:
        ConfigError: no such file, or not a mapping.
    """
    path = Path(file)
    try:
        values = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: holds no configuration, which is a mapping of keys to values")
    override(values, overrides)
    return values


def override(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set nested values by `dotted.key=value`, the value being YAML.

    Raises:
        ConfigError: one does not read so, or a part of its key is no section.
    """
    for change in overrides:
        key, equals, text = change.partition("=")
        if not key or not equals:
            raise ConfigError(f"{change!r}: an override reads key=value, such as selection.tau=0.1")
        try:
            put(values, key, yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise ConfigError(f"{change!r}: the value is not YAML: {error}") from error


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested values.

    Raises:
        ConfigError: a part of the key is no section.
    """
    section = values
    *path, name = key.split(".")
    for part in path:
        below = section.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{key}: {part} is no section")
        section = below
    section[name] = value


def validated(model: type[Config], values: Mapping[str, Any], origin: str) -> Config:
    """Build a configuration; every problem is named by its dotted key, and `origin` says where it stands.

    Raises:
        ConfigError: an unknown key, or a value out of range.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                lines.append(f"{key}: no such key; the nearest is {nearest(key, known_keys(model))}")
            elif problem["type"] == "missing":
                lines.append(f"{key}: is required")
            else:
                what = problem["msg"].removeprefix("Value error, ")
                about_values = isinstance(problem["input"], Mapping)  # of a section, which names them itself
                found = "" if about_values else f"; found {problem['input']!r}"
                lines.append(f"{key}: {what}{found}".removeprefix(": "))
        raise ConfigError(f"{origin}: " + "\n  ".join(lines)) from error


def known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all keys of a configuration, sections included."""
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        if section := _section(field):
            names += known_keys(section, f"{prefix}{name}.")
    return names


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a key that is a section, one that may be left out (`None`) included."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def nearest(key: str, known: Sequence[str]) -> str:
    """The known key most like `key`, as a whole and in its last part: the section may be the mistake."""

    def likeness(candidate: str) -> float:
        last_parts = key.rpartition(".")[2], candidate.rpartition(".")[2]
        return sum(difflib.SequenceMatcher(None, *both).ratio() for both in ((key, candidate), last_parts))

    return max(known, key=likeness)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys."""
    dotted: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            dotted |= flat(value, f"{prefix}{key}.")
        else:
            dotted[prefix + key] = value
    return dotted


def to_yaml(config: BaseModel) -> str:
    """The resolved configuration, every key spelled out."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def explained(config: BaseModel, prefix: str = "") -> str:
    """Every key with its value and its meaning, one after the other; what is left out is told too."""
    lines = []
    for name, field in type(config).model_fields.items():
        value, section = getattr(config, name), _section(field)
        if not isinstance(value, BaseModel):
            meaning = " ".join((field.description or "").split())
            lines.append(
                f"{prefix}{name} = {json.dumps(value, default=str)}\n    {meaning}{_notes(field, value)}\n"
            )
        if section:
            lines.append(explained(value or section(), f"{prefix}{name}."))
    return "".join(lines)


def _notes(field: FieldInfo, value: Any) -> str:
    """What a key takes, its default where the value is another, and whether it is operational."""
    choices = [
        choice
        for kind in (field.annotation, *get_args(field.annotation))
        if get_origin(kind) is Literal
        for choice in get_args(kind)
    ]
    notes = [f"one of {', '.join(map(str, choices))}"] if choices else []
    default = field.get_default(call_default_factory=True)
    if not field.is_required() and default != value:
        notes.append(f"default {json.dumps(default, default=str)}")
    if any(isinstance(mark, Operational) for mark in field.metadata):
        notes.append("operational")
    return f" [{'; '.join(notes)}]" if notes else ""
