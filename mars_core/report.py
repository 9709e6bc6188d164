"""What a person reads after a run: a table of its rounds, figures, and a page that says what they show.

The page claims no more than its numbers: every accuracy stands with its 95% interval and the range that a
coin gets, the gain over round 0 is called noise where its interval includes zero, and what could fool an
accuracy (length, sureness, texts seen in training) stands beside it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from mars_core import contamination, curvature, report_figures, synthetic_margins
from mars_core.rewardbench import ROWS
from mars_core.statistics import CONFIDENCE, PairedDifference, holm
from mars_core.whole_files import write_whole
from mars_core.wording import (
    ABSENT,
    count,
    interval,
    joined,
    number,
    probability,
    share,
    signed,
    small,
    summed,
    table,
)

Entry = tuple[str, Callable[..., str], *tuple[str, ...]]
"""A line or column of a table: its label, how a cell reads, and the metrics of a round that make the cell."""


@dataclass(frozen=True)
class RunReport:
    """All that the report of a run rests on."""

    name: str
    """Name of the run."""
    rounds: list[dict[str, float]]
    """Metrics of round 0, 1, …, under the names they are logged by; any may be missing or nan."""
    best: int
    """Round with the best validation accuracy."""
    difference: PairedDifference | None
    """Held-out accuracy of the best round, or where that is round 0 of the last, minus that of round 0; None
    where there is only round 0."""
    benchmarks: dict[str, PairedDifference]
    """The same differences of RewardBench's scores, `total` first; empty where RewardBench was not run."""
    generator: str
    """Who wrote the synthetic texts: `rules`, or `vllm:` and the name of the served model."""
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

    @property
    def compared(self) -> int:
        """The round that is compared with round 0."""
        return self.best or len(self.rounds) - 1


def rounds_table(report: RunReport) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row of cells for every round; metrics that no round has get no column."""
    entries: list[Entry] = [
        ("train pairs", summed, "train/originals", "train/synthetic"),
        ("validation", interval, *_with_ends("validation/accuracy")),
        ("held-out", interval, *_with_ends("heldout/accuracy")),
        ("chance", partial(joined, share, "–"), "heldout/chance_low", "heldout/chance_high"),
        ("mean margin", number, "heldout/mean_margin"),
        ("SNR", number, "heldout/snr"),
        ("RewardBench", share, "rewardbench/total"),
        *((section, share, key) for section, key in _sections(report).items()),
        ("seconds", count, "seconds"),
    ]
    entries = _present(report.rounds, entries)
    marks = [" (best)" if t == report.best else "" for t in range(len(report.rounds))]
    rows = [
        [f"{t}{mark}", *(_cell(metrics, entry) for entry in entries)]
        for t, (metrics, mark) in enumerate(zip(report.rounds, marks, strict=True))
    ]
    return ["round", *(label for label, *_ in entries)], rows


def figures(report: RunReport) -> dict[str, Figure]:
    """`accuracy` always; the others, as far as the run has what they show."""
    drawn = {"accuracy": report_figures.accuracy(report.rounds, report.best, _sections(report))}
    if report.heldout:
        drawn["calibration"] = report_figures.calibration(report.heldout)
    if report.margins:
        drawn["margins"] = report_figures.margins(report.margins)
    if report.budgets:
        drawn["budget"] = report_figures.budget(report.margins, report.budgets)
    if report.synthetic:
        limits = {t: report.rounds[t]["synthetic/low_limit"] for t in report.synthetic}
        drawn["synthetic"] = report_figures.synthetic(report.synthetic, limits)
    if any("curvature/beta" in metrics for metrics in report.rounds):
        drawn["curvature"] = report_figures.curvature(report.rounds)
    return drawn


def markdown(report: RunReport) -> str:
    """The page: the result and how far to trust it, then what it came from."""
    parts = [
        f"# {report.name}",
        *_result(report),
        "## Rounds",
        table(*rounds_table(report)),
        "Accuracies are shares of pairs, brackets their 95% intervals. Train pairs are originals + synthetic "
        "ones. Chance is the range of 95% of a coin's accuracies on the held-out pairs; mean margin and SNR "
        "are of the held-out pairs too.",
        "![Validation and held-out accuracy over rounds](figures/accuracy.png)",
        *_against_round_0(report),
        *_what_could_fool(report),
        *_rewardbench(report),
        *_rewardbench2(report),
        *_spending(report),
        *_augmentation(report),
        *_theory(report),
        *_time(report),
    ]
    if report.data_notes:
        parts += ["## Data", "\n".join(f"- {note}" for note in report.data_notes)]
    return "\n\n".join(parts) + "\n"


def write(report: RunReport, folder: Path) -> None:
    """Write report.md, and the figures it shows under figures/, into a folder, which is made if need be."""
    for name, figure in figures(report).items():
        write_whole(folder / "figures" / f"{name}.png", partial(figure.savefig, dpi=150, format="png"))
    write_whole(folder / "report.md", lambda path: path.write_text(markdown(report), encoding="utf-8"))


def _result(report: RunReport) -> list[str]:
    best = report.rounds[report.best]
    # A backbone that is a reward model already is round 0 as it came, without a fit.
    fitted = any(key.startswith("fit/") for key in report.rounds[0])
    baseline = "the originals alone" if fitted else "the backbone as it came"
    if len(report.rounds) == 1:
        headline = "**Only round 0 has run**, with a validation accuracy of"
    elif report.best == 0:
        headline = f"**No round improved on {baseline}**: round 0 has the best validation accuracy,"
    else:
        headline = f"**Best round: {report.best} of {len(report.rounds) - 1}**, with a validation accuracy of"
    coin = joined(share, "–", *_metrics(best, "heldout/chance_low", "heldout/chance_high"))
    accuracy, limit, n = _metrics(best, "heldout/accuracy", "heldout/chance_high", "heldout/n")
    parts = [
        f"{headline} {interval(*_metrics(best, *_with_ends('validation/accuracy')))}. Its held-out accuracy "
        f"is {interval(*_metrics(best, *_with_ends('heldout/accuracy')))} on {count(n)} pairs; a coin gets "
        f"{coin}{', and this is not above it' if accuracy <= limit else ''}."
    ]
    if report.difference:
        value, low, high, p_value, _, only_compared, only_first = report.difference
        which = (
            "Held-out accuracy" if report.best else f"Held-out accuracy of round {report.compared}, the last,"
        )
        parts.append(
            f"{which} minus that of round 0 ({baseline}) on the same pairs: "
            f"{signed(value)} [{signed(low)}, {signed(high)}], {probability(p_value)}. "
            f"{_verdict(report.difference)} Right in round {report.compared} only: {only_compared:,} pairs; "
            f"in round 0 only: {only_first:,}. Effect size (Cohen's g, from −.5 to .5): "
            f"{signed(report.difference.effect_size)}."
        )
    parts.append(
        "This is one run with one seed, and its intervals speak of other pairs, not of other seeds. The best "
        "round was chosen on validation, not on held-out. A later round may also have had more optimizer "
        "steps, so a gain over round 0 need not come from the synthetic pairs."
    )
    if report.generator == "rules":
        parts.append(
            "The synthetic texts come from rules and no language model, so the figures measure the machinery "
            "rather than the paper's method."
        )
    else:
        parts.append(f"The synthetic texts come from `{report.generator}`.")
    return parts


def _verdict(difference: PairedDifference) -> str:
    """The difference in words. Interval and exact test may disagree where either is near its limit."""
    within_noise = difference.low <= 0 <= difference.high
    if within_noise:
        words = "**Within noise: the interval includes 0.**"
    else:
        side = "Above" if difference.value > 0 else "Below"
        words = f"**{side} round 0: the interval excludes 0.**"
    if within_noise == (difference.p_value < 1 - CONFIDENCE):
        words += " The exact test disagrees: too close to call."
    return words


def _spending(report: RunReport) -> list[str]:
    reasons = dict.fromkeys(key for metrics in report.rounds for key in metrics if "/dropped/" in key)
    kinds = {"rewriting": "rewrites", "augmentation": "texts"}
    both = partial(joined, count, " + ")
    entries: list[Entry] = [
        ("originals with a budget", count, "selection/pairs_with_budget"),
        ("largest budget", count, "selection/largest_budget"),
        ("originals at the cap", count, "selection/pairs_at_cap"),
        ("mean margin of the originals", number, "selection/mean_margin"),
        ("mean margin where the budget went", number, "selection/mean_margin_of_budget"),
        ("mis-ranked share of the originals", share, "selection/misranked_share"),
        ("close share of the originals", share, "semantics/close_share"),
        ("close pairs with a budget", count, "rewriting/close_pairs"),
        ("of these, rejected rewritten", count, "rewriting/rejected"),
        ("of these, chosen rewritten", count, "rewriting/chosen"),
        ("of these, left as they were", count, "rewriting/none"),
        ("synthetic pairs", count, "augmentation/pairs"),
        ("new texts in them", count, "augmentation/texts"),
        *(
            (f"{kinds[section]} dropped: {reason}", count, key)
            for key in reasons
            for section, _, reason in [key.split("/")]
        ),
        ("budget moved to other originals", count, "augmentation/moved"),
        ("budget not spent (shortfall)", count, "augmentation/shortfall"),
        ("requests: rewriting + augmentation", both, "rewriting/requests", "augmentation/requests"),
        ("of these, from the store", both, "rewriting/cached", "augmentation/cached"),
        ("of these, failed", both, "rewriting/failed", "augmentation/failed"),
        ("prompt tokens", both, "rewriting/prompt_tokens", "augmentation/prompt_tokens"),
        ("completion tokens", both, "rewriting/completion_tokens", "augmentation/completion_tokens"),
        ("tokens of all answers, for each synthetic pair", count, "augmentation/tokens_per_pair"),
        (
            "mean margin of the synthetic pairs: before → after the fit",
            partial(joined, number, " → "),
            "synthetic/mean_margin_before",
            "synthetic/mean_margin_after",
        ),
        (
            "mis-ranked share of the synthetic pairs: before → after the fit",
            partial(joined, share, " → "),
            "synthetic/misranked_before",
            "synthetic/misranked_after",
        ),
    ]
    parts = _section("Where the budget went", report.rounds, entries, first=1)
    if parts:
        parts.append(
            "A pair is mis-ranked when its margin is zero or less. Before the fit, margins are those of the "
            "previous round's model, from which the budget follows; after it, those of the round's own."
        )
    if report.margins:
        parts.append("![Margins of the originals in each round](figures/margins.png)")
    if report.budgets:
        parts.append("![Budget of each original against its margin](figures/budget.png)")
    return parts


def _rewardbench2(report: RunReport) -> list[str]:
    known = dict.fromkeys(key for metrics in report.rounds for key in metrics)
    subsets = [key for key in known if f"{key}_low" in known and key.startswith("rewardbench2/subset/")]
    entries = [
        (key.rpartition("/")[2], interval, *_with_ends(key)) for key in ("rewardbench2/total", *subsets)
    ]
    return _section("RewardBench 2", report.rounds, entries)


def _rewardbench(report: RunReport) -> list[str]:
    series = {"total": "rewardbench/total", **_sections(report)}
    entries = [(label, interval, *_with_ends(key)) for label, key in series.items()]
    parts = _section("RewardBench", report.rounds, entries)
    rows = [metrics["rewardbench/n"] for metrics in report.rounds if "rewardbench/n" in metrics]
    if rows and rows[0] != sum(ROWS.values()):
        parts.append(
            f"These are {count(rows[0])} rows where the official split has {sum(ROWS.values()):,}, so the "
            "scores compare with no published ones."
        )
    return parts


def _against_round_0(report: RunReport) -> list[str]:
    """The family of comparisons, where there is more than that of the first lines."""
    if not report.difference or not report.benchmarks:
        return []
    family = {"held-out pairs": report.difference} | {
        f"RewardBench {name.removeprefix('section/')}": difference
        for name, difference in report.benchmarks.items()
    }
    corrected = holm({name: difference.p_value for name, difference in family.items()})
    rows = [
        [
            name,
            f"{signed(difference.value)} [{signed(difference.low)}, {signed(difference.high)}]",
            share(difference.p_value),
            share(corrected[name]),
            signed(difference.effect_size),
            f"{difference.only_a:,} / {difference.only_b:,} of {difference.n:,}",
        ]
        for name, difference in family.items()
    ]
    headers = ["", "difference", "p", "p (Holm)", "Cohen's g", "right in one only"]
    return [
        f"## Round {report.compared} against round 0",
        table(headers, rows),
        "Paired on the same examples. On held-out pairs p is McNemar's exact test; RewardBench's scores are "
        "weighted, so theirs is the paired bootstrap's own. Holm's correction is for all rows of this table; "
        "the page's first lines give the first row's own p. The last column counts examples that round "
        f"{report.compared} / round 0 alone gets right.",
    ]


def _what_could_fool(report: RunReport) -> list[str]:
    entries: list[Entry] = []
    added = partial(joined, count, " + ")
    scores = {"heldout": "held-out accuracy", "rewardbench": "RewardBench", "rewardbench2": "RewardBench 2"}
    for key, title in scores.items():
        score = "accuracy" if key == "heldout" else "total"
        seen = f"contamination/{key}"
        equal = "worst right and best wrong one" if key == "rewardbench2" else "which count as wrong"
        entries += [
            (f"**{title}**", interval, *_with_ends(f"{key}/{score}")),
            ("without the rows seen in training", interval, *_with_ends(f"{seen}/{score}")),
            ("rows seen in training: exact + near", added, f"{seen}/exact", f"{seen}/near"),
            ("the rule “the longer response wins”", share, f"{key}/longer_wins"),
            ("the rule “the shorter response wins”", share, f"{key}/shorter_wins"),
            ("accuracy balanced by length", interval, *_with_ends(f"{key}/length_balanced")),
            ("the model prefers the longer response", share, f"{key}/prefers_longer"),
            ("correlation of margin and length difference", number, f"{key}/length_correlation"),
            (f"ties (equal rewards, {equal})", share, f"{key}/ties"),
        ]  # fmt: skip
    entries += [
        ("held-out Brier score (0 is perfect, .250 has no opinion)", share, "heldout/brier"),
        ("held-out calibration error (biased upwards on few pairs)", share, "heldout/calibration_error"),
    ]
    parts = _section("What could fool these figures", report.rounds, entries)
    if report.heldout:
        parts.append("![Accuracy against confidence on held-out pairs](figures/calibration.png)")
    if any("heldout/longer_wins" in metrics for metrics in report.rounds):
        parts.append(
            "Length is counted in characters. Accuracy balanced by length is the mean of the accuracies on "
            "pairs whose chosen response is the longer one and on pairs where it is the shorter one: a rule "
            "that only asks which is longer gets .500. The correlation is Spearman's, with chosen minus "
            "rejected length."
        )
    if any("rewardbench2/longer_wins" in metrics for metrics in report.rounds):
        parts.append(
            "On RewardBench 2 the rules take the longest or the shortest of all responses to a prompt, and "
            "get its own score, with lengths for rewards."
        )
    return parts + _contamination(report)


def _contamination(report: RunReport) -> list[str]:
    """What the compared round had seen in training, by subset."""
    metrics = report.rounds[report.compared]
    if "contamination/heldout/exact" not in metrics:
        return []
    prefix = "contamination/"
    subsets = {
        key.removeprefix(prefix): rows
        for key, rows in metrics.items()
        if key.startswith(prefix) and "/subset/" in key
    }
    listed = ", ".join(f"{count(rows)} in {name.replace('/subset/', ' ')}" for name, rows in subsets.items())
    return [
        "A row is seen in training where its prompt, or a response that is long enough, is a training text "
        f"(exact) or has at least {contamination.NEAR:.0%} of its {contamination.WORDS}-word runs in one "
        "(near); training texts are the originals and the synthetic pairs of all rounds so far. Rows of "
        f"benchmarks by subset, in round {report.compared}: {listed or 'none'}."
    ]


def _augmentation(report: RunReport) -> list[str]:
    def rows(label: str, group: str) -> list[Entry]:
        key = f"synthetic/{group}"
        return [
            (f"**{label}**: pairs", count, f"{key}n"),
            ("low margin: before → after the fit", partial(joined, share, " → "), f"{key}low_margin_before",
             f"{key}low_margin_after"),
            ("flipped: ranked the other way than their original", share, f"{key}flipped"),
            ("turned right / wrong by the fit", partial(joined, share, " / "), f"{key}turned_right",
             f"{key}turned_wrong"),
        ]  # fmt: skip

    groups = {
        **{
            f"{' + '.join(parts) or 'nothing'} paraphrased": f"paraphrased/{name}/"
            for name, parts in synthetic_margins.PART_SETS.items()
        },
        "original rewritten": "rewritten/",
        "original as it was": "not_rewritten/",
    }
    entries = [*rows("all", "")[1:], *(entry for group in groups.items() for entry in rows(*group))]
    parts = _section("Is the augmentation what it claims", report.rounds, entries, first=1)
    if parts:
        parts.append(
            "Shares of synthetic pairs. A margin is low where |Δ| is below the "
            f"{synthetic_margins.LOW}-quantile of the originals' under the model that asked for the pairs: "
            f"pairs no harder than the originals would have {share(synthetic_margins.LOW)}."
        )
    if report.synthetic:
        parts.append("![Margins of the synthetic pairs before and after the fit](figures/synthetic.png)")
    return parts


def _theory(report: RunReport) -> list[str]:
    entries: list[Entry] = []
    triple = partial(joined, small, " · ")
    for label, key in (
        ("mean c(Δ)", "mean_c"), ("trace of I", "trace"), ("λ_min of I", "lambda_min"),
        ("rank of I", "rank"), ("condition number of I", "condition"),
    ):  # fmt: skip
        names = [f"curvature/{of}/{key}" for of in ("originals", "synthetic", "mixture")]
        entries.append((f"{label}: originals · synthetic · mixture", triple, *names))
    entries += [
        ("dimension of the features", count, "curvature/dimension"),
        ("ridge", small, "curvature/ridge"),
        ("β of A2", small, "curvature/beta"),
        ("information of the mixture over the originals': on average", number, "curvature/mean_gain"),
        ("– in the worst direction", number, "curvature/worst_gain"),
    ]
    for part in curvature.SHARES:
        gammas = f"curvature/gamma_org/{part}", f"curvature/gamma_aug/{part}"
        entries += [
            (f"for {part:.0%} of either side: γ_org, γ_aug", partial(joined, small, ", "), *gammas),
            ("– A1 (γ_aug < γ_org) holds", _yes_or_no, f"curvature/a1/{part}"),
            ("– γ_curv with β of all pairs", small, f"curvature/gamma_curv/{part}"),
        ]
    entries.append(("A1 and A2 hold, for all pairs", _yes_or_no, "curvature/premises"))
    parts = _section("The theory, measured", report.rounds, entries, first=1)
    if not parts:
        return []
    told = [_promise(t, metrics) for t, metrics in enumerate(report.rounds) if "curvature/beta" in metrics]
    return [
        *parts,
        " ".join(told),
        "I = E[c(Δ)ψψᵀ] is the Fisher information on the features before the scalar head, under the model "
        "that asked for the synthetic pairs. Rank counts eigenvalues above the ridge, which is "
        f"{curvature.RIDGE:g} of the originals' mean one; the condition number is (λ_max + ridge)/(λ_min + "
        "ridge). The theorem promises more information than the originals' only where its premises hold for "
        "all pairs and γ_curv > 1; it says nothing of accuracy. Rows for fewer pairs are about A1 alone, and "
        "leave out what the rest of the pairs may take away.",
        "![Curvature and information over rounds](figures/curvature.png)",
    ]


def _promise(t: int, metrics: dict[str, float]) -> str:
    """What the theorem promises of a round, in a sentence."""
    if not metrics["curvature/premises"]:
        return f"Round {t}: the premises do not hold for all pairs; no gain is promised."
    gain = metrics["curvature/gamma_curv/1.0"]
    promised = "a gain is promised" if gain > 1 else "no gain is promised"
    return f"Round {t}: the premises hold for all pairs; γ_curv = {small(gain)}, so {promised}."


def _yes_or_no(value: float) -> str:
    return ABSENT if math.isnan(value) else "yes" if value else "no"


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
    return _section("Where the time went", report.rounds, entries)


def _remainder(whole: float, *parts: float) -> str:
    return count(whole - sum(part for part in parts if not math.isnan(part)))


def _section(
    title: str, rounds: Sequence[dict[str, float]], entries: Sequence[Entry], first: int = 0
) -> list[str]:
    """A heading and a table with a column a round from `first` on; nothing where no metric is known."""
    rows = [
        [entry[0], *(_cell(metrics, entry) for metrics in rounds[first:])]
        for entry in _present(rounds[first:], entries)
    ]
    headers = ["", *(f"round {number}" for number in range(first, len(rounds)))]
    return [f"## {title}", table(headers, rows)] if rows else []


def _present(rounds: Sequence[dict[str, float]], entries: Sequence[Entry]) -> list[Entry]:
    known = {key for metrics in rounds for key in metrics}
    return [entry for entry in entries if known.intersection(entry[2:])]


def _cell(metrics: dict[str, float], entry: Entry) -> str:
    _, show, *keys = entry
    return show(*_metrics(metrics, *keys))


def _metrics(metrics: dict[str, float], *keys: str) -> list[float]:
    return [metrics.get(key, math.nan) for key in keys]


def _with_ends(key: str) -> tuple[str, str, str]:
    return key, f"{key}_low", f"{key}_high"


def _sections(report: RunReport) -> dict[str, str]:
    """RewardBench section → the metric of its accuracy; empty where RewardBench was not run."""
    prefix = "rewardbench/section/"
    keys = (key for metrics in report.rounds for key in metrics if key.startswith(prefix))
    return {key.removeprefix(prefix): key for key in keys if not key.endswith(("_low", "_high"))}
