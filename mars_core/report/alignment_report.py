"""The page of `mars align`: what choosing by the reward models does to their rewards, and to gold."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mars_core.alignment.over_optimisation import OverOptimisation
from mars_core.evaluation.benchmarks.best_of_n import BestOfN
from mars_core.files import write_whole
from mars_core.report import wording
from mars_core.report.evaluation_report import curves_figure
from mars_core.report.text_sections import quote

PICTURE = "best_of_n.png"
shown = partial(wording.interval, show=wording.number)


def sentence(found: OverOptimisation) -> str:
    """What the reader is to take from it, with intervals; nothing is called a rise or a fall within noise."""
    n = found.most
    chosen = f"The best of {n} has a reward {shown(*found.proxy[n])} above a random response's"
    if not found.gold:
        return f"{chosen}; without rewards.gold nothing says whether it is better."
    gold = found.gold[n]
    if gold.low > 0:
        verdict = "so gold agrees with the choice"
    elif gold.high < 0:
        verdict = "so the reward model is over-optimised: what it prefers, gold likes less"
    else:
        verdict = "within noise: nothing shows that gold agrees with the choice"
    peak = max(found.gold, key=lambda one: found.gold[one].value)
    fell = f" Gold is highest at n = {peak}." if peak != n else ""
    return f"{chosen}, and gold {shown(*gold)}, {verdict}.{fell}"


def rows(found: OverOptimisation, metrics: Mapping[str, float]) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row for each n."""
    table = []
    for n, proxy in found.proxy.items():
        gold = found.gold.get(n)
        bound = wording.number(metrics[f"kl_bound/{n}"])
        table.append([str(n), shown(*proxy), shown(*gold) if gold else wording.ABSENT, bound])
    return ["n", "reward above a random response's", "gold above it", "KL at most, nats"], table


def markdown(
    name: str,
    about: Mapping[str, str],
    found: OverOptimisation,
    metrics: Mapping[str, float],
    examples: list[dict[str, Any]],
    training: Sequence[str] = (),
) -> str:
    """The page; the picture is `PICTURE` beside it.

    Args:
        name: of the alignment.
        about: policy, prompts, reward models.
        found: what is measured.
        metrics: of all steps.
        examples: some prompts with the response that is chosen and another one, and their rewards.
        training: the parts of its section on the trained policy.
    """
    headers, table = rows(found, metrics)
    cells = [
        [quote(one["prompt"]), quote(one["chosen"]), quote(one["other"]), wording.number(one["difference"])]
        for one in examples
    ]
    parts = [
        f"# {name}",
        sentence(found),
        wording.table(headers, table),
        "Intervals are 95% intervals over prompts, each paired with itself. The Kullback–Leibler divergence "
        "of the best of n from the policy is at most ln n − (n − 1)/n.",
        f"![Rewards over n]({PICTURE})",
        *training,
        "## What was measured",
        "\n".join(f"- {what}: {value}" for what, value in about.items()),
        "\n".join(
            f"- {label}: {show(metrics[key])}"
            for label, key, show in (
                ("prompts", "prompts/n", wording.count),
                ("responses", "responses/n", wording.count),
                ("of these, cut off", "responses/cut_off", wording.share),
                ("mean length in characters", "responses/characters", wording.count),
                ("completion tokens", "responses/completion_tokens", wording.count),
            )
        ),
        "## What is chosen",
        "The response with the greatest reward, beside the one with the least, of a few prompts.",
        wording.table(["prompt", "chosen", "least", "reward apart"], cells, align="---"),
    ]
    return "\n\n".join(parts) + "\n"


def write(page: str, metrics: Mapping[str, float], key: str, folder: Path) -> None:
    """Write report.md and the picture of the curves."""
    write_whole(folder / "report.md", lambda path: path.write_text(page, encoding="utf-8"))
    figure = curves_figure({key: BestOfN(BestOfN.Config())}, metrics)
    if figure:
        write_whole(folder / PICTURE, partial(figure.savefig, dpi=150, format="png"))
