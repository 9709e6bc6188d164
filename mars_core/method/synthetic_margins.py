"""Whether synthetic pairs are as intended: with low margins, and in the order of their originals.

A synthetic pair is made because of its original's margin under the model of the previous round. It has a *low
margin* if its |Δ| is below the `LOW`-quantile of the originals' |Δ| under that model; so pairs that are no
harder than the originals have a share of `LOW`. Its order is *flipped* if that model ranks it the other way
round than its original, and *turned* if the fit changed its order. A margin of zero counts as the wrong
order.
"""

from collections.abc import Collection
from itertools import combinations, compress

import pandas as pd

from mars_core.method.augmentation import PARTS

LOW = 0.25
PART_SETS = {
    "-".join(parts) or "none": parts for size in range(len(PARTS) + 1) for parts in combinations(PARTS, size)
}
"""Every set of parts that a synthetic pair may have paraphrased, by its name in metrics."""


def summarise(
    synthetic: pd.DataFrame, originals: pd.DataFrame, rewritten: Collection[str]
) -> dict[str, float]:
    """Shares of all synthetic pairs, and of groups of them.

    Args:
        synthetic: one row for each synthetic pair: parent_id, prompt_variant, chosen_variant,
            rejected_variant (0 is the text itself), margin_before and margin_after the fit.
        originals: pair_id and margin of every original, under the same model as margin_before.
        rewritten: ids of the originals that have a rewritten response.

    Returns:
        `mean_margin_before`, `mean_margin_after`, `misranked_before` and `misranked_after`;
        `low_margin_before`, `low_margin_after`, `flipped`, `turned_right` and `turned_wrong`; the latter with
        `n` as `paraphrased/SET/…`, by the set of paraphrased parts (a name of `PART_SETS`), and as
        `rewritten/…` and `not_rewritten/…`, where there are such pairs; `low_limit`, the margin below which
        one is low.
    """
    limit = float(originals["margin"].abs().quantile(LOW))
    parents = synthetic["parent_id"]
    margin = originals[originals["pair_id"].isin(parents.unique())].set_index("pair_id")["margin"]
    right_before, right_after = synthetic["margin_before"] > 0, synthetic["margin_after"] > 0
    of_each = pd.DataFrame(
        {
            "low_margin_before": synthetic["margin_before"].abs() < limit,
            "low_margin_after": synthetic["margin_after"].abs() < limit,
            "flipped": right_before != (margin.loc[parents].to_numpy() > 0),
            "turned_right": right_after & ~right_before,
            "turned_wrong": right_before & ~right_after,
        }
    )
    is_new = (synthetic[[f"{part}_variant" for part in PARTS]] > 0).to_numpy()
    names = {parts: f"paraphrased/{name}" for name, parts in PART_SETS.items()}
    paraphrased = pd.Series([names[tuple(compress(PARTS, row))] for row in is_new], synthetic.index)
    is_rewritten = parents.isin(set(rewritten))
    figures = {"low_limit": limit}
    for moment in ("before", "after"):
        margins = synthetic[f"margin_{moment}"]
        figures |= {
            f"mean_margin_{moment}": float(margins.mean()),
            f"misranked_{moment}": float((margins <= 0).mean()),
        }
    figures |= {str(name): float(share) for name, share in of_each.mean().items()}
    for group in (paraphrased, is_rewritten.map({True: "rewritten", False: "not_rewritten"})):
        for name, some in of_each.groupby(group):
            figures[f"{name}/n"] = float(len(some))
            figures |= {f"{name}/{figure}": float(share) for figure, share in some.mean().items()}
    return figures
