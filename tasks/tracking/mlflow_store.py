"""Where MLflow is, whether it takes what it is sent, and what a flow does where it does not.

A run's folder holds everything that MLflow is sent. So a server that is down, busy or unreachable is no
reason to end hours of work, or not to begin them: the flow goes on, says so once, and sends what is missing
as soon as the server is back. What a person has to mend, such as refused credentials, is told before it.
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

from mars_core.errors import MarsError
from tasks.processes.addresses import AddressError, answers, shown
from tasks.run.run_config import TrackingConfig
from tasks.run.step import tell

Sent = TypeVar("Sent")

SQLITE = "sqlite:///"
LOCAL_STORE = "mlflow.db"
LOCAL_ARTIFACTS = "mlartifacts"
LOCAL_PORT = 5000
"""Where `mars ui` serves a local store, unless the port is taken."""
DOWN_OR_BUSY = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED"}
"""MLflow's names for failures that pass by themselves; one is of a server that cannot be reached at all."""
REFUSED = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"}
MODEL_SECONDS = "600"
"""How long a server may take to store a model that it was sent."""
_fluent_api = threading.Lock()

# MLflow asks a dead server for minutes, and each request waits for two; what is not sent now is sent later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
logging.getLogger("mlflow").setLevel(logging.ERROR)  # its notes on schema migrations and model cards
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # a line for each retry


class TrackingError(MarsError, RuntimeError):
    """MLflow does not take or know something; the message says what, and where it was asked."""


@dataclass
class Delivery:
    """What a flow sends to MLflow, one thing after the other."""

    config: TrackingConfig
    folder: Path
    """Where all that is sent lies, and stays."""
    missed: bool = False
    """Whether MLflow has not taken the last thing."""
    page: str | None = None
    """Address of what was sent, once MLflow has shown it."""

    def attempt(self, send: Callable[[MlflowClient], Sent], *, first: bool = False) -> Sent | None:
        """What `send` returns; None, and a sentence in the log, if MLflow is away or fails.

        Raises:
            TrackingError: at the first attempt, MLflow refuses what no waiting will make it take.
        """
        address = shown(tracking_uri(self.config))
        try:
            sent = send(reached(self.config))
        except Exception as error:  # stores of numbers and of artifacts raise many kinds
            if first and not is_away(self.config, error):
                raise TrackingError(f"MLflow at {address} {told(error)}") from error
            if not self.missed:
                tell(
                    "MLflow at %s %s. The run goes on; its numbers are in %s, and are sent when MLflow takes "
                    "them again.",
                    address, told(error), self.folder, level=logging.WARNING,
                )  # fmt: skip
            self.missed = True
            return None
        if self.missed:
            tell("MLflow at %s takes numbers again, and has got what it missed.", address)
        self.missed = False
        return sent

    def close(self) -> None:
        """Say how MLflow gets what it has missed to the end."""
        if self.missed:
            tell(
                "MLflow at %s has not got everything: once it is back, the same command sends what is "
                "missing, and runs nothing again.",
                shown(tracking_uri(self.config)), level=logging.WARNING,
            )  # fmt: skip


class _NoAnswerError(Exception):
    """A server that is not there."""


def tracking_uri(config: TrackingConfig) -> str:
    """Where MLflow keeps the numbers: as configured, by environment, or in the working folder."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{Path(LOCAL_STORE).resolve()}"


def check_tracking(config: TrackingConfig) -> None:
    """Find out before hours of work whether MLflow will take their numbers. A server may be down just now.

    Raises:
        TrackingError: it refuses the credentials, or the experiment was deleted, or the address is none.
    """
    try:
        found = reached(config).get_experiment_by_name(config.experiment)
    except Exception as error:
        if is_away(config, error):
            return
        raise TrackingError(f"MLflow at {shown(tracking_uri(config))} {told(error)}") from error
    if found and found.lifecycle_stage == "deleted":
        raise TrackingError(
            f"MLflow at {shown(tracking_uri(config))}: the experiment {config.experiment!r} was deleted; "
            "restore it, or name another with tracking.experiment"
        )


def is_away(config: TrackingConfig, error: Exception) -> bool:
    """Whether a failure is of a server that is down or busy, and not of what it was asked."""
    uri = tracking_uri(config)
    if isinstance(error, AddressError):
        return False
    if not uri.startswith("http"):
        return getattr(error, "error_code", "") == "TEMPORARILY_UNAVAILABLE"  # another process writes
    return getattr(error, "error_code", "") in DOWN_OR_BUSY or not answers(health(uri))


def told(error: Exception) -> str:
    """What went wrong, to follow the words "MLflow at ADDRESS": a line without passwords."""
    if isinstance(error, _NoAnswerError):
        return "does not answer"
    if getattr(error, "error_code", "") in REFUSED:
        return (
            "refuses the credentials; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN, to those of a user who may write there"
        )
    lines = str(error).splitlines() or [type(error).__name__]
    return f"failed ({shown(lines[0])[:300]})"


def health(uri: str) -> str:
    """The address at which a server says that it is there."""
    return f"{uri.rstrip('/')}/health"


def reached(config: TrackingConfig) -> MlflowClient:
    """A client, of a server that answers or of a local store, which is made where it is not there yet."""
    uri = tracking_uri(config)
    if uri.startswith("http") and not answers(health(uri)):
        raise _NoAnswerError
    make_store(uri)
    return MlflowClient(uri)


def runs_page(config: TrackingConfig, server: str) -> str:
    """The page of a server with the runs of the experiment; its first page where there are none yet.

    Raises:
        TrackingError: MLflow does not tell.
    """
    try:
        found = reached(config).get_experiment_by_name(config.experiment)
    except Exception as error:
        raise TrackingError(f"MLflow at {shown(server)} {told(error)}") from error
    return shown(f"{server}/#/experiments/{found.experiment_id}/runs" if found else server)


def make_store(uri: str) -> None:
    """Make a local store that is not there yet, whole or not at all; a server's is the server's to make.

    MLflow makes its tables one after the other. Where that is interrupted, or two processes do it at once,
    it is left with a database that it can neither use nor mend.
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
    """Beside the database of a local store; a server knows itself where it keeps artifacts."""
    store = _local_file(uri)
    return (store.parent / LOCAL_ARTIFACTS).as_uri() if store else None


@contextmanager
def fluent(uri: str) -> Iterator[None]:
    """Point MLflow's fluent API to a store for the length of a `with` block, and leave no trace of it.

    MLflow keeps the address in the environment, where the next run of this process would take it for its own.
    So one thread at a time has this API. It stores models, for which a server may take its time.
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
