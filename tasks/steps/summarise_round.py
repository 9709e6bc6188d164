"""The figures of a round, gathered from the steps that counted them."""

import math

from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import step


@step("metrics", version=2)
def summarise_round(
    run: RunFolder,
    round: int,
    train: ArtifactRef,
    synthetic: list[ArtifactRef],
    counted: list[dict[str, float]],
) -> ArtifactRef:
    """Write every number of the round into one file; `counted` are the figures of its steps' artifacts."""
    metrics = {
        "round": float(round),
        "train/originals": float(train.rows or 0),
        "train/synthetic": float(sum(part.rows or 0 for part in synthetic)),
    }
    for figures in counted:
        metrics |= figures
    metrics["seconds"] = sum(
        seconds for name, seconds in run.seconds().items() if name.startswith(f"round-{round}-")
    )
    finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    return run.write_json(f"round-{round}/metrics.json", finite)
