"""Child processes that end with the run, and whose failure is one sentence without a stack trace.

A child is a command on a leash, or a trainer that the fork server forks.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

from mars_core.errors import MarsError
from tasks.processes.descendants import MARK, kill_marked, marked, sweep
from tasks.processes.fork_server import request

END_SECONDS = 10.0


class ChildError(MarsError, RuntimeError):
    """A child process ended in failure; the message says how, and gives its last lines."""

    def __init__(self, message: str, status: int = 1) -> None:
        """Keep the exit status beside the message."""
        super().__init__(message)
        self.status = status


@contextmanager
def leashed(
    command: Sequence[str],
    *,
    log: Path,
    capture: bool = False,
    env: dict[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[subprocess.Popen[str]]:
    """Run a command during a `with` block; it ends with the block or with this process.

    Standard error, and standard output unless it is captured, are appended to the file `log`. The command
    also inherits the descriptors `pass_fds`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sweep()
    mark = marked()
    with log.open("a") as sink:
        child = subprocess.Popen(
            [sys.executable, "-m", "tasks.processes.leash", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if capture else sink,
            stderr=sink,
            text=True,
            env={**(os.environ if env is None else env), **mark},
            pass_fds=pass_fds,
            start_new_session=True,
        )
    threading.Thread(target=_kill_what_is_left, args=(child.pid, mark[MARK]), daemon=True).start()
    try:
        yield child
    finally:
        assert child.stdin
        child.stdin.close()
        try:
            child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.returncode < 0:
            kill_marked(mark[MARK])
        if child.stdout:
            child.stdout.close()


def _kill_what_is_left(leash: int, mark: str) -> None:
    """Wait for a leash's end; one that was killed has left what its command had started."""
    with suppress(ChildProcessError):  # whoever waited for it first looks at how it ended
        ended = os.waitid(os.P_PID, leash, os.WEXITED | os.WNOWAIT)
        if ended and ended.si_code != os.CLD_EXITED:
            kill_marked(mark)


def run_child(
    command: Sequence[str], *, log: Path, on_line: Callable[[str], None], deadline_seconds: float
) -> None:
    """Run a command to its end; `on_line` gets each line of its standard output.

    Raises:
        ChildError: it exited with an error, was killed, or took longer than the deadline.
    """
    what = " ".join(command[1:3]).removeprefix("-m ") or command[0]
    _run_to_its_end(lambda: leashed(command, log=log, capture=True), what, log, on_line, deadline_seconds)


def run_forked(
    module: str,
    spec: Path,
    *,
    log: Path,
    on_line: Callable[[str], None] = lambda line: None,
    deadline_seconds: float,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Call a module's `main` with the name of a file in a process of the fork server, as `run_child` would.

    Raises:
        ChildError: as `run_child`.
    """
    line = request(module, spec, log, environment)
    _run_to_its_end(lambda: _forked(line, log), module, log, on_line, deadline_seconds)


class _Child(Protocol):
    """The common interface of a command on a leash and a forked trainer."""

    @property
    def stdout(self) -> Iterable[str] | None: ...
    def terminate(self) -> None: ...
    def wait(self) -> int: ...


class _Trainer:
    """A forked trainer, or whatever else is forked, at the other end of a connection that is its leash."""

    def __init__(self, connection: socket.socket, lines: IO[str]) -> None:
        self._connection, self._lines = connection, lines
        self._status = -signal.SIGKILL.value
        """Its exit status; if it reports none, it was killed together with its leash."""

    @property
    def stdout(self) -> Iterator[str]:
        with suppress(ConnectionResetError):  # its leash was killed
            while line := self._lines.readline():
                if line.startswith('{"exit":'):
                    self._status = json.loads(line)["exit"]
                else:
                    yield line

    def terminate(self) -> None:
        with suppress(OSError):  # it has ended
            self._connection.shutdown(socket.SHUT_WR)

    def wait(self) -> int:
        for _ in self.stdout:
            pass
        return self._status


@contextmanager
def _forked(line: bytes, log: Path) -> Iterator[_Trainer]:
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    with _FORK_SERVER.connection(log) as connection:
        connection.sendall(line)
        with connection.makefile(encoding="utf-8") as lines:
            trainer = _Trainer(connection, lines)
            try:
                yield trainer
            finally:
                trainer.terminate()
                connection.settimeout(END_SECONDS)
                with suppress(TimeoutError):
                    trainer.wait()


class _ForkServer:
    """The fork server of this process, started with the first fit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = ExitStack()
        self._requests: socket.socket | None = None

    def connection(self, log: Path) -> socket.socket:
        """One end of a connection, whose other end is sent to the server; a new server's output goes to
        `log`."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            if self._requests is None:
                self._start(log)
            try:
                self._send(theirs)
            except OSError:  # it was killed
                self._running.close()
                self._start(log)
                self._send(theirs)
        return ours

    def _send(self, connection: socket.socket) -> None:
        assert self._requests
        socket.send_fds(self._requests, [b"."], [connection.fileno()])

    def _start(self, log: Path) -> None:
        self._requests, theirs = socket.socketpair()
        self._running.enter_context(self._requests)
        with theirs:
            command = [sys.executable, "-m", "tasks.processes.fork_server", str(theirs.fileno())]
            self._running.enter_context(leashed(command, log=log, pass_fds=[theirs.fileno()]))

    def close(self) -> None:
        self._running.close()


_FORK_SERVER = _ForkServer()
atexit.register(_FORK_SERVER.close)


def _run_to_its_end(
    start: Callable[[], AbstractContextManager[_Child]],
    what: str,
    log: Path,
    on_line: Callable[[str], None],
    deadline_seconds: float,
) -> None:
    late = threading.Event()
    log.unlink(missing_ok=True)  # otherwise a failure without output would show an earlier one's lines
    with start() as child:

        def end_late() -> None:
            late.set()
            child.terminate()

        timer = threading.Timer(deadline_seconds, end_late)
        timer.daemon = True
        timer.start()
        try:
            assert child.stdout
            for line in child.stdout:
                on_line(line)
            status = child.wait()
        finally:
            timer.cancel()
    if status == 0 and not late.is_set():
        return
    last_lines = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-15:]).strip()
    raise ChildError(
        f"{what} {_ending(status, late.is_set(), deadline_seconds)}. "
        f"Its last words, of {log}:\n{last_lines or '(none)'}",
        status,
    )


def _ending(status: int, late: bool, deadline_seconds: float) -> str:
    if late:
        return f"was ended after its deadline of {deadline_seconds / 3600:.3g} hours"
    try:
        name = signal.Signals(-status if status < 0 else status - 128).name
    except ValueError:
        return f"failed with exit status {status}"
    hint = " (Linux ends a process like this when memory runs out)" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"
