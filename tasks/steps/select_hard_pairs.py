"""Divide the round's budget over the originals (docs/method.md, step 2)."""

import numpy as np

from mars_core.method.augmentation import capacity
from mars_core.method.selection import allocate, effective_cap
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import step, tell


@step("selection", version=1, reads=("selection", "augmentation"))
def select_hard_pairs(
    run: RunFolder, round: int, margins: ArtifactRef, previous: ArtifactRef | None
) -> ArtifactRef:
    """Give each original its share of the budget by its margin, and by the round before where that counts."""
    selection = run.config.selection
    most = capacity(run.config.augmentation, selection.budget_unit)
    measured = run.table(margins)
    before = None if previous is None else run.table(previous)["probability"].to_numpy()
    allocation = allocate(list(measured["pair_id"]), measured["margin"].to_numpy(), selection, most, before)
    budget = allocation["budget"].to_numpy()
    margin = measured["margin"].to_numpy(dtype=np.float64)
    figures = {
        "selection/pairs_with_budget": float((budget > 0).sum()),
        "selection/pairs_at_cap": float((budget == effective_cap(selection, most)).sum()),
        "selection/largest_budget": float(budget.max()),
        "selection/mean_margin": float(margin.mean()),
        "selection/mean_margin_of_budget": float((margin * budget).sum() / budget.sum()),
        "selection/misranked_share": float((margin <= 0).mean()),
    }
    tell(
        "The budget of %s goes to %s of %s pairs; their mean margin is %.3f, that of all %.3f.",
        f"{budget.sum():,}", f"{(budget > 0).sum():,}", f"{len(budget):,}",
        figures["selection/mean_margin_of_budget"], figures["selection/mean_margin"],
    )  # fmt: skip
    return run.write_table(f"round-{round}/allocation.parquet", allocation, figures)
