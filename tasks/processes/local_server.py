"""A server on this machine that runs as long as a command: Prefect's or MLflow's.

Both keep their data in the working folder: prefect.db, mlflow.db and mlartifacts. The servers run on a leash,
so that they end with the command that started them, however it ends, and listen on the loopback only. Every
command starts its own server, because a shared one would end while other commands still use it; they share
the store.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mars_core.errors import MarsError
from tasks.processes.addresses import answers
from tasks.processes.child_environment import without_secrets
from tasks.processes.child_process import leashed

START_SECONDS = 120.0


class ServerError(MarsError, RuntimeError):
    """A server does not answer; the message says which, and where its log is if it is a local one."""


@contextmanager
def serving(command: list[str], health: str, log: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a server during a `with` block, which begins when the server's health address answers.

    Raises:
        ServerError: it does not start.
    """
    with leashed(command, log=log, env=without_secrets() | environment) as server:
        started = time.monotonic()
        while not answers(health):
            name = " ".join(command[2:5])
            if (status := server.poll()) is not None:
                raise ServerError(f"{name} ended with status {status} while it started; its log is {log}")
            if time.monotonic() - started > START_SECONDS:
                raise ServerError(
                    f"{name} has not answered for {START_SECONDS:.0f} s, maybe because this machine is busy: "
                    f"run the same command again; its log is {log}"
                )
            time.sleep(0.2)
        yield
