"""A local Prefect server: `mars refine` uses it if no server is configured, and `mars ui` shows it.

Every user of this machine can reach its port, and every page in their browsers: each start has a random
password, and only the server's own pages may ask it.
"""

import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from tasks.processes.addresses import answers, free_port
from tasks.processes.local_server import ServerError, serving

PREFECT_STORE = "prefect.db"
PREFECT_PORT = 4200
DRAIN_SECONDS = 10.0


class PrefectApi(NamedTuple):
    """Where Prefect is."""

    url: str
    """Address of its API."""
    credentials: str | None
    """What the page of a local server asks for, user:password; None of a configured one."""

    @property
    def page(self) -> str:
        """Address of its pages."""
        return self.url.removesuffix("/api")


@contextmanager
def prefect_api(wanted_port: int = 0) -> Iterator[PrefectApi]:
    """The API that Prefect uses for the length of a `with` block: the configured one, or a local server's.

    Raises:
        ServerError: no server answers at the configured address, or the local server does not start.
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        get_current_settings,
        temporary_settings,
    )

    configured = get_current_settings().api.url
    if configured:
        if not answers(f"{configured}/health"):
            raise ServerError(
                f"no Prefect server answers at {configured}; start it, or unset PREFECT_API_URL, which "
                "Prefect's active profile may also set"
            )
        yield PrefectApi(configured, None)
        return
    credentials = f"mars:{secrets.token_urlsafe()}"
    with (
        prefect_server(credentials, wanted_port) as address,
        temporary_settings({PREFECT_API_URL: f"{address}/api", PREFECT_API_AUTH_STRING: credentials}),
    ):
        try:
            yield PrefectApi(f"{address}/api", credentials)
        finally:  # what is still to be sent, while there is a server to take it
            APILogWorker.drain_all(timeout=DRAIN_SECONDS)
            EventsWorker.drain_all(timeout=DRAIN_SECONDS)


@contextmanager
def prefect_server(credentials: str, wanted_port: int = 0) -> Iterator[str]:
    """A Prefect server with its UI on the working folder's store; its address.

    It asks for the credentials, user:password. It gets the wanted port, or another where that is 0 or taken.

    Raises:
        ServerError: it does not start.
    """
    store = Path(PREFECT_STORE).resolve()
    if "?" in str(store):
        raise ServerError(
            f"{store.parent}: the address of Prefect's store cannot hold a ? in the working folder's name: "
            "work in another folder (runs, data and models may lie in this one), or set PREFECT_API_URL"
        )
    port = free_port(wanted_port)
    address = f"http://127.0.0.1:{port}"
    environment = {
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{store}",
        "PREFECT_API_URL": f"{address}/api",
        "PREFECT_UI_API_URL": f"{address}/api",
        "PREFECT_SERVER_API_AUTH_STRING": credentials,
        "PREFECT_API_AUTH_STRING": credentials,
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": f"{address},http://localhost:{port}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with ExitStack() as stack:
        with FileLock(f"{store}.lock"):  # two servers must not migrate one store at once
            stack.enter_context(
                serving(command, f"{address}/api/health", store.with_suffix(".log"), environment)
            )
        yield address
