"""One small grid of settings for every arm of a comparison alike; each arm takes its best one.

An arm that is shown at a learning rate that suits another says nothing of itself. So every arm is run
under every setting of one grid, and takes the one with the best accuracy on validation pairs, pooled over the
tuning seeds, which the comparison itself does not use. Held-out pairs play no part in the choice.
"""

import itertools
import math
from typing import Annotated, NamedTuple, Self

import pandas as pd
from pydantic import Field, JsonValue, model_validator

from mars_core.config import Configuration, Operational

SETTINGS = 8
"""Most settings of a grid: with more, luck on the validation pairs decides."""
COUNTED = (
    "data", "evaluation", "fit.batch_pairs", "fit.epochs", "fit.patience", "fit.synthetic", "generation",
    "model", "rounds", "selection.budget", "selection.budget_unit",
)  # fmt: skip
"""Keys and sections that a setting may not change: all settings take equally many optimizer steps on the same
pairs."""


class TuningConfig(Configuration):
    """A few settings for every arm alike, from which each takes its best setting by validation accuracy."""

    grid: dict[str, list[JsonValue]] = Field(default_factory=dict)
    """Dotted key of the experiment → its values; their combinations are the settings, at most 8."""
    settings: list[dict[str, JsonValue]] = Field(default_factory=list)
    """The settings themselves in place of a grid, each with a value for the same keys: with four keys of two
    values, half of the combinations show what each key does."""
    seeds: Annotated[list[int], Operational()] = Field(default=[1000, 1001, 1002], min_length=1)
    """Seeds over which a setting's accuracy is pooled; none of the comparison's own."""

    @model_validator(mode="after")
    def _few_settings(self) -> Self:
        number = len(self.settings) or math.prod(len(values) for values in self.grid.values())
        if self.grid and self.settings:
            raise ValueError("name a grid or settings, not both")
        if not 2 <= number <= SETTINGS:
            raise ValueError(f"{number} settings: there must be 2 to {SETTINGS}")
        if len({frozenset(setting) for setting in self.settings}) > 1:
            raise ValueError("settings: each has a value for the same keys")
        for key in self.tuned:
            if any(key == counted or key.startswith(f"{counted}.") for counted in COUNTED):
                raise ValueError(f"{key} cannot be tuned: settings take equally many steps on the same pairs")
        return self

    @property
    def tuned(self) -> list[str]:
        """The dotted keys that are tuned."""
        return sorted(self.tried[0])

    @property
    def tried(self) -> list[dict[str, JsonValue]]:
        """The settings, those of a grid in its order: dotted key → value."""
        if self.settings:
            return self.settings
        combinations = itertools.product(*self.grid.values())
        return [dict(zip(self.grid, values, strict=True)) for values in combinations]


class Tuning(NamedTuple):
    """What the tuning seeds said of every arm under every setting."""

    settings: list[dict[str, JsonValue]]
    accuracies: pd.DataFrame
    """Validation accuracy pooled over the tuning seeds: a row an arm, a column a setting's number."""
    pairs: int
    """Validation pairs of one seed, at least; those of another may be the same."""

    @property
    def chosen(self) -> dict[str, int]:
        """Arm → the number of the setting with the greatest accuracy; the first of several."""
        return {str(arm): int(number) for arm, number in self.accuracies.idxmax(axis="columns").items()}


def pooled(settings: list[dict[str, JsonValue]], results: pd.DataFrame) -> Tuning:
    """The tuning that finished cells amount to.

    Args:
        settings: those that were tried.
        results: a row a cell, with its arm, the number of its setting, and of its validation pairs how many
            are ranked right and how many there are: `right`, `pairs`.
    """
    sums = results.groupby(["arm", "setting"])[["right", "pairs"]].sum()
    accuracies = (sums["right"] / sums["pairs"]).unstack("setting")
    return Tuning(settings, accuracies.reindex(results["arm"].unique()), int(results["pairs"].min()))
