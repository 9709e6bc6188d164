"""Scheduled retraining: what is watched, when a cycle begins, and the experiment that a cycle runs.

A cycle is one run of self-refinement on all accepted pairs, from the champion if there is one, followed by
the gate. The pairs of a prompt are held out, or trained on, for ever (`tasks.retraining.jury`).
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue, SerializeAsAny

from mars_core.config import ConfigError, Configuration, Operational, origin, put, read, validated
from mars_core.data.deliveries import IntakeConfig
from mars_core.evaluation.benchmarks import best_of_n
from mars_core.evaluation.gate_decision import GateConfig
from tasks.run.run_config import RunConfig

SET_BY_RETRAINING = (
    "name",
    "folder",
    "data.train",
    "data.heldout",
    "data.where",
    "data.format",
    "evaluation.benchmark_rounds",
)
"""Keys of an experiment that are not for `refine:` to set."""


class RetrainConfig(Configuration):
    """Everything that `mars retrain` needs to know."""

    name: Annotated[str, Operational()] = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the retraining, of its folder, and of the registered model in MLflow."""
    folder: Annotated[str, Operational()] = "retraining"
    """Folder that holds the retraining's folder."""
    min_new_pairs: int = Field(200, ge=1)
    """A cycle begins when this many accepted pairs are new."""
    data: SerializeAsAny[IntakeConfig] = Field(default_factory=IntakeConfig)
    """Where new pairs are delivered."""
    gate: GateConfig = GateConfig()
    """When a candidate takes the place of the champion."""
    refine: dict[str, JsonValue]
    """Keys of the experiment that a cycle runs, as in an experiment's own file."""

    @property
    def root(self) -> Path:
        """Folder of the retraining."""
        return (Path(self.folder) / self.name).resolve()


def load_retraining(file: str | Path, overrides: Sequence[str] = ()) -> RetrainConfig:
    """Read a retraining from a YAML file, apply `dotted.key=value` overrides, validate.

    Raises:
        ConfigError: no such file, not a mapping, an unknown key, a value out of range, also under `refine`.
    """
    told = origin(file, overrides)
    config = validated(RetrainConfig, read(file, overrides), told)
    for key in SET_BY_RETRAINING:
        section: Any = config.refine
        for part in key.split("."):
            section = section.get(part) if isinstance(section, dict) else None
        if section is not None:
            raise ConfigError(f"{told}: refine.{key}: is the retraining's own to set; leave it out")
    suite = cycle_experiment(config, 1, None).evaluation.suite
    if config.gate.best_of_n_margin is not None and best_of_n.KEY not in suite:
        raise ConfigError(
            f"{told}: gate.best_of_n_margin: needs responses to choose from; name their source in "
            "refine.evaluation.benchmarks.best_of_n"
        )
    return config


def cycle_experiment(config: RetrainConfig, number: int, champion: Path | None) -> RunConfig:
    """The experiment of a cycle, from the champion's checkpoint or, without one, the configured backbone.

    Raises:
        ConfigError: an unknown key, or a value out of range.
    """
    values: dict[str, Any] = copy.deepcopy(config.refine)
    folder = cycle_folder(config, number)
    put(values, "name", f"{config.name}-{number}")
    put(values, "folder", str(config.root / "runs"))
    put(values, "data.train", str(folder / "train.parquet"))
    put(values, "data.heldout", str(folder / "heldout"))
    put(values, "evaluation.benchmark_rounds", "all")  # the champion is round 0
    if champion is not None:
        put(values, "model.backbone", str(champion))
    tags = {"mars.retraining": config.name, "mars.cycle": str(number)}
    values["tracking"] = {"models": "none"} | (values.get("tracking") or {})
    values["tracking"]["tags"] = tags | (values["tracking"].get("tags") or {})
    return validated(RunConfig, values, f"{config.name}, refine")


def cycle_folder(config: RetrainConfig, number: int) -> Path:
    """Where a cycle's pairs, experiment and decision are."""
    return config.root / "cycles" / str(number)
