"""The report of a comparison: what differs between the arms, their means, and the paired differences.

It claims a difference only with ten seeds or more and an adjusted p below .05.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mars_core.comparison import (
    ALPHA,
    SEEDS_FOR_A_CLAIM,
    TRAINED,
    Cell,
    ComparisonConfig,
    arm_means,
    arms_table,
    differences,
)
from mars_core.evaluation import robustness
from mars_core.evaluation.evaluation_config import Suite
from mars_core.evaluation.statistics import SeedMean
from mars_core.report.score_sections import scores_of
from mars_core.report.wording import ABSENT, count, interval, number, p_value, share, signed, table
from mars_core.tuning import Tuning

BEST, POLICY = "align/gold_of_best", "align/policy"
"""Metrics of a cell's alignment: gold of the best of n, and the beginning of those of the trained policy."""
COLUMNS = {
    "heldout/accuracy": ("held-out", share),
    robustness.HEADLINE: ("robust accuracy", share),
    "heldout/snr": ("SNR", number),
    "heldout/calibration_error": ("calibration error", share),
    "curvature/gamma_curv/0.5": ("γ_curv", number),
    BEST: ("best of n: gold", number),
    f"{POLICY}/gold": ("policy: change of gold", number),
    f"{POLICY}/win_rate": ("policy: win rate", share),
    f"{POLICY}/characters": ("policy: change of characters", number),
    f"{POLICY}/kl": ("policy: KL", number),
    "selection/flipped_share": ("flipped", share),
    "selection/largest_budget": ("largest budget", number),
    "augmentation/largest": ("most of one pair", number),
    "augmentation/moved": ("moved", number),
    "topped_up": ("topped up", count),
    "llm_tokens": ("LLM tokens", count),
    "seconds": ("seconds", count),
}
"""Metric of a cell → heading and format; those of benchmarks come after the first."""
LEGEND = (
    "All figures are of the last round, but for topped up, LLM tokens and seconds, which are of all rounds. "
    "Robust accuracy is the share of changed pairs that are ranked right both before and after the change. "
    "SNR is the mean of the held-out margins over their standard deviation; γ_curv is the theory's, at the "
    "medians of |Δ|. Flipped is the share of the budget that went to originals with a flipped label. Largest "
    "budget is the most that one original was given, and most of one pair how many "
    "pairs came of it, once budget had moved from originals of which the guards dropped too many texts; "
    "topped up are originals that stand in for pairs that could not be made."
)
"""The explanation of the headings of the table of means."""
WITHOUT_INTERVAL = (
    "selection/largest_budget", "augmentation/largest", "augmentation/moved", "topped_up", "llm_tokens",
    "seconds",
)  # fmt: skip
PACKAGES = ("mars", "torch", "transformers", "sentence-transformers", "numpy")
"""Packages whose versions shape the metrics."""


@dataclass(frozen=True)
class ComparisonReport:
    """All inputs of the report of a comparison."""

    config: ComparisonConfig
    command: str
    """The command that ran it."""
    cells: Sequence[Cell[Any]]
    results: pd.DataFrame
    """One row for each finished cell: arm, seed, `packages()` where it ran, and the metrics of its last
    round."""
    curves: pd.DataFrame
    """One row for each round of a finished cell: arm, seed, round, heldout/accuracy."""
    failed: dict[str, str]
    """Name of each failed cell → its error."""
    tuning: Tuning | None = None
    """What the arms chose their settings by."""

    @property
    def suite(self) -> Suite:
        """The benchmarks, the same in all cells."""
        suite: Suite = self.cells[0].experiment.evaluation.suite
        return suite

    @property
    def columns(self) -> dict[str, tuple[str, Callable[[float], str]]]:
        """The columns of the table of means: metric → heading and format."""
        return columns_of(self.suite, self.results)


def packages() -> str:
    """The installed versions of the packages that shape a cell's metrics."""
    return ", ".join(f"{name} {version(name)}" for name in PACKAGES)


def columns_of(suite: Suite, results: pd.DataFrame) -> dict[str, tuple[str, Callable[[float], str]]]:
    """The columns of the table of means that a finished cell has a value for: metric → heading and format."""
    of_benchmarks = {
        key: (label, share)
        for label, key in scores_of(suite, [dict.fromkeys(map(str, results), 0.0)]).items()
    }
    first, *others = COLUMNS.items()
    columns = dict([first]) | of_benchmarks | dict(others)
    return {name: about for name, about in columns.items() if name in results and results[name].notna().any()}


def means_table(report: ComparisonReport) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row for every arm: mean and 95% t-interval over seeds of each known metric."""
    columns = report.columns
    means = {figure: arm_means(report.results, figure) for figure in columns}
    finished = report.results["arm"].value_counts()
    rows = []
    for arm in dict.fromkeys(report.results["arm"]):
        cells = [_mean(of_arms.get(arm), figure, columns[figure][1]) for figure, of_arms in means.items()]
        rows.append([arm, count(finished[arm]), *cells])
    return ["arm", "seeds", *(heading for heading, _ in columns.values())], rows


def differences_table(report: ComparisonReport, figure: str) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row for every arm and baseline: the paired difference over seeds."""
    rows = []
    for one in differences(report.results, figure, report.config.baselines):
        mean = one.over_seeds
        span = interval(mean.value, mean.low, mean.high, show=signed)
        tested = [p_value(mean.p_value), p_value(one.adjusted_p)]
        rows.append([f"{one.arm} − {one.baseline}", count(mean.n), span, *tested, one.words])
    return ["", "seeds", "difference", "p", "Holm's p", ""], rows


def tuning_table(tuning: Tuning) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row for every setting: validation accuracy of each arm; what an arm chose is bold."""
    rows = []
    for column, setting in enumerate(tuning.settings):
        told = ", ".join(f"`{key}={value}`" for key, value in setting.items())
        shown = [
            f"**{share(of_arm[column])}**" if tuning.chosen[str(arm)] == column else share(of_arm[column])
            for arm, of_arm in tuning.accuracies.iterrows()
        ]
        rows.append([told, *shown])
    return ["setting", *map(str, tuning.accuracies.index)], rows


def rounds_table(report: ComparisonReport) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row for every arm: mean held-out accuracy over seeds after each round."""
    means = report.curves.pivot_table("heldout/accuracy", "arm", "round", sort=False)
    rows = [[str(arm), *map(share, of_rounds)] for arm, *of_rounds in means.itertuples()]
    return ["arm", *(f"round {t}" for t in means)], rows


def markdown(report: ComparisonReport) -> str:
    """The page: arms, means, differences, what failed."""
    differs = arms_table(report.cells)
    seeds = report.config.seeds
    first = report.cells[0].experiment
    parts = [
        f"# {report.config.name}",
        f"{len(report.config.arms)} arms × {len(seeds)} seeds; every cell trains on the same "
        f"{'subset of originals for a seed' if first.data.subset else 'originals'}, and is measured after "
        f"the same last round ({first.rounds}), fixed beforehand. {_matched(report.results)}",
        "## What differs between the arms",
        table(["", *differs.columns], [[f"`{key}`", *map(str, row)] for key, *row in differs.itertuples()]),
        *_tuning(report.tuning),
        "## Means",
        table(*means_table(report)),
        f"{LEGEND} Brackets are 95% t-intervals over seeds.",
        *_alignment(report),
        "LLM tokens and seconds are reported, not matched. What one cell computes of a text costs later ones "
        "nothing, so seconds depend on the order of the cells. Where an arm with τ > 0 has the mean budget "
        "for its largest, its margins were too even for τ to select by.",
    ]
    for figure in _tested(report):
        parts += [
            f"## Paired differences: {report.columns[figure][0]}",
            table(*differences_table(report, figure)),
        ]
    parts += [
        "Differences are paired by seed; p is that of a t-test, Holm's p adjusts it over a table's rows. "
        f"A difference is claimed only from {SEEDS_FOR_A_CLAIM} seeds and Holm's p < {share(ALPHA)} on. "
        "It is one on these held-out pairs and benchmarks, and for originals drawn from this preference set: "
        "seeds draw their subsets from the same pairs, and are measured on the same ones.",
        "![Held-out accuracy minus that of each baseline](figures/differences.png)",
        "## Held-out accuracy after each round",
        table(*rounds_table(report)),
        "Means over seeds. What the last round shows may depend on how many there were.",
        "![Held-out accuracy over rounds](figures/curves.png)",
    ]
    without = sorted(
        {
            cell.experiment.generation.generator
            for cell in report.cells
            if not cell.experiment.generation.by_language_model
        }
    )
    if without:
        parts.append(
            f"The synthetic texts come from `{'`, `'.join(without)}`, not from a language model: these "
            "figures compare the machinery of the arms, not what a language model would make of them."
        )
    hours = report.results["seconds"].sum() / 3600
    versions = "; or ".join(sorted(report.results["packages"].unique()))
    parts += [
        "## How it was run",
        f"    {report.command}",
        f"That was its last start. The cells ran with {versions}, and took {hours:,.2f} hours; a step that "
        "several share counts in each of them.",
    ]
    if report.failed:
        parts += ["## Failed cells", "\n".join(f"- {name}: {why}" for name, why in report.failed.items())]
    return "\n\n".join(parts) + "\n"


def write(report: ComparisonReport, folder: Path) -> None:
    """Write results.md, results.json and the figures into a folder."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, figure in (("differences", _forest_plot(report)), ("curves", _learning_curves(report))):
        figure.savefig(folder / "figures" / f"{name}.png", dpi=150)
    (folder / "results.md").write_text(markdown(report), encoding="utf-8")
    tested = pd.DataFrame(
        {
            "figure": one.figure, "arm": one.arm, "baseline": one.baseline, **one.over_seeds._asdict(),
            "adjusted_p": one.adjusted_p, "words": one.words,
        }
        for figure in _tested(report)
        for one in differences(report.results, figure, report.config.baselines)
    )  # fmt: skip
    tables = {"cells": report.results, "curves": report.curves, "differences": tested}
    values = {name: json.loads(rows.to_json(orient="records")) for name, rows in tables.items()}
    chosen = (
        {"chosen": {arm: report.tuning.settings[n] for arm, n in report.tuning.chosen.items()}}
        if report.tuning
        else {}
    )
    text = json.dumps(values | {"failed": report.failed} | chosen, indent=2)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")


def _tuning(tuning: Tuning | None) -> list[str]:
    """What each arm chose, and by what."""
    if tuning is None:
        return []
    return [
        "## What each arm chose",
        table(*tuning_table(tuning)),
        "Validation accuracy after the last round, pooled over the tuning seeds. An arm takes the bold "
        "setting into the comparison, whose seeds are others. On the "
        f"{count(tuning.pairs)} pairs of one seed an accuracy has a standard error of up to "
        f"{share(0.5 / tuning.pairs**0.5)}: between settings that are nearer to one another luck chose.",
    ]


def _alignment(report: ComparisonReport) -> list[str]:
    """What was done with the reward models of the cells."""
    align: Any = report.config.align
    if align is None or BEST not in report.columns:
        return []
    told = (
        "The last reward model of each cell chose among the same responses of the same policy "
        f"(`{align['policy']}`) to the same prompts: best of n is the mean gold, by "
        f"`{align['rewards']['gold']}`, of the response that it prefers among all of a prompt."
    )
    if f"{POLICY}/gold" in report.columns:
        told += (
            " It also trained the policy, for the same number of steps with the same seed, and the result "
            "was sampled for the same prompts. Gold and characters are differences to the untrained policy, "
            "the win rate is the share of pairs of a response of each in which gold prefers the trained "
            "policy's, and KL is its divergence from the untrained one in nats."
        )
    return [f"{told} Seeds differ in the reward model alone."]


def _matched(results: pd.DataFrame) -> str:
    """Whether all cells took equally many optimizer steps on equally many pairs."""
    trained = results[list(TRAINED)]
    if len(trained.drop_duplicates()) == 1:
        steps, pairs = trained.iloc[0]
        return f"Each took {count(steps)} optimizer steps on {count(pairs)} pairs."
    by_arm = results.groupby("arm", sort=False)[list(TRAINED)].mean()
    told = ", ".join(f"{arm} {count(steps)} on {count(pairs)}" for arm, steps, pairs in by_arm.itertuples())
    return f"**The cells are not matched**: mean optimizer steps and pairs seen are {told}."


def _tested(report: ComparisonReport) -> list[str]:
    """The metrics whose differences are tested, each a family of its own."""
    headlines = (f"{key}/{one.headline}" for key, one in report.suite.items())
    aligned = (BEST, f"{POLICY}/gold", f"{POLICY}/win_rate")
    tested = ("heldout/accuracy", robustness.HEADLINE, *headlines, *aligned)
    return [name for name in tested if name in report.columns]


def _mean(mean: SeedMean | None, figure: str, show: Callable[[float], str]) -> str:
    if mean is None:
        return ABSENT
    return (
        show(mean.value)
        if figure in WITHOUT_INTERVAL
        else interval(mean.value, mean.low, mean.high, show=show)
    )


def _forest_plot(report: ComparisonReport) -> Figure:
    """Held-out accuracy of every arm minus that of each baseline, with t-intervals."""
    found = differences(report.results, "heldout/accuracy", report.config.baselines)
    figure = Figure(figsize=(8.0, 1.2 + 0.35 * max(len(found), 1)), layout="constrained")
    axes = figure.subplots()
    for row, one in enumerate(found):
        mean = one.over_seeds
        width = [[mean.value - mean.low], [mean.high - mean.value]]  # nan draws no bar
        axes.errorbar([mean.value], [row], xerr=width, fmt="o", color="#0072B2", capsize=3)
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_yticks(range(len(found)), [f"{one.arm} − {one.baseline}" for one in found])
    axes.invert_yaxis()
    axes.set_xlabel("difference in held-out accuracy\n(paired over seeds: mean and 95% t-interval)")
    return figure


def _learning_curves(report: ComparisonReport) -> Figure:
    figure = Figure(figsize=(8.0, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=colormaps["tab20"](range(20)))  # an arm more than ten would repeat the first's
    for arm, rows in report.curves.groupby("arm", sort=False):
        means = rows.groupby("round")["heldout/accuracy"].mean()
        axes.plot(means.index, means, marker="o", label=str(arm))
    axes.axhline(0.5, color="grey", linewidth=1, linestyle=":", label="a coin")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("round")
    axes.set_ylabel("held-out accuracy, mean over seeds")
    figure.legend(loc="outside upper center", ncols=3, fontsize="small", frameon=False)
    return figure
