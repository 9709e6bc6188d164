"""The page of `mars winrate`: rates with what could fool them, and preference over length as a picture."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mars_core.alignment.judgements import Judgements
from mars_core.alignment.win_rates import WinRates
from mars_core.evaluation.statistics import Interval
from mars_core.files import write_whole
from mars_core.report import wording

BINS = 10
"""Of pairs by their difference in length, each with as many."""


def rows(judgements: Judgements, rates: WinRates, agreement: tuple[Interval, int] | None) -> list[list[str]]:
    """What is measured, its value in percent, and what it means."""
    interval = partial(wording.interval, show=_percent)
    told = [
        [
            "win rate",
            interval(*rates.plain),
            f"preference for {judgements.model} over {judgements.baseline}, ties half",
        ],
        *(
            [name, _percent(value), "expected of responses as long as the baseline's"]
            for name, value in rates.length_controlled.items()
        ),
        ["judgements", f"{rates.judgements:,}", f"of {judgements.table['prompt'].nunique():,} prompts"],
        ["ties", f"{rates.ties:,}", "neither is preferred"],
        ["missing", f"{rates.missing:,}", "the judge's answer could not be read"],
    ]
    if rates.missing:
        ends = f"{_percent(rates.if_missing_lost)} to {_percent(rates.if_missing_won)}"
        told.append(["win rate's bounds", ends, "if all missing ones were lost, or won"])
    told.append(["longer", _percent(rates.longer), f"of {judgements.model}'s responses, in characters"])
    if rates.position:
        both = f"of {rates.position.pairs:,} pairs that were judged in both orders"
        told += [
            [
                "first wins",
                interval(*rates.position.first_wins),
                f"{both}; 50 for a judge that ignores the order",
            ],
            ["same in both orders", interval(*rates.position.consistent), both],
        ]
    if agreement:
        value, n = agreement
        told.append(
            ["agreement", interval(*value), f"with the recorded judge, on {n:,} pairs where neither ties"]
        )
    return told


def summary(
    judgements: Judgements, rates: WinRates, agreement: tuple[Interval, int] | None
) -> dict[str, Any]:
    """All figures by name, rates in percent; what does not exist is null."""
    position = rates.position
    of_position = {
        "pairs_in_both_orders": position.pairs if position else 0,
        **_ends("first_wins", position.first_wins if position else None),
        **_ends("same_in_both_orders", position.consistent if position else None),
    }
    return {
        "model": judgements.model,
        "baseline": judgements.baseline,
        "form": judgements.form,
        **_ends("win_rate", rates.plain),
        "win_rate_if_missing_lost": 100 * rates.if_missing_lost,
        "win_rate_if_missing_won": 100 * rates.if_missing_won,
        **{name: 100 * value for name, value in rates.length_controlled.items()},
        "longer": 100 * rates.longer,
        **{name: getattr(rates, name) for name in ("judgements", "missing", "ties")},
        **of_position,
        **(_ends("agreement", agreement[0]) | {"pairs_of_agreement": agreement[1]} if agreement else {}),
        "notes": list(rates.notes),
    }


def markdown(judgements: Judgements, rates: WinRates, agreement: tuple[Interval, int] | None) -> str:
    """The page; the picture is winrate.png beside it."""
    parts = [
        f"# {judgements.model} against {judgements.baseline}",
        wording.table(["", "%", ""], rows(judgements, rates, agreement), align="---"),
        "Intervals are 95% intervals over prompts: all judgements of a prompt are one draw.",
        "![Preference over the difference in length](winrate.png)",
        *rates.notes,
    ]
    return "\n\n".join(parts) + "\n"


def write(
    judgements: Judgements, rates: WinRates, agreement: tuple[Interval, int] | None, folder: Path
) -> None:
    """Write winrate.md, winrate.json with all figures, and winrate.png."""
    page = markdown(judgements, rates, agreement)
    numbers = json.dumps(summary(judgements, rates, agreement), indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / "winrate.md", lambda path: path.write_text(page, encoding="utf-8"))
    write_whole(folder / "winrate.json", lambda path: path.write_text(numbers, encoding="utf-8"))
    picture = length_figure(judgements.pairs.dropna(subset="preference"), rates)
    write_whole(folder / "winrate.png", partial(picture.savefig, dpi=150, format="png"))


def length_figure(pairs: pd.DataFrame, rates: WinRates) -> Figure:
    """Mean preference over the difference in length, in bins of as many pairs; the rates as lines.

    Args:
        pairs: with prompt, response, baseline and preference.
        rates: of them.
    """
    longer_by = (pairs["response"].str.len() - pairs["baseline"].str.len()).to_numpy()
    order = np.argsort(longer_by, kind="stable")
    bins = np.array_split(order, min(BINS, len(order)))
    preference = 100 * pairs["preference"].to_numpy()
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        [np.median(longer_by[places]) for places in bins],
        [preference[places].mean() for places in bins],
        "o-", color="C0", label=f"mean of about {len(bins[0]):,} pairs",
    )  # fmt: skip
    axes.axhline(100 * rates.plain.value, color="C0", linestyle=":", label="win rate")
    for number, (name, value) in enumerate(rates.length_controlled.items(), start=1):
        axes.axhline(100 * value, color=f"C{number}", linestyle="--", label=name)
    axes.axvline(0, color="0.6", linewidth=1)
    axes.set(
        xlabel="by how many characters the response is longer (median of the bin)", ylabel="preference, %",
        ylim=(0, 100),
    )  # fmt: skip
    axes.set_xscale("symlog", linthresh=100)
    axes.legend(frameon=False)
    return figure


def _percent(value: float) -> str:
    return wording.ABSENT if math.isnan(value) else f"{100 * value:.4f}"


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    values = interval or (math.nan,) * 3
    return {
        f"{name}{end}": None if math.isnan(value) else 100 * value
        for end, value in zip(("", "_low", "_high"), values, strict=True)
    }
