"""Child processes that end with the run, and whose failure is a sentence and not a stack of theirs.

A child is a command on a leash, or a fork of a process that has imported the trainer already: importing it
takes longer than many a fit.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Protocol

from mars_core.errors import MarsError
from tasks.leash import die_with_parent

END_SECONDS = 10.0
IMPORTED = ["mars_core.fitting", "transformers.modeling_layers"]
"""What the process that is forked has imported: the trainer, and what a network's own module needs."""


class ChildError(MarsError, RuntimeError):
    """A child process ended in failure; the message says how, and gives its last lines."""


@contextmanager
def leashed(
    command: Sequence[str], *, log: Path, capture: bool = False, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a command for the length of a `with` block; it ends with the block or with this process.

    Standard error, and standard output unless it is captured, are appended to the file `log`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as sink:
        child = subprocess.Popen(
            [sys.executable, "-m", "tasks.leash", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if capture else sink,
            stderr=sink,
            text=True,
            env=env,
            start_new_session=True,
        )
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
        if child.stdout:
            child.stdout.close()


def run_child(
    command: Sequence[str], *, log: Path, on_line: Callable[[str], None], deadline_seconds: float
) -> None:
    """Run a command to its end; `on_line` gets each line of its standard output.

    Raises:
        ChildError: it exited with an error, was killed, or took longer than the deadline.
    """
    what = " ".join(command[1:3]).removeprefix("-m ") or command[0]
    log.unlink(missing_ok=True)  # else a silent failure would be told with an earlier one's last words
    _run_to_its_end(leashed(command, log=log, capture=True), what, log, on_line, deadline_seconds)


def run_fork(
    main: Callable[[str], None],
    argument: str,
    *,
    log: Path,
    on_line: Callable[[str], None],
    deadline_seconds: float,
) -> None:
    """Call `main(argument)` in a process of its own, as `run_child` runs a command.

    It is forked from a process that lives as long as this one, has imported `IMPORTED` and done nothing
    else. A GPU's driver does not survive a fork: what trains on one is a command.

    Raises:
        ChildError: as of `run_child`; a `MarsError` of `main` is an exit with its message.
    """
    log.unlink(missing_ok=True)
    _run_to_its_end(_forked(main, argument, log), main.__module__, log, on_line, deadline_seconds)


class _Child(Protocol):
    """What a running command and a running fork have in common."""

    @property
    def stdout(self) -> IO[str] | None: ...
    def terminate(self) -> None: ...
    def wait(self) -> int: ...


class _Fork:
    def __init__(self, process: multiprocessing.process.BaseProcess, stdout: IO[str]) -> None:
        self.stdout, self.terminate = stdout, process.terminate
        self._process = process

    def wait(self) -> int:
        self._process.join()
        status = self._process.exitcode
        assert status is not None
        return status


@contextmanager
def _forked(main: Callable[[str], None], argument: str, log: Path) -> Iterator[_Fork]:
    log.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_become, args=(main, argument, writer, log), daemon=True)
    process.start()
    writer.close()
    with reader, open(reader.fileno(), encoding="utf-8", closefd=False) as lines:
        try:
            yield _Fork(process, lines)
        finally:
            process.terminate()
            process.join(END_SECONDS)
            process.kill()
            process.join()


def _become(main: Callable[[str], None], argument: str, lines: Connection, log: Path) -> None:
    """What a fork does: its standard output are the lines, its standard error is the log."""
    os.setsid()  # a Ctrl-C is the starter's to handle
    die_with_parent()
    threading.Thread(target=_die_with_the_starter, daemon=True).start()
    with log.open("a") as sink:
        os.dup2(sink.fileno(), sys.stderr.fileno())
    os.dup2(lines.fileno(), sys.stdout.fileno())
    lines.close()
    try:
        main(argument)
    except MarsError as error:
        sys.exit(str(error))


def _die_with_the_starter() -> None:
    """The starter is not the parent, which is the process that was forked."""
    starter = multiprocessing.parent_process()
    assert starter
    wait([starter.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def _run_to_its_end(
    started: AbstractContextManager[_Child],
    what: str,
    log: Path,
    on_line: Callable[[str], None],
    deadline_seconds: float,
) -> None:
    late = threading.Event()
    with started as child:

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
        f"Its last words, of {log}:\n{last_lines or '(none)'}"
    )


def _ending(status: int, late: bool, deadline_seconds: float) -> str:
    if late:
        return f"was ended after its deadline of {deadline_seconds / 3600:g} hours"
    try:
        name = signal.Signals(-status if status < 0 else status - 128).name
    except ValueError:
        return f"failed with exit status {status}"
    hint = " (the system ends a process so when memory runs out)" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"
