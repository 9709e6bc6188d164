"""The report of a run: a table of its rounds, figures, and a page that explains them.

The page claims no more than its numbers show: every accuracy has its 95% interval and the range of chance,
the gain over round 0 is called noise if its interval includes zero, and what could inflate an accuracy
(length, overconfidence, texts seen in training) is shown beside it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from mars_core.evaluation import robustness
from mars_core.evaluation.evaluation_config import Suite
from mars_core.evaluation.statistics import CONFIDENCE, PairedDifference
from mars_core.files import write_whole
from mars_core.report import figures as report_figures
from mars_core.report import robustness_section as report_robustness
from mars_core.report import score_sections as report_scores
from mars_core.report import synthetic_sections as report_synthetic
from mars_core.report import text_sections as report_texts
from mars_core.report.round_tables import Entry, by_round, cell, present, values_of, with_ends
from mars_core.report.text_sections import RoundTexts
from mars_core.report.wording import (
    count,
    interval,
    joined,
    number,
    probability,
    share,
    signed,
    summed,
    table,
)

CAPTIONS = {
    "accuracy": "Validation and held-out accuracy over rounds",
    "calibration": "Accuracy against confidence on held-out pairs",
    "margins": "Margins of the originals in each round",
    "budget": "Budget of each original against its margin",
    "synthetic": "Margins of the synthetic pairs before and after the fit",
    "curvature": "Curvature and information over rounds",
}
"""Figures by name, with their captions."""


@dataclass(frozen=True)
class RunReport:
    """All inputs of the report of a run."""

    name: str
    """Name of the run."""
    rounds: list[dict[str, float]]
    """Metrics of round 0, 1, …, by the names under which they are logged; any may be missing or nan."""
    best: int
    """Round with the best validation accuracy."""
    difference: PairedDifference | None
    """Held-out accuracy of the best round (of the last, if the best is round 0) minus that of round 0; None
    if there is only round 0."""
    suite: Suite
    """The benchmarks that were run."""
    benchmarks: dict[str, PairedDifference]
    """The same differences for the benchmarks' scores, by title and score; empty if none was run."""
    generator: str
    """What wrote the synthetic texts: the backend and, if it uses a language model, the model's name."""
    by_language_model: bool
    """Whether that is a language model."""
    margins: dict[int, NDArray[Any]]
    """Round ≥ 1 → margins [n] of the originals by the previous round's model."""
    budgets: dict[int, NDArray[Any]]
    """Round ≥ 1 → budgets [n] of the same originals in the same order."""
    heldout: dict[int, NDArray[Any]]
    """Round → margins of the held-out pairs, for round 0 and the one that is compared with it."""
    synthetic: dict[int, NDArray[Any]]
    """Round ≥ 1 → margins [2, m] of its synthetic pairs, before and after the fit on them."""
    data_notes: list[str]
    """Sentences about the data, such as how many rows were left out and why."""
    robustness: PairedDifference | None = None
    """Robust accuracy of the same round minus that of round 0; None where one of the two was not measured."""
    texts: RoundTexts | None = None
    """Texts of the last round that made any; None if no round did."""
    is_drawn: bool = True
    """Whether to draw figures: a comparison draws its own, but none for its cells."""

    @property
    def compared(self) -> int:
        """The round that is compared with round 0."""
        return self.best or len(self.rounds) - 1


def rounds_table(report: RunReport) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row for every round; metrics that no round has get no column."""
    entries: list[Entry] = [
        ("train pairs", summed, "train/originals", "train/synthetic"),
        ("validation", interval, *with_ends("validation/accuracy")),
        ("held-out", interval, *with_ends("heldout/accuracy")),
        ("chance", partial(joined, share, "–"), "heldout/chance_low", "heldout/chance_high"),
        ("mean margin", number, "heldout/mean_margin"),
        ("robust accuracy", share, robustness.HEADLINE),
        ("SNR", number, "heldout/snr"),
        *((label, share, key) for label, key in report_scores.scores_of(report.suite, report.rounds).items()),
        ("seconds", count, "seconds"),
    ]
    entries = present(report.rounds, entries)
    marks = [" (best)" if t == report.best else "" for t in range(len(report.rounds))]
    rows = [
        [f"{t}{mark}", *(cell(metrics, entry) for entry in entries)]
        for t, (metrics, mark) in enumerate(zip(report.rounds, marks, strict=True))
    ]
    return ["round", *(label for label, *_ in entries)], rows


def figures(report: RunReport) -> dict[str, Figure]:
    """The figures: `accuracy` always, the others if the run has the data."""
    return {name: draw() for name, draw in _drawings(report).items()}


def _drawings(report: RunReport) -> dict[str, Callable[[], Figure]]:
    if not report.is_drawn:
        return {}
    panels = {
        one.title: {"total": f"{key}/{one.headline}", **sections}
        for key, one in report.suite.items()
        if (sections := report_scores.section_keys(key, one, report.rounds))
    }
    drawings: dict[str, Callable[[], Figure]] = {
        "accuracy": partial(report_figures.accuracy, report.rounds, report.best, panels)
    }
    if report.heldout:
        drawings["calibration"] = partial(report_figures.calibration, report.heldout)
    if report.margins:
        drawings["margins"] = partial(report_figures.margins, report.margins)
    if report.budgets:
        drawings["budget"] = partial(report_figures.budget, report.margins, report.budgets)
    if report.synthetic:
        limits = {t: report.rounds[t]["synthetic/low_limit"] for t in report.synthetic}
        drawings["synthetic"] = partial(report_figures.synthetic, report.synthetic, limits)
    if any("curvature/beta" in metrics for metrics in report.rounds):
        drawings["curvature"] = partial(report_figures.curvature, report.rounds)
    return drawings


def markdown(report: RunReport) -> str:
    """The page: first the result and its reliability, then how it came about."""
    rounds, compared = report.rounds, report.compared
    drawn = _drawings(report)
    shown = {
        name: [f"![{caption}](figures/{name}.png)"] if name in drawn else []
        for name, caption in CAPTIONS.items()
    }
    parts = [
        f"# {report.name}",
        *_result(report),
        "## Rounds",
        table(*rounds_table(report)),
        "Accuracies are shares of pairs, brackets their 95% intervals. Train pairs are originals + synthetic "
        "ones. Chance is the range of 95% of a coin's accuracies on the held-out pairs; mean margin and SNR "
        "are of the held-out pairs too.",
        *shown["accuracy"],
        *report_scores.against_round_0(compared, report.difference, report.benchmarks),
        *report_scores.what_could_fool(rounds, compared, report.suite),
        *shown["calibration"],
        *report_robustness.section(rounds, compared, report.robustness),
        *(part for key, one in report.suite.items() for part in report_scores.benchmark(key, one, rounds)),
        *report_synthetic.spending(rounds),
        *shown["margins"],
        *shown["budget"],
        *report_synthetic.augmentation(rounds),
        *shown["synthetic"],
        *(report_texts.originals(report.texts) + report_texts.dropped(report.texts) if report.texts else []),
        *report_synthetic.theory(rounds),
        *shown["curvature"],
        *_time(report),
    ]
    if report.data_notes:
        parts += ["## Data", "\n".join(f"- {note}" for note in report.data_notes)]
    return "\n\n".join(parts) + "\n"


def write(report: RunReport, folder: Path) -> str:
    """Write report.md and its figures, in figures/, into a folder, which is made if necessary.

    Returns:
        The page.
    """
    for name, figure in figures(report).items():
        write_whole(folder / "figures" / f"{name}.png", partial(figure.savefig, dpi=150, format="png"))
    page = markdown(report)
    write_whole(folder / "report.md", lambda path: path.write_text(page, encoding="utf-8"))
    return page


def _result(report: RunReport) -> list[str]:
    best = report.rounds[report.best]
    # A backbone that is already a reward model is round 0 without a fit.
    fitted = any(key.startswith("fit/") for key in report.rounds[0])
    baseline = "the originals alone" if fitted else "the backbone as it came"
    if len(report.rounds) == 1:
        headline = "**Only round 0 has run**, with a validation accuracy of"
    elif report.best == 0:
        headline = f"**No round improved on {baseline}**: round 0 has the best validation accuracy,"
    else:
        headline = f"**Best round: {report.best} of {len(report.rounds) - 1}**, with a validation accuracy of"
    coin = joined(share, "–", *values_of(best, "heldout/chance_low", "heldout/chance_high"))
    accuracy, limit, n = values_of(best, "heldout/accuracy", "heldout/chance_high", "heldout/n")
    parts = [
        f"{headline} {interval(*values_of(best, *with_ends('validation/accuracy')))}. Its held-out accuracy "
        f"is {interval(*values_of(best, *with_ends('heldout/accuracy')))} on {count(n)} pairs; a coin gets "
        f"{coin}{', and this is not above it' if accuracy <= limit else ''}."
    ]
    if report.difference:
        value, low, high, p_value, _, only_compared, only_first, effect_size = report.difference
        which = (
            "Held-out accuracy" if report.best else f"Held-out accuracy of round {report.compared}, the last,"
        )
        parts.append(
            f"{which} minus that of round 0 ({baseline}) on the same pairs: "
            f"{signed(value)} [{signed(low)}, {signed(high)}], {probability(p_value)}. "
            f"{_verdict(report.difference)} Right in round {report.compared} only: {only_compared:,} pairs; "
            f"in round 0 only: {only_first:,}. Effect size (Cohen's g, from −.5 to .5): "
            f"{signed(effect_size)}."
        )
    parts.append(
        "This is one run with one seed, and its intervals speak of other pairs, not of other seeds. The best "
        "round was chosen on validation, not on held-out. A later round may also have had more optimizer "
        "steps, so a gain over round 0 need not come from the synthetic pairs."
    )
    if not report.by_language_model:
        parts.append(
            f"The synthetic texts come from `{report.generator}`, not from a language model, so the "
            "figures measure the machinery rather than the paper's method."
        )
    else:
        parts.append(f"The synthetic texts come from `{report.generator}`.")
    return parts


def _verdict(difference: PairedDifference) -> str:
    """The difference in words. Interval and test may disagree if one is near its limit."""
    if not difference.only_a and not difference.only_b:
        return "**Nothing is shown: every pair is ranked alike in both rounds.**"
    within_noise = difference.low <= 0 <= difference.high
    if within_noise:
        words = "**Within noise: the interval includes 0.**"
    else:
        side = "Above" if difference.value > 0 else "Below"
        words = f"**{side} round 0: the interval excludes 0.**"
    if within_noise == (difference.p_value < 1 - CONFIDENCE):
        words += " The test disagrees: too close to call."
    return words


def _time(report: RunReport) -> list[str]:
    guards = ("rewriting/guards/seconds", "augmentation/guards/seconds")
    parts = ("fit/seconds", "rewriting/seconds", "augmentation/seconds", *guards)
    entries: list[Entry] = [
        ("seconds", count, "seconds"),
        ("of which fit", count, parts[0]),
        ("of which rewriting requests", count, parts[1]),
        ("of which augmentation requests", count, parts[2]),
        ("of which guards of rewriting + augmentation", partial(joined, count, " + "), *guards),
        ("of which all else", _remainder, "seconds", *parts),
        ("optimizer steps", count, "fit/steps"),
        ("tokens per second of the fit", count, "fit/tokens_per_second"),
        ("padding in the fit, share of tokens", share, "fit/padding"),
    ]
    return by_round("Where the time went", report.rounds, entries)


def _remainder(whole: float, *parts: float) -> str:
    return count(whole - sum(part for part in parts if not math.isnan(part)))
