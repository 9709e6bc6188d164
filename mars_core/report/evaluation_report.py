"""The pages of `mars evaluate`: of one model, and of several with a picture of models × benchmarks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mars_core.evaluation.coverage import COVERAGE
from mars_core.evaluation.evaluation_config import Suite
from mars_core.evaluation.league import Source
from mars_core.report.robustness_section import transforms_table
from mars_core.report.wording import ABSENT, interval, probability, share, signed, table

LIGHT = 0.55
"""Scores from which the text of a cell is white, on the darker half of the colours."""


def evaluation_page(
    summary: Mapping[str, Any],
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    curves: str | None = None,
) -> str:
    """The page of one model.

    Args:
        summary: what summary.json holds.
        headers: of the table of its scores.
        rows: that table.
        curves: the file of the picture of its curves, if there is one.
    """
    sources = [
        f"- {name}: `{about['source']}`, {about['rows']:,} rows" for name, about in summary["sources"].items()
    ]
    metrics = {name: math.nan if value is None else value for name, value in summary["metrics"].items()}
    changed = transforms_table(metrics)
    parts = [
        f"# {summary['model']}",
        table(headers, rows, align="---"),
        *([f"![Scores over n]({curves})"] if curves else []),
        *(["## Robustness by transform", *changed] if changed else []),
        "## Sources",
        "\n".join(sources),
        "## Notes",
        "\n".join(f"- {note}" for note in summary["notes"]),
    ]
    return "\n\n".join(parts) + "\n"


def curves_figure(suite: Suite, metrics: Mapping[str, float]) -> Figure | None:
    """The curves that benchmarks declare, with 95% intervals, one panel each; None where there is none.

    Their number n is drawn by its logarithm. Above it stands ln n − (n − 1)/n, the most by which the choice
    of the best of n moves a policy, as a Kullback–Leibler divergence in nats.
    """
    drawn = [
        (one.title, called, {n: f"{key}/{name}" for n, name in names.items() if f"{key}/{name}" in metrics})
        for key, one in suite.items()
        for called, names in one.curves.items()
    ]
    drawn = [(title, called, names) for title, called, names in drawn if len(names) > 1]
    if not drawn:
        return None
    figure = Figure(figsize=(8, 3.6 * len(drawn)), layout="constrained")
    for panel, (title, called, names) in zip(
        figure.subplots(len(drawn), 1, squeeze=False)[:, 0], drawn, strict=True
    ):
        value, low, high = ([metrics[name + end] for name in names.values()] for end in ("", "_low", "_high"))
        panel.fill_between(list(names), low, high, color="C0", alpha=0.2, linewidth=0)
        panel.plot(list(names), value, "o-", color="C0")
        panel.set_xscale("log", base=2)
        panel.set_xticks(list(names), [str(n) for n in names])
        panel.minorticks_off()
        panel.set(title=title, xlabel="n", ylabel=called)
        above = panel.secondary_xaxis("top")
        above.minorticks_off()
        above.set_xticks(list(names), [f"{math.log(n) - (n - 1) / n:.2f}" for n in names])
        above.set_xlabel("ln n − (n − 1)/n, nats")
    return figure


def league_table(models: Sequence[str], sources: Sequence[Source]) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row for every model: score, 95% interval and rank for each source."""
    rows = [[model, *(_cell(source, number) for source in sources)] for number, model in enumerate(models)]
    return ["model", *(source.title for source in sources)], rows


def league_page(
    models: Sequence[str], sources: Sequence[Source], as_one: Mapping[str, Mapping[str, float]]
) -> str:
    """The page of several models; the picture is league.png beside it.

    Args:
        models: their names.
        sources: their scores.
        as_one: what `together` says of them.
    """
    parts = [
        f"# {len(models)} models",
        table(*league_table(models, sources)),
        "Scores with their 95% intervals, and ranks (#). A model's rank is one more than the number of "
        "models that are shown to be better: whose difference to it, paired on the same rows and with the "
        "rows of a prompt for one draw, has a 95% interval above zero and p < .05. Others share a rank, "
        "though one has the greater score. The intervals beside the scores are of each model alone and do "
        "not decide.",
        "![Scores of models on benchmarks](league.png)",
    ]
    compared = [source for source in sources if source.differences]
    if compared:
        rows = [
            [
                source.title,
                f"{models[better]} − {models[worse]}",
                interval(one.value, one.low, one.high, show=signed),
                probability(one.p_value),
                f"{one.only_a:,} / {one.only_b:,} of {one.n:,}",
            ]
            for source in compared
            for (better, worse), one in source.differences.items()
        ]
        parts += [
            "## Differences",
            table(["", "models", "difference", "p", "better in one"], rows, align="---"),
            "p is of each row alone. The last column counts the rows on which the first / the second does "
            "better.",
        ]
    if as_one:
        shown = [*(f"accuracy_of_{percent}" for percent in COVERAGE), "error_auroc", "margin_error_auroc"]
        rows = [[title, *(share(told[measure]) for measure in shown)] for title, told in as_one.items()]
        headers = [
            "", "all pairs", *(f"surest {percent}%" for percent in COVERAGE[1:]),
            "AUROC, disagreement", "AUROC, margin",
        ]  # fmt: skip
        parts += [
            "## The models as one",
            table(headers, rows),
            "Accuracy of the mean margin, each model's divided by their root mean square, on all pairs and "
            "on those on which the models disagree least. AUROC: how often a pair that is ranked wrong is "
            "less sure than one that is ranked right, by how far the models disagree and by the size of the "
            "mean margin; .5 tells nothing. Read this only for models that differ in nothing but their seed.",
        ]
    return "\n\n".join(parts) + "\n"


def league_figure(models: Sequence[str], sources: Sequence[Source]) -> Figure:
    """Scores of models (rows) on sources (columns), with ranks; the darker a cell, the greater its score."""
    scores = np.array([[source.scores[number].value for source in sources] for number in range(len(models))])
    longest = max(len(_short(model)) for model in models)
    figure = Figure(
        figsize=(1.2 + 0.085 * longest + 1.25 * len(sources), 1.3 + 0.62 * len(models)), layout="constrained"
    )
    axes = figure.subplots()
    axes.imshow(np.ma.masked_invalid(scores), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(sources)), [source.title.replace(" ", "\n") for source in sources])
    axes.set_yticks(range(len(models)), list(map(_short, models)))
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row in range(len(models)):
        for column, source in enumerate(sources):
            value, rank = scores[row, column], source.ranks[row]
            said = share(value) if rank is None else f"{share(value)}\n#{rank}"
            axes.text(
                column, row, said, ha="center", va="center", fontsize=10,
                color="white" if value > LIGHT else "black",
            )  # fmt: skip
    return figure


def _cell(source: Source, model: int) -> str:
    score, rank = source.scores[model], source.ranks[model]
    if math.isnan(score.value):
        return ABSENT
    return interval(*score) if rank is None else f"{interval(*score)} #{rank}"


def _short(model: str) -> str:
    """The end of a long name, which is where models differ."""
    return model if len(model) <= 40 else f"…{model[-39:]}"
