"""Where MLflow is, whether it accepts data, and what a flow does if it does not.

A run's folder holds everything that is sent to MLflow. So a server that is down, busy or unreachable does not
stop a flow: it continues, logs one warning, and sends the missing data as soon as the server is back. What a
user has to fix, such as refused credentials, is reported before the work starts.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import mlflow
from filelock import FileLock
from mlflow import MlflowClient

from mars_core.config import redact
from mars_core.errors import MarsError
from tasks.processes.addresses import AddressError, answers
from tasks.run.run_config import TrackingConfig
from tasks.run.step import tell

Sent = TypeVar("Sent")

SQLITE = "sqlite:///"
LOCAL_STORE = "mlflow.db"
LOCAL_ARTIFACTS = "mlartifacts"
LOCAL_PORT = 5000
"""The port at which `mars ui` serves a local store, unless it is taken."""
DOWN_OR_BUSY = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED"}
"""MLflow's names for temporary failures; one of them means that the server cannot be reached."""
REFUSED = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"}
MODEL_SECONDS = "600"
"""How long a server may take to store a model."""
_fluent_api = threading.Lock()

# By default MLflow retries a dead server for minutes, and each request waits for two; here data are sent
# later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
logging.getLogger("mlflow").setLevel(logging.ERROR)  # its messages on schema migrations and model cards
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # one line for each retry


class TrackingError(MarsError, RuntimeError):
    """MLflow refuses a request, or lacks what was asked for; the message says what, and names the address."""


@dataclass
class Delivery:
    """Sends a flow's data to MLflow, and continues without MLflow when it is not available."""

    config: TrackingConfig
    folder: Path
    """The folder that holds all that is sent."""
    missed: bool = False
    """Whether the last attempt failed."""
    page: str | None = None
    """Address of the page in MLflow, once it is known."""

    def attempt(self, send: Callable[[MlflowClient], Sent], *, first: bool = False) -> Sent | None:
        """Call `send`; returns its result, or None after a warning if MLflow is not available or fails.

        Raises:
            TrackingError: at the first attempt, MLflow refuses the data for a reason that waiting does not
                change.
        """
        address = redact(tracking_uri(self.config))
        try:
            sent = send(reached(self.config))
        except Exception as error:  # stores of metrics and of artifacts raise many kinds of errors
            if first and not is_away(self.config, error):
                raise TrackingError(f"MLflow at {address} {told(error)}") from error
            if not self.missed:
                tell(
                    "MLflow at %s %s. The run goes on; its metrics are in %s, and are sent when MLflow is "
                    "available again.",
                    address, told(error), self.folder, level=logging.WARNING,
                )  # fmt: skip
            self.missed = True
            return None
        if self.missed:
            tell("MLflow at %s is available again, and has got the missing metrics.", address)
        self.missed = False
        return sent

    def close(self) -> None:
        """Log how to send what MLflow still lacks at the end."""
        if self.missed:
            tell(
                "MLflow at %s has not got everything: once it is back, the same command sends what is "
                "missing, and runs nothing again.",
                redact(tracking_uri(self.config)), level=logging.WARNING,
            )  # fmt: skip


class _NoAnswerError(Exception):
    """The server does not answer."""


def tracking_uri(config: TrackingConfig) -> str:
    """Where MLflow keeps metrics: as configured, by environment, or in the working folder.

    Raises:
        TrackingError: the working folder has a name that no address of a store can hold.
    """
    configured = config.uri or os.environ.get("MLFLOW_TRACKING_URI")
    store = Path(LOCAL_STORE).resolve()
    if not configured and "?" in str(store):
        raise TrackingError(
            f"{store.parent}: the address of MLflow's store cannot hold a ? in the working folder's name: "
            "work in another folder, or set tracking.uri"
        )
    return configured or f"{SQLITE}{store}"


def check_tracking(config: TrackingConfig) -> None:
    """Check before hours of work that MLflow will accept their metrics; a server may be down for the moment.

    Raises:
        TrackingError: it refuses the credentials, or the experiment was deleted, or the address is not valid.
    """
    try:
        found = reached(config).get_experiment_by_name(config.experiment)
    except Exception as error:
        if is_away(config, error):
            return
        raise TrackingError(f"MLflow at {redact(tracking_uri(config))} {told(error)}") from error
    if found and found.lifecycle_stage == "deleted":
        raise TrackingError(
            f"MLflow at {redact(tracking_uri(config))}: the experiment {config.experiment!r} was deleted; "
            "restore it, or name another with tracking.experiment"
        )


def is_away(config: TrackingConfig, error: Exception) -> bool:
    """Whether a failure means that the server is down or busy, and not that the request is wrong."""
    uri = tracking_uri(config)
    if isinstance(error, AddressError):
        return False
    if not uri.startswith("http"):
        return getattr(error, "error_code", "") == "TEMPORARILY_UNAVAILABLE"  # another process is writing
    return getattr(error, "error_code", "") in DOWN_OR_BUSY or not answers(health(uri))


def told(error: Exception) -> str:
    """What went wrong, as the end of a sentence that begins with "MLflow at ADDRESS"; without passwords."""
    if isinstance(error, _NoAnswerError):
        return "does not answer"
    if getattr(error, "error_code", "") in REFUSED:
        return (
            "refuses the credentials; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN, to those of a user with write access"
        )
    lines = str(error).splitlines() or [type(error).__name__]
    return f"failed ({redact(lines[0])[:300]})"


def health(uri: str) -> str:
    """The health address of a server."""
    return f"{uri.rstrip('/')}/health"


def reached(config: TrackingConfig) -> MlflowClient:
    """A client of a server that answers, or of a local store, which is created if necessary."""
    uri = tracking_uri(config)
    if uri.startswith("http") and not answers(health(uri)):
        raise _NoAnswerError
    make_store(uri)
    return MlflowClient(uri)


def runs_page(config: TrackingConfig, server: str) -> str:
    """The page of a server with the experiment's runs; its first page if there is no such experiment yet.

    Raises:
        TrackingError: the request to MLflow fails.
    """
    try:
        found = reached(config).get_experiment_by_name(config.experiment)
    except Exception as error:
        raise TrackingError(f"MLflow at {redact(server)} {told(error)}") from error
    return redact(f"{server}/#/experiments/{found.experiment_id}/runs" if found else server)


def make_store(uri: str) -> None:
    """Create a local store that does not exist yet, completely or not at all; a server creates its own.

    MLflow creates its tables one after the other. If that is interrupted, or two processes do it at once, the
    database is left in a state that MLflow can neither use nor repair.
    """
    store = _local_file(uri)
    if store is None or store.exists():
        return
    store.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{store}.lock"):
        if not store.exists():
            beside = Path(f"{store}.partial")
            beside.unlink(missing_ok=True)
            MlflowClient(SQLITE + str(beside)).search_experiments(max_results=1)
            beside.replace(store)


def _local_file(uri: str) -> Path | None:
    return Path(uri.removeprefix(SQLITE)).resolve() if uri.startswith(SQLITE) else None


def artifact_location(uri: str) -> str | None:
    """The folder of artifacts beside a local store's database; None for a server, which has its own place."""
    store = _local_file(uri)
    return (store.parent / LOCAL_ARTIFACTS).as_uri() if store else None


@contextmanager
def fluent(uri: str) -> Iterator[None]:
    """Point MLflow's fluent API to a store during a `with` block, and restore everything afterwards.

    MLflow keeps the address in the environment, where the next run of this process would read it. So only one
    thread at a time uses this API. It stores models, for which a server may need more time.
    """
    with _fluent_api:
        names = "MLFLOW_TRACKING_URI", "MLFLOW_HTTP_REQUEST_TIMEOUT"
        before = {name: os.environ.get(name) for name in names}
        mlflow.set_tracking_uri(uri)
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = MODEL_SECONDS
        try:
            yield
        finally:
            mlflow.set_tracking_uri(None)
            os.environ.update({name: value for name, value in before.items() if value is not None})
