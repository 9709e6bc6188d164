"""Register the work pool, the deployments of prefect.yaml and the automations on the configured Prefect
server.

    . deployments/client.sh && python -m deployments.deploy

It may be repeated. MARS_FOLDER is the worker's folder: this one, or /srv/mars if the worker is a container.
"""

import os
import subprocess
import sys

from deployments import automations
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


if __name__ == "__main__":
    deploy()
