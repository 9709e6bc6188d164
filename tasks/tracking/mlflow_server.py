"""A local MLflow server, which `mars ui` shows if no server is configured."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mars_core.config import redact
from tasks.processes.addresses import answers, free_port
from tasks.processes.local_server import ServerError, serving
from tasks.tracking.mlflow_store import LOCAL_PORT, health, make_store


def check_mlflow(uri: str) -> None:
    """Find out before hours of work whether the server is there, if it is one.

    Raises:
        ServerError: it does not answer.
    """
    if uri.startswith("http") and not answers(health(uri)):
        raise ServerError(
            f"no MLflow server answers at {redact(uri)}; start it, or change tracking.uri or "
            "MLFLOW_TRACKING_URI"
        )


@contextmanager
def mlflow_server(uri: str) -> Iterator[str]:
    """The address of MLflow's UI for a tracking URI: that of a server, or of one started on a local store.

    Raises:
        ServerError: it does not answer, or does not start.
    """
    if uri.startswith("http"):
        check_mlflow(uri)
        yield uri
        return
    make_store(uri)
    port = free_port(LOCAL_PORT)
    address = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1",
    ]  # fmt: skip
    # The address may hold a password. Without jobs, which nobody sends, the server starts in half the time.
    environment = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with serving(command, f"{address}/health", Path("mlflow.log").resolve(), environment):
        yield address
