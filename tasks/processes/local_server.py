"""Prefect and MLflow on this machine: what `mars refine` uses where none is configured, and `mars ui` shows.

Both keep their data in the working folder: prefect.db, mlflow.db and mlartifacts. The servers run on a
leash, so that they end with the command that started them, however that ends, and listen on loopback only.
Every command has a server of its own, for one that was shared would end under those that did not start it;
the store is what they share.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock

from mars_core.errors import MarsError
from tasks.processes.addresses import answers, free_port, shown
from tasks.processes.child_process import leashed
from tasks.tracking.mlflow_store import LOCAL_PORT, health, make_store

PREFECT_STORE = "prefect.db"
PREFECT_PORT = 4200
START_SECONDS = 120.0
DRAIN_SECONDS = 10.0


class ServerError(MarsError, RuntimeError):
    """A server does not answer; the message says which, and where its log is if it is a local one."""


@contextmanager
def prefect_api(wanted_port: int = 0) -> Iterator[str]:
    """The API that Prefect uses for the length of a `with` block: the configured one, or a local server's.

    Raises:
        ServerError: nobody answers at the configured address, or the local server does not start.
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    configured = get_current_settings().api.url
    if configured:
        if not answers(f"{configured}/health"):
            raise ServerError(
                f"no Prefect server answers at {configured}; start it, or unset PREFECT_API_URL, which the "
                "active profile of Prefect may set too"
            )
        yield configured
        return
    with prefect_server(wanted_port) as address, temporary_settings({PREFECT_API_URL: f"{address}/api"}):
        try:
            yield f"{address}/api"
        finally:  # what is still to be sent, while there is a server to take it
            APILogWorker.drain_all(timeout=DRAIN_SECONDS)
            EventsWorker.drain_all(timeout=DRAIN_SECONDS)


@contextmanager
def prefect_server(wanted_port: int = 0) -> Iterator[str]:
    """A Prefect server with its UI on the working folder's store; its address.

    It gets the wanted port, or another where that is 0 or taken.

    Raises:
        ServerError: it does not start.
    """
    store = Path(PREFECT_STORE).resolve()
    port = free_port(wanted_port)
    address = f"http://127.0.0.1:{port}"
    environment = {
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{store}",
        "PREFECT_API_URL": f"{address}/api",
        "PREFECT_UI_API_URL": f"{address}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with ExitStack() as stack:
        with FileLock(f"{store}.lock"):  # two servers must not migrate one store at once
            stack.enter_context(
                _server(command, f"{address}/api/health", store.with_suffix(".log"), environment)
            )
        yield address


def check_mlflow(uri: str) -> None:
    """Find out before hours of work whether the server is there, if it is one.

    Raises:
        ServerError: it does not answer.
    """
    if uri.startswith("http") and not answers(health(uri)):
        raise ServerError(
            f"no MLflow server answers at {shown(uri)}; start it, or change tracking.uri or "
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
    with _server(command, f"{address}/health", Path("mlflow.log").resolve(), environment):
        yield address


@contextmanager
def _server(command: list[str], health: str, log: Path, environment: dict[str, str]) -> Iterator[None]:
    with leashed(command, log=log, env=os.environ | environment) as server:
        started = time.monotonic()
        while not answers(health):
            if server.poll() is not None or time.monotonic() - started > START_SECONDS:
                raise ServerError(f"{' '.join(command[2:5])} did not start; its log is {log}")
            time.sleep(0.2)
        yield
