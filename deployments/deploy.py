"""Register the work pool, the deployments of prefect.yaml and the automations on the configured Prefect
server, and let the worker into MLflow.

    . deployments/client.sh && python -m deployments.deploy

It may be repeated. MARS_FOLDER is the worker's folder: this one, or /srv/mars if the worker is a container.
"""

import os
import subprocess
import sys

from mlflow.server.auth.client import AuthServiceClient

from deployments import automations, mlflow_users
from deployments.environment import PROJECT

FOLDER = "MARS_FOLDER"
PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]


def deploy() -> None:
    """Create or update all of it."""
    environment = {FOLDER: str(PROJECT)} | os.environ
    for command in (
        ["work-pool", "create", "mars", "--type", "process", "--overwrite"],
        ["deploy", "--all", "--prefect-file", "deployments/prefect.yaml"],
    ):
        done = subprocess.run([*PREFECT, *command], cwd=PROJECT, env=environment)
        if done.returncode:
            sys.exit(done.returncode)
    print("Automations:", ", ".join(automations.apply(os.environ.get(automations.WEBHOOK))))
    if password := os.environ.get(mlflow_users.WORKER_PASSWORD):
        mlflow_users.let_worker_in(AuthServiceClient(os.environ["MLFLOW_TRACKING_URI"]), password)
        print("MLflow: the user worker may log and register models.")


if __name__ == "__main__":
    deploy()
