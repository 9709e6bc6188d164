"""The sections of a report on synthetic pairs: what the budget was spent on, and whether they are as
intended."""

import math
from collections.abc import Mapping
from functools import partial

from mars_core.method import curvature, synthetic_margins
from mars_core.report.round_tables import Entry, Rounds, by_round
from mars_core.report.wording import ABSENT, count, joined, number, share, small


def spending(rounds: Rounds) -> list[str]:
    """How the budget of each round was spent, and at what cost."""
    reasons = dict.fromkeys(key for metrics in rounds for key in metrics if "/dropped/" in key)
    kinds = {"rewriting": "rewrites", "augmentation": "texts"}
    both = partial(joined, count, " + ")
    entries: list[Entry] = [
        ("originals with a budget", count, "selection/pairs_with_budget"),
        ("largest budget, before any was moved", count, "selection/largest_budget"),
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
    parts = by_round("Where the budget went", rounds, entries, first=1)
    if parts:
        parts.append(
            "A pair is mis-ranked when its margin is zero or less. Before the fit, margins are those of the "
            "previous round's model, from which the budget follows; after it, those of the round's own."
        )
    return parts


def augmentation(rounds: Rounds) -> list[str]:
    """Whether the synthetic pairs have low margins and the order of their originals, by group."""

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
    parts = by_round("Is the augmentation what it claims", rounds, entries, first=1)
    if parts:
        parts.append(
            "Shares of synthetic pairs. A margin is low where |Δ| is below the "
            f"{synthetic_margins.LOW}-quantile of the originals' under the model that asked for the pairs: "
            f"pairs no harder than the originals would have {share(synthetic_margins.LOW)}."
        )
    return parts


def theory(rounds: Rounds) -> list[str]:
    """The curvature of the theorem, whether its premises hold, and what it then guarantees."""
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
    parts = by_round("The theory, measured", rounds, entries, first=1)
    if not parts:
        return []
    told = [_promise(t, metrics) for t, metrics in enumerate(rounds) if "curvature/beta" in metrics]
    return [
        *parts,
        " ".join(told),
        "I = E[c(Δ)ψψᵀ] is the Fisher information on the features before the scalar head, under the model "
        "that asked for the synthetic pairs. Rank counts eigenvalues above the ridge, which is "
        f"{curvature.RIDGE:g} of the originals' mean one; the condition number is (λ_max + ridge)/(λ_min + "
        "ridge). The theorem promises more information than the originals' only where its premises hold for "
        "all pairs and γ_curv > 1; it says nothing of accuracy. The mixture is of the originals and the "
        "round's own synthetic pairs, whatever else it was fitted on. Rows for fewer pairs are about A1 "
        "alone, and leave out what the rest of the pairs may take away.",
    ]


def _promise(t: int, metrics: Mapping[str, float]) -> str:
    """What the theorem guarantees for a round, in one sentence."""
    if not metrics["curvature/premises"]:
        return f"Round {t}: the premises do not hold for all pairs; no gain is promised."
    gain = metrics["curvature/gamma_curv/1.0"]
    promised = "a gain is promised" if gain > 1 else "no gain is promised"
    return f"Round {t}: the premises hold for all pairs; γ_curv = {small(gain)}, so {promised}."


def _yes_or_no(value: float) -> str:
    return ABSENT if math.isnan(value) else "yes" if value else "no"
