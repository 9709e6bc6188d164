"""The services of docker-compose.yml on this machine, without Docker.

    python -m deployments.stack run [SERVICE ...]       until Ctrl-C or SIGTERM
    python -m deployments.stack start [SERVICE ...]     in the background, until:
    python -m deployments.stack stop

Every service is on a leash: when the stack ends, even by `kill -9`, all its processes end. A service that
dies is restarted, as docker-compose does. The folder `services` has the data, and a log of each service.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from filelock import FileLock, Timeout

import flows  # noqa: F401 - its variables, such as that the loopback needs no proxy, are the services' too
from deployments import environment, postgres
from deployments.compose import LOOPBACK, Service, services
from mars_core.errors import MarsError
from tasks.processes.child_process import leashed

STATE = environment.PROJECT / "services"
HEALTH_SECONDS = 10.0
"""Deadline of one health check."""
LOOK_SECONDS = 0.5
RESTART_SECONDS = 5.0
"""Seconds between two starts of a service that dies at once."""
FOREIGN = ("PREFECT_", "MLFLOW_", "PG", "POSTGRES_")
"""Variables of the shell that no service inherits, because docker-compose.yml sets all of them."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Named = Annotated[
    list[str] | None, typer.Argument(metavar="[SERVICE]...", help="These, and those they need; else all.")
]
State = Annotated[Path, typer.Option(resolve_path=True, help="Folder of data and logs.")]
EnvFile = Annotated[
    Path, typer.Option(resolve_path=True, help="Secrets and ports; created with random secrets if missing.")
]


class StackError(MarsError, RuntimeError):
    """A service cannot be started; the message names it and its log."""


@app.command()
def run(named: Named = None, state: State = STATE, env_file: EnvFile = environment.FILE) -> None:
    """Run the services until Ctrl-C or SIGTERM."""
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell lets its background commands ignore SIGINT
        signal.signal(number, interrupt)
    try:
        with told_errors(), owned(state):
            supervise(_planned(state, env_file, named), state)
    except KeyboardInterrupt:
        say("Ended.")


@app.command()
def start(named: Named = None, state: State = STATE, env_file: EnvFile = environment.FILE) -> None:
    """Run the services in the background; returns when all of them are healthy."""
    with told_errors():
        planned = _planned(state, env_file, named)
        if not is_free(state):
            say(f"The services of {state} run already.\n{addresses(planned)}")
            return
        in_background(
            ["deployments.stack", "run", *(named or ()), "--state", str(state), "--env-file", str(env_file)],
            state,
        )
        say(
            f"User mars, passwords in {env_file}; logs in {state}.\n"
            "For a shell:  . deployments/client.sh        End:  make services-stop"
        )


@app.command()
def stop(state: State = STATE) -> None:
    """End the services that run in the background."""
    with told_errors():
        end(state)


def in_background(module: list[str], state: Path) -> None:
    """Run a module of this project, with arguments, in the background; print what it says until the file
    `healthy` is in `state`.

    Raises:
        typer.Exit: it ends before.
    """
    healthy, log = state / "healthy", state / "stack.log"
    healthy.unlink(missing_ok=True)  # left by one that was killed
    with log.open("w") as sink:
        running = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=environment.PROJECT, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
            start_new_session=True,
        )  # fmt: skip
    told = 0
    while running.poll() is None and not healthy.exists():
        time.sleep(LOOK_SECONDS)
        told = _tell_news(log, told)
    _tell_news(log, told)
    if running.poll() is not None:
        raise typer.Exit(1)


def end(state: Path) -> None:
    """End what runs in the background with this folder."""
    number = state / "pid"
    if not number.exists() or is_free(state):
        say("Nothing runs here.")
        return
    os.kill(int(number.read_text()), signal.SIGTERM)
    while not is_free(state):
        time.sleep(LOOK_SECONDS)
    say("Ended.")


def supervise(planned: list[Service], state: Path) -> NoReturn:
    """Start services in order, each when the one before is healthy; restart those that die; finally end all.

    Raises:
        StackError: a service does not become healthy.
    """
    healthy = state / "healthy"
    running: dict[str, tuple[subprocess.Popen[str], ExitStack, float]] = {}

    def begin(service: Service) -> None:
        leash = ExitStack()
        child = leash.enter_context(
            leashed(_command(service), log=state / f"{service.name}.log", env=_variables(service))
        )
        running[service.name] = child, leash, time.monotonic()

    try:
        for service in planned:
            started = time.monotonic()
            say(f"{service.name}: starting")
            begin(service)
            while not _is_healthy(service):
                ended = running[service.name][0].poll() is not None
                if ended or time.monotonic() - started > service.patience_seconds:
                    raise StackError(_last_words(service, state, ended))
                time.sleep(LOOK_SECONDS)
            say(f"{service.name}: healthy after {time.monotonic() - started:.0f} s")
        say(addresses(planned))
        healthy.touch()
        while True:
            for service in planned:
                child, leash, started = running[service.name]
                if child.poll() is not None and time.monotonic() - started > RESTART_SECONDS:
                    say(f"{service.name}: ended with status {child.returncode}; starting it again")
                    leash.close()
                    begin(service)
            time.sleep(LOOK_SECONDS)
    finally:
        healthy.unlink(missing_ok=True)
        for _, leash, _ in reversed(running.values()):
            leash.close()


def addresses(planned: list[Service]) -> str:
    """The addresses of the services, one on each line."""
    return "\n".join(
        f"{service.name + ':':10}http://{LOOPBACK}:{service.port}"
        for service in planned
        if service.port and service.name != postgres.USER
    )


def _planned(state: Path, env_file: Path, named: list[str] | None) -> list[Service]:
    if environment.make(env_file):
        say(f"{env_file} got random secrets and free ports.")
    postgres.programs()  # fails before anything starts if PostgreSQL is missing
    state.mkdir(parents=True, exist_ok=True)
    found = services(state, environment.read(env_file))
    wanted = set(named or (service.name for service in found))
    if unknown := wanted - {service.name for service in found}:
        raise StackError(f"no such service: {', '.join(unknown)}; docker-compose.yml names them")
    for service in reversed(found):
        if service.name in wanted:
            wanted.update(service.after)
    return [service for service in found if service.name in wanted]


def _command(service: Service) -> list[str]:
    """Create the service's folders; returns its command."""
    for folder in service.volumes:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if service.name != postgres.USER:
            folder.mkdir(exist_ok=True)
    if service.name != postgres.USER:
        return list(service.command)
    script = service.mounted["databases.sql"]
    postgres.initialise(Path(service.environment["PGDATA"]), script, _variables(service))
    return postgres.unprivileged(service.command)


def _variables(service: Service) -> dict[str, str]:
    """The service's environment; PATH has the programs beside this Python, and PostgreSQL's."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    path = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    if service.name == postgres.USER:
        path.insert(0, str(postgres.programs()))
    configured = {name: value for name, value in service.environment.items() if value}
    return {**own, "PATH": os.pathsep.join(path), **configured}


def _is_healthy(service: Service) -> bool:
    check = subprocess.Popen(
        service.health, env=_variables(service), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        return check.wait(HEALTH_SECONDS) == 0
    except subprocess.TimeoutExpired:
        check.kill()
        check.wait()
        return False


def _last_words(service: Service, state: Path, ended: bool) -> str:
    log = state / f"{service.name}.log"
    last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    what = (
        "ended before it was healthy" if ended else f"is not healthy after {service.patience_seconds:.0f} s"
    )
    return f"{service.name} {what}. Its last words, of {log}:\n{last}"


@contextmanager
def owned(state: Path) -> Iterator[None]:
    """Let only one process run in a folder, which `is_free` and `end` find there.

    Raises:
        StackError: one runs there.
    """
    state.mkdir(parents=True, exist_ok=True)
    lock = FileLock(state / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StackError(f"what {state} belongs to runs already; end it first") from None
    number = state / "pid"
    number.write_text(str(os.getpid()))
    try:
        yield
    finally:
        number.unlink()
        lock.release()


def is_free(state: Path) -> bool:
    """Whether nothing runs in a folder."""
    lock = FileLock(state / ".lock")
    try:
        with lock.acquire(timeout=0):
            return True
    except Timeout:
        return False


def _tell_news(log: Path, told: int) -> int:
    """Print a log after its first `told` lines; returns its number of lines."""
    lines = log.read_text().splitlines()
    for line in lines[told:]:
        say(line)
    return len(lines)


def interrupt(*_: object) -> NoReturn:
    """Handle a signal as Ctrl-C."""
    raise KeyboardInterrupt


@contextmanager
def told_errors() -> Iterator[None]:
    """Print an error that a user can fix as one line, and exit with 1."""
    try:
        yield
    except MarsError as error:
        print(f"services: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


if __name__ == "__main__":
    app()
