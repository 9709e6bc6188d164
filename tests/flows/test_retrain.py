"""Scheduled retraining on a real Prefect server and MLflow on SQLite, with a tiny model.

The stories share retrainings: each takes a copy of the folder in which a first delivery has made a champion.
"""

from tests.flows.conftest import EXPERIMENT

RETRAINING = {
    "name": "tiny",
    "min_new_pairs": 60,
    "data": {"source": "incoming", "settle_seconds": 0},
    "gate": {"margin": 0.4},
    "refine": {
        "rounds": 1,
        "data": {"validation_share": 0.05, "heldout_share": 0.25},
        "model": EXPERIMENT["model"],
        "selection": {"tau": 0.5, "budget": 10},
        "fit": {"learning_rate": 3.0e-3, "batch_pairs": 8, "epochs": 2},
    },
}
