"""The metrics of a run's finished rounds."""

import json
import math

from tasks.run.run_folder import RunFolder


def read_metrics(run: RunFolder) -> list[dict[str, float]]:
    """The metrics of a run's finished rounds, round 0 first; a metric that does not exist is NaN."""
    rounds = []
    for t in range(run.config.rounds + 1):
        file = run.path(run.of_round(t).metrics)
        if not file.exists():
            break
        figures = json.loads(file.read_text())
        rounds.append({name: math.nan if value is None else value for name, value in figures.items()})
    return rounds


def best_round(rounds: list[dict[str, float]]) -> int:
    """The round with the greatest validation accuracy; the first of equal ones."""
    accuracies = [metrics["validation/accuracy"] for metrics in rounds]
    return accuracies.index(max(accuracies))
