"""Debian's PostgreSQL as the service `postgres`: does what the entrypoint of the container image does.

PostgreSQL refuses to run as root, so root runs it as the user `postgres`, which Debian's package creates.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from mars_core.errors import MarsError

USER = "postgres"
DEBIAN = Path("/usr/lib/postgresql")
OLDEST = 15


class PostgresError(MarsError, RuntimeError):
    """PostgreSQL is not installed, or its data folder cannot be created; the message says what to do."""


def programs() -> Path:
    """The folder with the programs of the newest installed PostgreSQL.

    Raises:
        PostgresError: no recent enough version is installed.
    """
    found = {
        int(folder.parent.name): folder
        for folder in DEBIAN.glob("[0-9]*/bin")
        if (folder / "initdb").exists()
    }
    if not found or max(found) < OLDEST:
        raise PostgresError(
            f"PostgreSQL {OLDEST} or newer is not installed; on Debian: apt-get install postgresql"
        )
    return found[max(found)]


def unprivileged(command: Sequence[str]) -> list[str]:
    """The command, run as the user `postgres` if this process is root."""
    if os.geteuid() != 0:
        return list(command)
    return [
        "setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--pdeathsig=KILL", *command
    ]  # fmt: skip


def initialise(data: Path, script: Path, environment: Mapping[str, str]) -> None:
    """Create the data folder with its user, password and databases, completely or not at all.

    Args:
        data: the data folder.
        script: SQL that runs once in the new server.
        environment: POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB, and the PATH of the programs.

    Raises:
        PostgresError: it cannot be created; the message contains PostgreSQL's.
    """
    if data.exists():
        return
    partial = data.with_name(f"{data.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    user, database = environment["POSTGRES_USER"], environment["POSTGRES_DB"]

    def own(path: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(path, USER)

    def call(*command: str, text: str | None = None) -> None:
        done = subprocess.run(
            unprivileged(command), env=environment, input=text, text=True, capture_output=True, cwd="/"
        )
        if done.returncode:
            raise PostgresError(
                f"{command[0]} failed on {partial}: {(done.stderr or done.stdout).strip()}"
                + (f"\nThe user {USER} must be able to enter that folder." if os.geteuid() == 0 else "")
            )

    own(partial)
    with NamedTemporaryFile("w", prefix=".password-", dir=partial.parent) as password:
        print(environment["POSTGRES_PASSWORD"], file=password, flush=True)
        own(Path(password.name))
        call(
            "initdb", "--pgdata", str(partial), "--username", user, "--pwfile", password.name,
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8",
        )  # fmt: skip
    with (partial / "postgresql.conf").open("a") as settings:  # this user may not write to Debian's folder
        settings.write("unix_socket_directories = ''\n")
    log = str(partial / "initialising.log")
    call("pg_ctl", "start", "--wait", "--pgdata", str(partial), "--log", log)
    try:
        connection = {"PGHOST": "127.0.0.1", "PGUSER": user, "PGPASSWORD": environment["POSTGRES_PASSWORD"]}
        environment = {**environment, **connection}
        call("createdb", database)
        call("psql", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", database, text=script.read_text())
    finally:
        call("pg_ctl", "stop", "--wait", "--mode=fast", "--pgdata", str(partial))
    partial.replace(data)
