"""Run a command that ends when its starter does, `kill -9` of the starter included.

    python -m tasks.processes.leash COMMAND [ARGUMENT ...]

The command gets its own session, and so its own process group. The leash watches its standard input, a pipe
from the starter. When the pipe closes, because the starter closed it or died, or when the leash itself gets
SIGTERM, it ends the whole group, first by SIGTERM and after a grace period by SIGKILL. Descendants in other
sessions, such as the runs of a Prefect worker, become children of the leash when the command ends, and are
killed. If the leash itself is killed, Linux kills the command, and the starter kills the rest (see
`tasks.processes.descendants`). The leash exits with the command's status (128 + the signal's number if a
signal ended it).
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tasks.processes.descendants import MARK, recorded

GRACE_SECONDS = 5.0
PR_SET_PDEATHSIG = 1
"""Option of Linux's prctl: the signal that a process gets when its parent dies."""
PR_SET_CHILD_SUBREAPER = 36
"""Option of Linux's prctl: orphaned descendants become children of this process, not of init."""


def main(command: list[str]) -> int:
    """Run `command`, end its group when standard input closes, return its exit status."""
    given = _given_descriptors()

    def start() -> int:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
            pass_fds=given,
        )
        child.returncode = 0  # it is waited for by its id
        for descriptor in given:
            os.close(descriptor)
        return child.pid

    with recorded(os.environ[MARK]) if MARK in os.environ else contextlib.nullcontext():
        return hold(start)


def _given_descriptors() -> list[int]:
    """The descriptors that this process inherited besides the standard streams, for the command."""
    given = []
    for descriptor in (int(entry.name) for entry in Path("/dev/fd").iterdir()):
        with contextlib.suppress(OSError):  # the one that the list was read by
            if descriptor > 2 and os.get_inheritable(descriptor):
                given.append(descriptor)
    return given


def hold(start: Callable[[], int]) -> int:
    """Hold a process that leads its own session: `start` makes it a child of this one, and returns its id.

    Returns:
        Its exit status; 128 + the signal's number if a signal ended it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the starter handles Ctrl-C
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    # SIGTERM may come before the command has started: it waits in a pipe.
    asked, ask = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(ask, b"."))
    held = start()

    def end_group_when_told() -> None:
        select.select([0, asked], [], [])  # the starter writes nothing, so its end was closed
        _signal_group(held, signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        _signal_group(held, signal.SIGKILL)

    threading.Thread(target=end_group_when_told, daemon=True).start()
    # Until it is reaped, no other process can get its id, and so no other group is hit.
    os.waitid(os.P_PID, held, os.WEXITED | os.WNOWAIT)
    _signal_group(held, signal.SIGKILL)  # processes that it left behind
    status = os.waitstatus_to_exitcode(os.waitpid(held, 0)[1])
    _kill_what_was_inherited()
    return status if status >= 0 else 128 - status


def die_with_parent() -> None:
    """Ask Linux to kill this process, which has just been forked, when its parent dies."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill_what_was_inherited() -> None:
    """Kill inherited processes; each may leave children, which are inherited in turn."""
    import psutil  # imported here, so that a leash starts quickly

    while inherited := psutil.Process().children():
        for process in inherited:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(inherited)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
