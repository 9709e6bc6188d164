"""Several models on the same sources: their scores, and who is shown to be better than whom.

A model's rank is one more than the number of models that are shown to be better: those whose difference to
it, paired on the same rows, has a 95% interval above zero and p < .05. Others share a rank.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from mars_core.evaluation import robustness
from mars_core.evaluation.coverage import ensemble, measures
from mars_core.evaluation.evaluation_config import Suite
from mars_core.evaluation.statistics import CONFIDENCE, Interval, PairedDifference, paired_difference

Tables = Mapping[str, pd.DataFrame]
"""The tables of results of one model by source: benchmarks by their keys, `pairs`, and `robustness`."""


@dataclass(frozen=True)
class Source:
    """One score of all models."""

    key: str
    """The metric."""
    title: str
    scores: list[Interval]
    """Of each model; nan where it is not defined."""
    ranks: list[int | None]
    """Of each model; none where models cannot be compared on this source."""
    differences: dict[tuple[int, int], PairedDifference]
    """The first model's score minus the second's, for the numbers of two models with the better one first."""


def league(
    suite: Suite, tables: Sequence[Tables], metrics: Sequence[Mapping[str, float | None]]
) -> list[Source]:
    """Compare models by the main score of every source.

    Args:
        suite: the benchmarks.
        tables: those of each model; the same sources for all.
        metrics: the metrics of each model, in the same order.

    Raises:
        ValueError: the models were measured on different rows.
    """
    found = []
    for name in tables[0]:
        key, title = _score_of(name, suite)
        scores = [
            Interval(*(_number(own.get(f"{key}{end}")) for end in ("", "_low", "_high"))) for own in metrics
        ]
        order = sorted(range(len(scores)), key=lambda model: -_last_if_nan(scores[model].value))
        differences = {}
        for place, better in enumerate(order):
            for worse in order[place + 1 :]:
                difference = _difference(name, suite, tables[better][name], tables[worse][name])
                if difference is not None:
                    differences[better, worse] = difference
        found.append(Source(key, title, scores, _ranks(len(scores), differences), differences))
    return found


def together(suite: Suite, tables: Sequence[Tables]) -> dict[str, dict[str, float]]:
    """What the models are worth as one, on every source of pairs, by its title: see `uncertainty`.

    Returns:
        `error_auroc` and the accuracies over coverage by the models' disagreement, and `margin_error_auroc`,
        the former by the size of the mean margin alone.
    """
    found = {}
    for name, table in tables[0].items():
        if name == robustness.KEY or "margin" not in table:
            continue
        as_one = ensemble([own[name]["margin"] for own in tables])
        by_margin = measures(-abs(as_one.margins), as_one.margins)["error_auroc"]
        told = measures(as_one.disagreement, as_one.margins)
        found[_score_of(name, suite)[1]] = told | {"margin_error_auroc": by_margin}
    return found


def _ranks(models: int, differences: Mapping[tuple[int, int], PairedDifference]) -> list[int | None]:
    if len(differences) < models * (models - 1) / 2:
        return [None] * models
    shown = [worse for (_, worse), difference in differences.items() if _is_shown(difference)]
    return [1 + shown.count(model) for model in range(models)]


def _is_shown(difference: PairedDifference) -> bool:
    """Whether both the interval and the test show it: on few rows the two may disagree."""
    return difference.low > 0 and difference.p_value < 1 - CONFIDENCE


def _score_of(name: str, suite: Suite) -> tuple[str, str]:
    if name in suite:
        return f"{name}/{suite[name].headline}", suite[name].title
    return (robustness.HEADLINE, "robust accuracy") if name == robustness.KEY else (f"{name}/accuracy", name)


def _difference(name: str, suite: Suite, table: pd.DataFrame, other: pd.DataFrame) -> PairedDifference | None:
    """What one model scores above another; none where the benchmark compares no models."""
    if name in suite:
        return suite[name].differences(table, other).get(suite[name].headline)
    if name == robustness.KEY:
        return robustness.robustness_difference(table, other) if len(table) else None
    if not table["pair_id"].equals(other["pair_id"]):
        raise ValueError("a paired comparison needs the same pairs in the same order")
    return paired_difference(table["margin"] > 0, other["margin"] > 0, clusters=table["prompt"])


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _last_if_nan(value: float) -> float:
    return -math.inf if math.isnan(value) else value
