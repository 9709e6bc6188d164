"""MLflow: where a run's model or synthetic pairs were published."""

import logging

from tasks.run.run_folder import RunFolder
from tasks.run.step import tell
from tasks.tracking.mlflow_runs import experiment_id_of, find_run
from tasks.tracking.mlflow_store import reached, told

PUBLISHED = "mars.published"
"""Tag of a run, and of versions of a registered model that are of it: NAME@REVISION on the hub."""


def note_publication(run: RunFolder, kind: str, where: str, card: str) -> None:
    """Keep the revision and the card with the run, and the revision with versions of its registered model.

    What was published stays so if MLflow is not available: then a warning says it.
    """
    try:
        client = reached(run.config.tracking)
        experiment_id = experiment_id_of(client, run.config.tracking)
        found = find_run(client, experiment_id, {"mars.run": run.identity, "mars.kind": "run"})
        if found is None:
            tell("MLflow has no run of %s, so that it does not know of %s.", run.root, where)
            return
        client.set_tag(found.info.run_id, PUBLISHED if kind == "model" else f"{PUBLISHED}.{kind}", where)
        client.log_text(found.info.run_id, card, f"published/{kind}.md")
        if kind == "model":
            for version in client.search_model_versions(f"run_id = '{found.info.run_id}'"):
                client.set_model_version_tag(version.name, version.version, PUBLISHED, where)
    except Exception as error:  # noqa: BLE001 - MLflow's stores raise many kinds, and none undoes the upload
        tell("MLflow %s, so that it does not know of %s.", told(error), where, level=logging.WARNING)
