"""The figures of a report: every axis is named, every line is in the legend, and chance is marked."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mars_core.evaluation.calibration import expected_calibration_error, reliability
from mars_core.report import wording
from mars_core.report.round_tables import Rounds

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of Okabe and Ito, which the colour-blind can tell apart; the markers tell the lines apart too."""
MARKERS = "osD^vP*"
WIDTH_INCHES = 8.0
MARGIN_LABEL = "margin of an original, logit P(chosen ≻ rejected), by the previous round's model"
SYNTHETIC_LABEL = "margin of a synthetic pair, logit P(chosen ≻ rejected)"


def accuracy(rounds: Rounds, best: int, benchmarks: Mapping[str, Mapping[str, str]]) -> Figure:
    """Accuracies over rounds: one panel for pairs, and one for each benchmark.

    Args:
        rounds: the metrics of each round.
        best: the round that is marked.
        benchmarks: title of each → label of a line → its metric.
    """
    columns = min(2, 1 + len(benchmarks))
    rows = math.ceil((1 + len(benchmarks)) / columns)
    figure = Figure(figsize=(WIDTH_INCHES, 4.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[1 + len(benchmarks) :]:
        panel.remove()
    panels = panels[: 1 + len(benchmarks)]
    pairs = {"validation": "validation/accuracy", "held-out": "heldout/accuracy"}
    _draw_accuracies(panels[0], rounds, best, pairs)
    panels[0].set(title="preference pairs", ylabel="accuracy (share of pairs)")
    bands = [metrics for metrics in rounds if "heldout/chance_low" in metrics]
    if bands:
        ends = bands[0]["heldout/chance_low"], bands[0]["heldout/chance_high"]
        panels[0].axhspan(*ends, color="0.88", zorder=0, label="chance, 95% on held-out")
    for panel, (title, lines) in zip(panels[1:], benchmarks.items(), strict=True):
        _draw_accuracies(panel, rounds, best, lines)
        panel.set(title=title, ylabel="score (share)")
    for panel in panels:
        panel.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.23), ncols=2, frameon=False, fontsize="small"
        )
    return figure


def margins(by_round: Mapping[int, NDArray[Any]]) -> Figure:
    """Histograms of the originals' margins, one panel for each round."""
    figure = Figure(figsize=(WIDTH_INCHES, 0.8 + 1.5 * len(by_round)), layout="constrained")
    panels = figure.subplots(len(by_round), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    edges = np.histogram_bin_edges(np.concatenate(list(by_round.values())), bins=60)
    for panel, (number, values) in zip(panels, sorted(by_round.items()), strict=True):
        mean = float(values.mean())
        panel.hist(values, bins=edges, histtype="stepfilled", color=PALETTE[0], alpha=0.5)
        panel.axvline(0, color="black", linewidth=1)
        panel.axvline(mean, color=PALETTE[1], linestyle="--")
        said = f"mean {wording.number(mean)} (dashed), {(values <= 0).mean():.0%} mis-ranked"
        panel.set_title(f"round {number}: {said}", fontsize=10, loc="left")
        panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.supxlabel(MARGIN_LABEL)
    figure.supylabel("originals per bin")
    return figure


def budget(margins: Mapping[int, NDArray[Any]], budgets: Mapping[int, NDArray[Any]]) -> Figure:
    """Each original's budget against its margin, one panel for each round."""
    columns = min(3, len(budgets))
    rows = math.ceil(len(budgets) / columns)
    figure = Figure(figsize=(WIDTH_INCHES, 0.9 + 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, (number, budget) in zip(panels, sorted(budgets.items()), strict=False):
        margin = margins[number]
        panel.scatter(margin, budget, s=9, color=PALETTE[0], alpha=0.3, linewidths=0, label="an original")
        # Groups of equal size, because margins are sparse at both ends.
        groups = np.array_split(np.argsort(margin), min(12, len(margin)))
        means = np.array([[margin[group].mean(), budget[group].mean()] for group in groups])
        panel.plot(*means.T, color=PALETTE[1], marker="o", ms=4, label="means of twelfths by margin")
        panel.axvline(0, color="black", linewidth=1)
        panel.set_title(f"round {number}", fontsize=10)
        panel.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    for panel in panels[len(budgets) :]:
        panel.set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    figure.supxlabel(MARGIN_LABEL)
    figure.supylabel("budget of an original (units of B)")
    return figure


def synthetic(before_and_after: Mapping[int, NDArray[Any]], low_limits: Mapping[int, float]) -> Figure:
    """Histograms of the synthetic pairs' margins before and after the fit, one panel for each round."""
    figure = Figure(figsize=(WIDTH_INCHES, 1.2 + 1.5 * len(before_and_after)), layout="constrained")
    panels = figure.subplots(len(before_and_after), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    edges = np.histogram_bin_edges(np.concatenate(list(before_and_after.values()), axis=None), bins=60)
    for panel, (number, (before, after)) in zip(panels, sorted(before_and_after.items()), strict=True):
        limit = low_limits[number]
        panel.axvspan(-limit, limit, color="0.9", zorder=0, label="low margin: originals' lowest quarter")
        panel.hist(before, bins=edges, color=PALETTE[0], alpha=0.4, label="before the fit")
        panel.hist(after, bins=edges, histtype="step", color=PALETTE[1], linewidth=1.5, label="after the fit")
        panel.axvline(0, color="black", linewidth=1)
        said = (
            f"{(np.abs(before) < limit).mean():.0%} of low margin before the fit, 25% expected of originals"
        )
        panel.set_title(f"round {number}: {said}", fontsize=10, loc="left")
        panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    figure.supxlabel(SYNTHETIC_LABEL)
    figure.supylabel("synthetic pairs per bin")
    return figure


def calibration(heldout: Mapping[int, NDArray[Any]]) -> Figure:
    """Accuracy against confidence on the held-out pairs, one panel for each round."""
    figure = Figure(figsize=(WIDTH_INCHES, 4.2), layout="constrained")
    panels = figure.subplots(1, max(2, len(heldout)), sharex=True, sharey=True)
    for panel, (number, margin) in zip(panels, sorted(heldout.items()), strict=False):
        table = reliability(margin)
        bars = [table["accuracy"] - table["accuracy_low"], table["accuracy_high"] - table["accuracy"]]
        panel.plot([0.5, 1], [0.5, 1], color="black", linewidth=1, label="perfect calibration")
        panel.axhline(0.5, color="0.4", linestyle="--", linewidth=1, label="chance")
        panel.errorbar(
            table["confidence"], table["accuracy"], np.maximum(bars, 0), color=PALETTE[0], marker="o", ms=5,
            capsize=2, linestyle="none", label="bins of equally many pairs, 95% intervals",
        )  # fmt: skip
        error = wording.share(expected_calibration_error(margin))
        panel.set_title(f"round {number}: calibration error {error}, {len(margin):,} pairs", fontsize=10)
        panel.grid(color="0.92")
    for panel in panels[len(heldout) :]:
        panel.set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    figure.supxlabel("confidence σ(|Δ|) that the model has in its order of a held-out pair")
    figure.supylabel("accuracy (share of pairs)")
    return figure


def curvature(rounds: Rounds) -> Figure:
    """Mean curvature of the loss over rounds, and what the synthetic pairs add to the Fisher information."""
    numbers = [t for t, metrics in enumerate(rounds) if "curvature/beta" in metrics]
    measured = [rounds[t] for t in numbers]
    figure = Figure(figsize=(WIDTH_INCHES, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, color, marker in zip(("originals", "synthetic", "mixture"), PALETTE, MARKERS, strict=False):
        values = [metrics[f"curvature/{name}/mean_c"] for metrics in measured]
        left.plot(numbers, values, color=color, marker=marker, label=name)
    left.axhline(0.25, color="0.4", linestyle="--", linewidth=1, label="greatest possible, at Δ = 0")
    left.set(title="mean curvature of the loss", ylabel="mean c(Δ) = σ(Δ)(1 − σ(Δ))")
    series = {
        "measured, on average (trace)": "mean_gain",
        "measured, in the worst direction": "worst_gain",
        "theorem's bound, where its premises hold": "bound",
        "share α of originals, a floor": "alpha",
    }
    shifts = 0.04 * (np.arange(len(series)) - 1.5)  # so that no point hides another
    for shift, (label, key), color, marker in zip(shifts, series.items(), PALETTE, MARKERS, strict=False):
        values = [metrics[f"curvature/{key}"] for metrics in measured]
        right.plot(np.array(numbers) + shift, values, color=color, marker=marker, label=label)
    right.axhline(1, color="0.4", linestyle="--", linewidth=1, label="no gain over the originals")
    right.set(
        title="Fisher information of the mixture", ylabel="factor on that of the originals", ylim=(0, None)
    )
    for panel in (left, right):
        panel.set_xlabel("round")
        panel.set_xticks(numbers)
        panel.grid(axis="y", color="0.92")
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), frameon=False)
    return figure


def score_distributions(histograms: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]) -> Figure:
    """Histograms of columns of scores, one panel for each.

    Args:
        histograms: column → edges [b + 1] and counts [b] of its bins.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 0.8 + 1.7 * len(histograms)), layout="constrained")
    panels = figure.subplots(len(histograms), 1, squeeze=False)[:, 0]
    for panel, (name, (edges, counts)) in zip(panels, histograms.items(), strict=True):
        panel.stairs(counts, edges, fill=True, color=PALETTE[0], alpha=0.5)
        if name == "margin":
            panel.axvline(0, color="black", linewidth=1)
        panel.set_title(f"{name.replace('_', ' ')}: {counts.sum():,}", fontsize=10, loc="left")
        panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.supylabel("rows per bin")
    return figure


def _draw_accuracies(axes: Axes, rounds: Rounds, best: int, series: Mapping[str, str]) -> None:
    """Lines over rounds with 95% error bars, slightly shifted so that no bar hides another."""
    numbers = np.arange(len(rounds))
    shifts = 0.05 * (np.arange(len(series)) - (len(series) - 1) / 2)
    for shift, (label, key), color, marker in zip(shifts, series.items(), PALETTE, MARKERS, strict=False):
        ends = (key, f"{key}_low", f"{key}_high")
        value, low, high = np.array([[metrics.get(end, math.nan) for end in ends] for metrics in rounds]).T
        bars = np.maximum([value - low, high - value], 0)
        axes.errorbar(numbers + shift, value, bars, color=color, marker=marker, ms=5, capsize=2, label=label)
    axes.axhline(0.5, color="0.4", linestyle="--", linewidth=1, label="chance")
    axes.set_xticks(numbers, [f"{number}\nbest" if number == best else f"{number}" for number in numbers])
    axes.set(xlabel="round", xlim=(-0.4, len(numbers) - 0.6))
    axes.grid(axis="y", color="0.92")
