"""Changes the password of MLflow's user of this shell; asks for the new one, so that no command line has it.

. deployments/client.sh && python -m deployments.mlflow_password
"""

import os
from getpass import getpass

from mlflow.server.auth.client import AuthServiceClient

if __name__ == "__main__":
    user, present = os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]
    new = getpass(f"New password of {user}: ")
    client = AuthServiceClient(os.environ["MLFLOW_TRACKING_URI"])
    client.update_user_password(user, new, current_password=present)
    print("Changed. Now put it into .env as MLFLOW_PASSWORD, and start the services again.")
