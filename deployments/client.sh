# Lets a shell, and what it starts, use the services of this folder:  . deployments/client.sh
# An address that is set already stays, so that the services may be on another machine.
set -a
. ./.env
PREFECT_API_URL="${PREFECT_API_URL:-http://127.0.0.1:$PREFECT_PORT/api}"
PREFECT_API_AUTH_STRING="mars:$PREFECT_PASSWORD"
MLFLOW_TRACKING_URI="${MLFLOW_TRACKING_URI:-http://127.0.0.1:$MLFLOW_PORT}"
MLFLOW_TRACKING_USERNAME=mars
MLFLOW_TRACKING_PASSWORD="$MLFLOW_PASSWORD"
# A server on this machine is asked directly, and no proxy.
NO_PROXY="${NO_PROXY:+${NO_PROXY},}127.0.0.1,localhost,::1"
no_proxy="${NO_PROXY}"
set +a
