"""MLflow's users: `mars`, who administers them, and `worker`, as whom the worker logs its runs.

    . deployments/client.sh && python -m deployments.mlflow_users

changes the password of this shell's user; it asks for the new one, so that no command line has it.
"""

import os
from getpass import getpass

from mlflow.exceptions import RestException
from mlflow.server.auth.client import AuthServiceClient

WORKER = "worker"
WORKER_PASSWORD = "MLFLOW_WORKER_PASSWORD"
"""Environment variable with the password of `WORKER`."""


def let_worker_in(client: AuthServiceClient, password: str) -> None:
    """Make the worker's user, or give it this password; it may log runs, and manage registered models.

    Whoever has its password can change neither users nor their rights.
    """
    try:
        client.create_user(WORKER, password)
    except RestException as error:
        _only_if_there(error)
        client.update_user_password(WORKER, password)
    try:
        client.grant_user_permission(WORKER, "registered_model", "*", "MANAGE")  # to take an alias away, too
    except RestException as error:
        _only_if_there(error)


def _only_if_there(error: RestException) -> None:
    """Raise what says anything but that it was made before."""
    if error.error_code != "RESOURCE_ALREADY_EXISTS":
        raise error


if __name__ == "__main__":
    user, present = os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]
    new = getpass(f"New password of {user}: ")
    client = AuthServiceClient(os.environ["MLFLOW_TRACKING_URI"])
    client.update_user_password(user, new, current_password=present)
    print("Changed. Now put it into .env as MLFLOW_PASSWORD, and start the services again.")
