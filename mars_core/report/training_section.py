"""What an alignment's page says of the trained policy: a sentence, a table and a picture."""

import math
from collections.abc import Mapping
from functools import partial

from matplotlib.figure import Figure

from mars_core.alignment.policy_changes import KL, WIN_RATE, Trained, changes
from mars_core.evaluation.statistics import Interval
from mars_core.report import wording
from mars_core.report.figures import PALETTE

TITLES = {
    "reward": "reward",
    "gold": "gold",
    "distance": "distance of latents",
    "characters": "characters",
    "repetition": "repeated 4-grams",
    "cut_off": "cut off",
    WIN_RATE: "win rate by gold",
    KL: "KL, nats",
}
"""Measure → heading of its column."""
PICTURE = "training.png"
shown = partial(wording.interval, show=wording.number)


def sentence(trained: Trained) -> str:
    """What training did, at the policy that is kept, with intervals; nothing within noise is a rise or a
    fall."""
    told = [_ending(trained)] if trained.broken_at or trained.stopped else []
    if trained.kept is None:
        return " ".join([*told, "No policy has a higher mean gold than the untrained one, which is kept."])
    found = changes(trained.evaluations[trained.kept])
    begins = f"After {trained.kept:,} steps of {trained.method} the reward is {_moved(found['reward'])}"
    if "gold" not in found:
        told.append(f"{begins}; without rewards.gold nothing says whether responses are better.")
    else:
        told.append(
            f"{begins}, and gold is {_moved(found['gold'])}{_verdict(found['reward'], found['gold'])}."
        )
    told.append(f"The policy is {shown(*found[KL])} nats from the untrained one.")
    return " ".join(told)


def rows(trained: Trained) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row for each evaluation: changes against the untrained policy, and the divergence."""
    by_step = {steps: changes(table) for steps, table in trained.evaluations.items()}
    measures = [name for name in TITLES if name in next(iter(by_step.values()))]
    table = [[f"{steps:,}", *(shown(*found[name]) for name in measures)] for steps, found in by_step.items()]
    return ["steps", *(TITLES[name] for name in measures)], table


def untrained(trained: Trained) -> str:
    """The untrained policy's means, with which the table compares."""
    table = next(iter(trained.evaluations.values()))
    means = [
        f"{title} {wording.number(float(table[f'{name}_before'].mean()))}"
        for name, title in TITLES.items()
        if f"{name}_before" in table
    ]
    return f"The untrained policy's means: {', '.join(means)}."


def section(trained: Trained, temperature: float, top_p: float) -> list[str]:
    """The parts of the page.

    Args:
        trained: what is told.
        temperature: of the sampling, which the estimate of the divergence depends on.
        top_p: of the sampling.
    """
    plain = temperature == 1 and top_p == 1
    biased = "" if plain else ", here of a policy that is sampled with another temperature or top_p than 1"
    rate = (
        " The win rate is the share of pairs of a response of the trained policy and one of the untrained in "
        "which gold prefers the former; ties count half."
        if any(WIN_RATE in table for table in trained.evaluations.values())
        else ""
    )
    return [
        "## The trained policy",
        sentence(trained),
        wording.table(*rows(trained)),
        f"Differences to the untrained policy on the same prompts, with 95% intervals over prompts. "
        f"{untrained(trained)} KL(π ‖ π_ref) is estimated by the divergences of the next token's "
        f"distributions, summed along the responses that were sampled of π{biased}; a response's tokens are "
        f"those of its text.{rate}",
        f"![Over training]({PICTURE})",
    ]


def picture(trained: Trained) -> Figure:
    """Each measure over optimizer steps, with 95% intervals."""
    by_step = {steps: changes(table) for steps, table in trained.evaluations.items()}
    measures = [name for name in TITLES if name in next(iter(by_step.values()))]
    figure = Figure(figsize=(8, 2.2 * math.ceil(len(measures) / 2)), layout="constrained")
    panels = figure.subplots(math.ceil(len(measures) / 2), 2, squeeze=False).ravel()
    for panel in panels[len(measures) :]:
        panel.remove()
    for panel, name in zip(panels, measures, strict=False):
        begins = 0.5 if name == WIN_RATE else 0.0
        _draw(panel, {steps: found[name] for steps, found in by_step.items()}, begins)
        change = "" if name in (WIN_RATE, KL) else ", change"
        panel.set(xlabel="optimizer steps", ylabel=f"{TITLES[name]}{change}")
    return figure


def _draw(panel: object, intervals: Mapping[int, Interval], untrained: float) -> None:
    steps, values = [0, *intervals], [untrained, *(one.value for one in intervals.values())]
    below = [0.0, *(one.value - one.low for one in intervals.values())]
    above = [0.0, *(one.high - one.value for one in intervals.values())]
    panel.axhline(untrained, color="0.7", linewidth=1)  # type: ignore[attr-defined]
    panel.errorbar(steps, values, [below, above], marker="o", capsize=3, color=PALETTE[0])  # type: ignore[attr-defined]


def _moved(change: Interval) -> str:
    """A change in words."""
    if change.low > 0:
        return f"{shown(*change)} higher than the untrained policy's"
    if change.high < 0:
        return f"lower than the untrained policy's, by {shown(-change.value, -change.high, -change.low)}"
    return f"the untrained policy's within noise ({shown(*change)})"


def _verdict(reward: Interval, gold: Interval) -> str:
    if gold.high < 0 < reward.low:
        return ": the reward model is over-optimised"
    if gold.low > 0:
        return ": gold agrees with the reward model" if reward.low > 0 else ""
    return "" if gold.high < 0 else ": nothing shows that gold agrees with the reward model"


def _ending(trained: Trained) -> str:
    last = max(trained.evaluations)
    if trained.broken_at:
        return (
            f"Training broke off: the gradient of step {trained.broken_at:,} is NaN or infinite, and the "
            f"last good state is that after {last:,} steps."
        )
    return f"Training was ended after {last:,} steps, because gold is shown to have fallen."
