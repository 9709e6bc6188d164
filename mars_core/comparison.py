"""A fair comparison: arms × seeds, where arms differ in nothing but what is compared.

An arm is a few keys that override one common experiment. Training and measurement must be the same in all
arms: the data, the model, the fit but for its objective, the evaluation, the rounds, and B in pairs. Keys
that each arm chooses for itself, from the same grid, are apart (`mars_core.tuning`).
A seed changes the subset of the originals, the initial head and the shuffling, for all arms alike, so that
arms are compared within seeds. The last round is the one reported; no round is chosen by its result.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic

import numpy as np
import pandas as pd
from pydantic import Field, JsonValue, field_validator, model_validator

from mars_core.config import (
    ConfigError,
    Configuration,
    Operational,
    flat,
    origin,
    override,
    put,
    read,
    scientific,
    section_of,
    validated,
)
from mars_core.evaluation.statistics import SeedMean, holm, mean_over_seeds
from mars_core.experiment import Experiment
from mars_core.extensions import PluginSection
from mars_core.tuning import TuningConfig

MATCHED = (
    "augmentation.max_paraphrases", "data", "evaluation", "fit", "model", "rounds", "selection.budget",
    "selection.budget_unit", "semantics.embedder",
)  # fmt: skip
"""Keys and sections in which arms may not differ."""
COMPARED = ("fit.objective",)
"""Sections of these in which they may, since all objectives take the same steps on the same pairs."""
OF_A_CELL = (
    "augmentation.top_up", "evaluation.benchmark_rounds", "folder", "name", "seed", "shared_steps",
)  # fmt: skip
"""Keys that a comparison gives to each cell."""
TRAINED = ("optimizer_steps", "pairs_seen")
"""Metrics of a cell that must be the same in all cells."""
SEEDS_FOR_A_CLAIM = 10
"""A t-interval is valid from two seeds on, but with a handful of seeds luck decides."""
ALPHA = 0.05


class CellOnRay(Configuration):
    """What one cell takes of a node of a Ray cluster; nothing here changes a result."""

    cpus: Annotated[int, Operational()] = Field(1, ge=1)
    """CPUs, and threads, of a cell."""
    gpus: Annotated[float, Operational()] = Field(0.0, ge=0)
    """GPUs of a cell."""


class ComparisonConfig(Configuration):
    """Everything that `mars compare` needs to know."""

    name: Annotated[str, Operational()] = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the comparison and of its folder."""
    folder: Annotated[str, Operational()] = "runs"
    """Folder that holds the comparison's folder."""
    seeds: Annotated[list[int], Operational()] = Field(default=[0, 1, 2])
    """Seeds of each arm; a number N stands for 0 … N − 1."""
    ray: Annotated[CellOnRay | None, Operational()] = None
    """Run each cell as a task of a Ray cluster, RAY_ADDRESS or else that of this machine, with these
    resources; `{}` takes one CPU. Without it cells run in this process."""
    parallel: Annotated[int | None, Operational()] = Field(None, ge=1)
    """Cells (an arm and a seed) that run at once: by default one, and on Ray as many as there is room for.
    With more than one, the last digits of metrics may change where only the head is trained in bfloat16: a
    text's features come from the batch of the cell that was first. With a chat model, a cell reuses texts
    that other cells have generated."""
    attempts: Annotated[int, Operational()] = Field(2, ge=1)
    """How often a cell is tried before it is reported as failed."""
    experiment: dict[str, JsonValue]
    """Keys of the experiment that all arms share, as in an experiment's own file."""
    arms: dict[str, dict[str, JsonValue]] = Field(min_length=2)
    """Name of each arm → the dotted keys in which it differs; `arms.NAME=null` leaves out one of the file."""
    baselines: Annotated[list[str], Operational()] = Field(default=["uniform", "no-augmentation"])
    """Arms that every other arm is compared with."""
    tune: TuningConfig | None = None
    """Keys that each arm chooses for itself beforehand, from one grid, by validation pairs."""
    align: dict[str, JsonValue] | None = None
    """Keys of an alignment, as in an alignment's own file, by which the last reward model of each cell aligns
    the same policy; `rewards.gold` measures what comes of it. By default nothing is aligned."""

    @property
    def root(self) -> Path:
        """Folder of the comparison."""
        return (Path(self.folder) / self.name).resolve()

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:
        return list(range(value)) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _baselines_are_arms(self) -> "ComparisonConfig":
        for baseline in self.baselines:
            if baseline not in self.arms:
                raise ValueError(f"baselines: {baseline!r} is no arm; arms are {', '.join(self.arms)}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: name one or more different seeds, or how many there are to be")
        return self

    @model_validator(mode="after")
    def _tuning_is_apart(self) -> "ComparisonConfig":
        if self.tune is None:
            return self
        if shared := sorted(set(self.seeds) & set(self.tune.seeds)):
            raise ValueError(
                f"tune.seeds: {shared} are seeds of the comparison, which must not choose for it"
            )
        for arm, changes in self.arms.items():
            for key in sorted(flat(changes).keys() & set(self.tune.tuned)):
                raise ValueError(f"arms.{arm}: {key} is what arms differ in, so it cannot be tuned")
        return self


@dataclass(frozen=True)
class Cell(Generic[Experiment]):
    """One arm under one seed."""

    arm: str
    seed: int
    experiment: Experiment
    setting: int | None = None
    """Number of the setting that it tries, where it is one of the tuning's."""

    @property
    def name(self) -> str:
        """Name of the cell's run."""
        return self.experiment.name


def load_comparison(file: str | Path, overrides: Sequence[str] = ()) -> ComparisonConfig:
    """Read a comparison from a YAML file, apply `dotted.key=value` overrides, validate.

    Raises:
        ConfigError: no such file, not a mapping, an unknown key, a value out of range.
    """
    values = read(file)
    arms = values.get("arms")
    left_out = {f"arms.{name}=null": name for name in arms} if isinstance(arms, dict) else {}
    override(values, [change for change in overrides if change not in left_out])
    for change in left_out.keys() & set(overrides):
        del values["arms"][left_out[change]]
    return validated(ComparisonConfig, values, origin(file, overrides))


def cells(
    config: ComparisonConfig,
    kind: type[Experiment],
    defaults: Mapping[str, Mapping[str, Any]],
    chosen: Mapping[str, int] | None = None,
) -> list[Cell[Experiment]]:
    """All cells, the arms of a seed together, so that a seed's shared work is done once and early.

    Args:
        config: the comparison.
        kind: the class of a cell's configuration.
        defaults: section of it → keys that are others than elsewhere by default.
        chosen: arm → the number of the setting that it chose, where the comparison has been tuned.

    Raises:
        ConfigError: an arm's keys are unknown or out of range, or arms differ in a key that must be the same.
    """
    _check_matched([Cell(arm, 0, _experiment(config, kind, defaults, arm, 0)) for arm in config.arms])
    return [
        Cell(arm, seed, _experiment(config, kind, defaults, arm, seed, (chosen or {}).get(arm)))
        for seed in config.seeds
        for arm in config.arms
    ]


def tuning_cells(
    config: ComparisonConfig, kind: type[Experiment], defaults: Mapping[str, Mapping[str, Any]]
) -> list[Cell[Experiment]]:
    """The cells that try every setting of the grid in every arm; none where nothing is tuned.

    Raises:
        ConfigError: a setting's keys are unknown or out of range.
    """
    return [
        Cell(arm, seed, _experiment(config, kind, defaults, arm, seed, setting), setting)
        for seed in (config.tune.seeds if config.tune else ())
        for setting in range(len(config.tune.tried) if config.tune else 0)
        for arm in config.arms
    ]


def _check_matched(arms: Sequence[Cell[Any]]) -> None:
    """Raise ConfigError if arms differ in what must be the same."""
    first, *others = arms
    for other in others:
        for key, here, there in _differences(first, other):
            if _is_of(key, MATCHED) and not _is_of(key, COMPARED):
                raise ConfigError(
                    f"arms {first.arm} and {other.arm} differ in {key} ({here!r} and {there!r}), "
                    "which a fair comparison keeps the same: set it under experiment"
                )


def _is_of(key: str, sections: Sequence[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _experiment(
    config: ComparisonConfig,
    kind: type[Experiment],
    defaults: Mapping[str, Mapping[str, Any]],
    arm: str,
    seed: int,
    setting: int | None = None,
) -> Experiment:
    values: dict[str, Any] = copy.deepcopy(config.experiment)
    changes = flat(config.arms[arm])
    if tried := config.tune is not None and setting is not None:
        changes |= config.tune.tried[setting]
    for name, field in kind.model_fields.items():
        section = section_of(field)
        if section and issubclass(section, PluginSection) and f"{name}.{section.choice()[0]}" in changes:
            values[name] = section.own_keys(values.get(name) or {})  # the keys of another plug-in say nothing
    for key, value in changes.items():
        put(values, key, value)
    for key in sorted(flat(values).keys() & set(OF_A_CELL)):
        raise ConfigError(f"arm {arm}: remove the key {key}: the comparison sets it")
    put(values, "evaluation.benchmark_rounds", "last")
    folder = f"{config.folder}/{config.name}"
    values |= {
        "name": f"{arm}-setting{setting}-seed{seed}" if tried else f"{arm}-seed{seed}",
        "folder": folder,
        "shared_steps": f"{folder}/.shared",
        "seed": seed,
    }
    values |= {section: {**keys, **(values.get(section) or {})} for section, keys in defaults.items()}
    experiment = validated(kind, values, f"{config.name}, arm {arm}")
    if experiment.selection.budget_unit != "pairs" or experiment.fit.patience:
        raise ConfigError(
            f"arm {arm}: all arms of a comparison train on as many pairs for as many steps, so "
            "selection.budget_unit must be pairs and fit.patience null"
        )
    topped_up = experiment.augmentation.model_copy(update={"top_up": True})
    return experiment.model_copy(update={"augmentation": topped_up})


def arms_table(found: Sequence[Cell[Any]]) -> pd.DataFrame:
    """What differs between the arms, as text: a row a key, a column an arm."""
    arms = {cell.arm: flat(scientific(cell.experiment)) for cell in found}
    keys = sorted({key for values in arms.values() for key in values} - {"seed"})
    rows = {key: [str(values.get(key)) for values in arms.values()] for key in keys}
    differing = {key: values for key, values in rows.items() if len(set(values)) > 1}
    return pd.DataFrame.from_dict(differing, orient="index", columns=list(arms))


@dataclass(frozen=True)
class Difference:
    """One metric of an arm minus that of a baseline, paired over seeds."""

    figure: str
    arm: str
    baseline: str
    over_seeds: SeedMean
    adjusted_p: float
    """Holm's adjustment over all arms and baselines of this figure; nan where there is no p-value."""
    matched: bool
    """Whether all cells of the two took equally many optimizer steps on equally many pairs."""

    @property
    def words(self) -> str:
        """The claim that it supports: a difference needs ten seeds and an adjusted p below .05."""
        if not self.matched:
            return "no claim: the two were not trained alike"
        if self.over_seeds.n < SEEDS_FOR_A_CLAIM:
            return f"no claim: {self.over_seeds.n} seeds, {SEEDS_FOR_A_CLAIM} are needed"
        if np.isnan(self.adjusted_p):
            return "no claim: the seeds show no spread"
        if not self.adjusted_p < ALPHA:
            return "within noise"
        return "higher" if self.over_seeds.value > 0 else "lower"


def arm_means(results: pd.DataFrame, figure: str) -> dict[str, SeedMean]:
    """Mean of a figure over seeds, for each arm.

    Args:
        results: a row a finished cell, with columns arm, seed and the figures of its last round.
        figure: a column of it. Cells in which it is missing are left out.
    """
    present = results.dropna(subset=[figure])
    return {str(arm): mean_over_seeds(rows[figure]) for arm, rows in present.groupby("arm", sort=False)}


def differences(results: pd.DataFrame, figure: str, baselines: Sequence[str]) -> list[Difference]:
    """Each arm against each baseline on the seeds that both finished; one family for Holm's adjustment.

    Args:
        results: as of `arm_means`.
        figure: a column of it.
        baselines: arms that the others are compared with.
    """
    by_seed = results.pivot(index="seed", columns="arm", values=figure)
    means = dict(_paired(by_seed, list(dict.fromkeys(results["arm"])), baselines))
    tested = {pair: mean.p_value for pair, mean in means.items() if np.isfinite(mean.p_value)}
    adjusted = holm({str(pair): p for pair, p in tested.items()}) if tested else {}
    return [
        Difference(
            figure,
            arm,
            baseline,
            mean,
            adjusted.get(str((arm, baseline)), float("nan")),
            len(results.loc[results["arm"].isin((arm, baseline)), list(TRAINED)].drop_duplicates()) == 1,
        )
        for (arm, baseline), mean in means.items()
    ]


def _paired(
    by_seed: pd.DataFrame, arms: Sequence[str], baselines: Sequence[str]
) -> Iterator[tuple[tuple[str, str], SeedMean]]:
    for baseline in baselines:
        for arm in arms:
            if arm == baseline or (arm in baselines and baselines.index(arm) < baselines.index(baseline)):
                continue  # two baselines are one comparison, not two
            if {arm, baseline} <= set(by_seed):
                both = (by_seed[arm] - by_seed[baseline]).dropna()
                if len(both):
                    yield (arm, baseline), mean_over_seeds(both)


def _differences(one: Cell[Any], other: Cell[Any]) -> Iterator[tuple[str, Any, Any]]:
    here, there = (flat(cell.experiment.model_dump(mode="json")) for cell in (one, other))
    for key in here | there:
        if here.get(key) != there.get(key):
            yield key, here.get(key), there.get(key)
