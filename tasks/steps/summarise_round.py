"""The figures of a round, gathered from the steps that counted them."""

import json
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


def read_metrics(run: RunFolder) -> list[dict[str, float]]:
    """The metrics of a run's finished rounds, round 0 first; a figure that does not exist is NaN."""
    rounds = []
    for t in range(run.config.rounds + 1):
        file = run.path(f"round-{t}/metrics.json")
        if not file.exists():
            break
        figures = json.loads(file.read_text())
        rounds.append({name: math.nan if value is None else value for name, value in figures.items()})
    return rounds


def best_round(rounds: list[dict[str, float]]) -> int:
    """The round with the greatest validation accuracy; of equals the first."""
    accuracies = [metrics["validation/accuracy"] for metrics in rounds]
    return accuracies.index(max(accuracies))
