"""The section of a report on robustness: what refinement did to it in a sentence, and each transform."""

from collections.abc import Mapping
from functools import partial

from mars_core.evaluation.robustness import HEADLINE, KEY
from mars_core.evaluation.statistics import PairedDifference
from mars_core.report.round_tables import Entry, Rounds, by_round, cell, values_of, with_ends
from mars_core.report.wording import count, interval, joined, number, probability, share, signed, table


def section(rounds: Rounds, compared: int, difference: PairedDifference | None) -> list[str]:
    """What changes that keep a pair's ranking do to the rewards; nothing where none were measured.

    Args:
        rounds: the metrics of each round.
        compared: the round that is compared with round 0, and whose transforms are shown.
        difference: its robust accuracy minus that of round 0.
    """
    entries: list[Entry] = [
        ("robust accuracy", interval, *with_ends(HEADLINE)),
        ("accuracy before", share, f"{KEY}/before"),
        ("accuracy after", share, f"{KEY}/after"),
        ("after minus before", _signed_interval, *with_ends(f"{KEY}/change")),
    ]
    parts = by_round("Robustness", rounds, entries)
    if not parts:
        return []
    heading, over_rounds = parts
    return [
        heading,
        *([_sentence(rounds, compared, difference)] if difference else []),
        over_rounds,
        "Pairs are scored as they are, and after changes that keep which response is better. Robust accuracy "
        "is the share that is ranked right both times; equal rewards are wrong. Every pair counts once for "
        "each transform that changes it; intervals take the pairs of a prompt, with all changes, for one "
        "draw.",
        *transforms_table(rounds[compared]),
        f"Round {compared} by transform (docs/robustness.md). Sign kept is the share of margins with the "
        "sign that they had, where one of zero is broken; to wrong / right are the shares ranked right only "
        "before / only after; rewards moved is the mean change of a reward, in standard deviations of the "
        "rewards before.",
    ]


def transforms_table(metrics: Mapping[str, float]) -> list[str]:
    """A table of each transform's measures, the lowest robust accuracy first; nothing if there is none."""
    end = "/robust_accuracy"
    names = [name.removesuffix(end) for name in metrics if name.startswith(f"{KEY}/") and name.endswith(end)]
    names = sorted((name for name in names if name != KEY), key=lambda name: metrics[name + end])
    rows = []
    for name in names:
        columns: list[Entry] = [
            ("robust accuracy", interval, *with_ends(f"{name}/robust_accuracy")),
            ("before", share, f"{name}/before"),
            ("after", share, f"{name}/after"),
            ("after minus before", _signed_interval, *with_ends(f"{name}/change")),
            ("sign kept", interval, *with_ends(f"{name}/sign_kept")),
            ("to wrong / right", partial(joined, share, " / "), f"{name}/to_wrong", f"{name}/to_right"),
            ("rewards moved", number, f"{name}/reward_shift"),
            ("pairs", count, f"{name}/n"),
        ]
        rows.append([name.removeprefix(f"{KEY}/"), *(cell(metrics, entry) for entry in columns)])
    return [table(["", *(label for label, *_ in columns)], rows)] if rows else []


def _sentence(rounds: Rounds, compared: int, difference: PairedDifference) -> str:
    """What refinement did to robust accuracy, and what the changes do to accuracy."""
    first, later = (values_of(rounds[t], HEADLINE, f"{KEY}/change") for t in (0, compared))
    if difference.low <= 0 <= difference.high:
        did = "is not shown to have changed robustness"
    else:
        did = "raised robustness" if difference.value > 0 else "lowered robustness"
    return (
        f"**Refinement {did}**: robust accuracy is {share(later[0])} in round {compared} and "
        f"{share(first[0])} in round 0, a difference of {signed(difference.value)} "
        f"[{signed(difference.low)}, {signed(difference.high)}], {probability(difference.p_value)}, on "
        f"{count(difference.n)} changed pairs. The changes move accuracy by {signed(later[1])} in round "
        f"{compared} and by {signed(first[1])} in round 0."
    )


def _signed_interval(value: float, low: float, high: float) -> str:
    return interval(value, low, high, show=signed)
