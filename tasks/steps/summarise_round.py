"""The metrics of a round in one file."""

import math

from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import Made, step


def summarise_round(
    run: RunFolder, round: int, train: ArtifactRef, synthetic: list[ArtifactRef]
) -> ArtifactRef:
    """Write the metrics of a round's steps, and the number of its training pairs."""
    trained = {
        "train/originals": float(train.rows or 0),
        "train/synthetic": float(sum(part.rows or 0 for part in synthetic)),
    }
    metrics = {"round": float(round), **trained, **run.metrics_of(round), "seconds": run.seconds_of(round)}
    return _write(
        run, round, {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    )


@step("metrics", version=3)
def _write(run: RunFolder, round: int, metrics: dict[str, float | None]) -> Made[ArtifactRef]:
    """Write all metrics of the round into one file, with null for nan."""
    return Made(run.write_json(run.of_round(round).metrics, metrics))
