"""Divide the round's budget over the originals (docs/method.md, step 2)."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import entropy

from mars_core.data.pairs import flipped_of
from mars_core.method.augmentation import capacity
from mars_core.method.selection import allocate, check_signals, effective_cap
from mars_core.method.strategies.strategy import Signal, Signals
from mars_core.objectives.objective import curvature_of
from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder
from tasks.run.step import Made, step, tell


def select_hard_pairs(
    run: RunFolder,
    round: int,
    train: ArtifactRef,
    scored: Outputs,
    distances: ArtifactRef,
    previous: ArtifactRef | None,
) -> ArtifactRef:
    """Give each original its share of the budget by the signals that the strategy reads.

    Args:
        run: the run; its configuration names the strategy.
        round: number of the round.
        train: the originals.
        scored: the outputs of `measure_margins`.
        distances: the originals' semantic distances.
        previous: the allocation of the previous round, if there is one.
    """
    reads = run.config.selection.open().reads
    signals: dict[Signal, ArtifactRef | None] = {
        "distances": distances,
        "features": scored.get("features"),
        "previous": previous,
        "weights": train,
    }
    wanted = {str(name): part for name, part in signals.items() if name in reads and part is not None}
    return _select(run, round, scored["margins"], wanted)


@step("selection", version=2, reads=("selection", "augmentation", "fit.objective"))
def _select(
    run: RunFolder, round: int, margins: ArtifactRef, signals: Mapping[str, ArtifactRef]
) -> Made[ArtifactRef]:
    """Give each original its share of the budget by the signals that the strategy reads."""
    selection = run.config.selection
    most = capacity(run.config.augmentation, selection.budget_unit)
    measured = run.open(margins).read("pair_id", "margin")
    allocation = allocate(measured["pair_id"], _signals(run, margins, signals), selection, most)
    budget = allocation.budget
    margin = measured["margin"].to_numpy().astype(np.float64)
    metrics = {
        "selection/pairs_with_budget": float((budget > 0).sum()),
        "selection/pairs_at_cap": float((budget == effective_cap(selection, most)).sum()),
        "selection/largest_budget": float(budget.max()),
        "selection/mean_margin": float(margin.mean()),
        "selection/mean_margin_of_budget": float((margin * budget).sum() / budget.sum()),
        "selection/misranked_share": float((margin <= 0).mean()),
    }
    if part := run.config.data.flipped:
        flipped = flipped_of(measured["pair_id"].to_pylist(), part, run.config.seed)
        metrics["selection/flipped_share"] = float(budget[flipped].sum() / budget.sum())
    tell(
        "The budget of %s goes to %s of %s pairs, as concentrated as an even split over %.1f pairs; their "
        "mean margin is %.3f, that of all %.3f.",
        f"{budget.sum():,}", f"{(budget > 0).sum():,}", f"{len(budget):,}",
        np.exp(entropy(allocation.probability)),
        metrics["selection/mean_margin_of_budget"], metrics["selection/mean_margin"],
    )  # fmt: skip
    for name, values in allocation._asdict().items():
        measured = measured.append_column(name, pa.array(values))
    return Made(run.write_table(run.of_round(round).allocation, measured), metrics)


def _signals(run: RunFolder, margins: ArtifactRef, given: Mapping[str, ArtifactRef]) -> Signals:
    """The signals that the strategy reads."""
    reads = run.config.selection.open().reads
    measured = run.open(margins)

    def column(name: str, part: str, default: float) -> NDArray[np.float64]:
        table = run.open(given[name]) if name in given else None
        if table is None or part not in table.columns:
            return np.full(len(measured), default)
        return table.numbers(part).astype(np.float64)

    check_signals(run.config.selection, run.config.fit.objective)
    deltas = measured.numbers("margin").astype(np.float64)
    spread = None
    if "spread" in reads:
        variances = (measured.numbers(f"variance_{side}") for side in ("chosen", "rejected"))
        spread = np.sqrt(sum(variance.astype(np.float64) for variance in variances))
    disagreement = measured.numbers("disagreement").astype(np.float64) if "disagreement" in reads else None
    objective = run.config.fit.objective.open()
    return Signals(
        margins=deltas if "margins" in reads else None,
        distances=column("distances", "distance", np.nan) if "distances" in reads else None,
        features=np.load(run.verified(given["features"])).astype(np.float64) if "features" in reads else None,
        curvature=curvature_of(objective, deltas) if "curvature" in reads else None,
        spread=spread,
        disagreement=disagreement,
        previous=column("previous", "probability", 1.0) if "previous" in reads else None,
        weights=column("weights", "weight", 1.0) if "weights" in reads else None,
    )
