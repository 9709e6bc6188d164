"""A process that has imported the trainer, and forks one that fits whenever it is asked to.

    python -m tasks.processes.fork_server DESCRIPTOR

Importing the trainer and its networks takes longer than many a fit. DESCRIPTOR is a socket that was opened by
the starter; each fit is asked for by a connection sent over it, on which comes one line of JSON: what
`mars_core.fit.train` is called with, the log, the working folder and the environment. The trainer's standard
output is that connection, its standard error the log. A leash that is forked, too, holds the trainer until
the starter closes its end or dies, and says last how it ended: {"exit": status}.

Nothing but importing happens before a fork: no model, no GPU, no work of threads. A GPU's driver does not
survive a fork, and some library may touch it while it is imported; so what trains on one is a command.
"""

import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from mars_core.errors import MarsError
from tasks.processes.leash import die_with_parent, hold


def main(descriptor: str) -> None:
    """Fork a leash with a trainer for every connection, until the starter closes the socket."""
    import transformers.modeling_layers  # noqa: F401  what the module of every network imports first

    import mars_core.fit.train  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a leash ended
    with socket.socket(fileno=int(descriptor)) as asked:
        while received := socket.recv_fds(asked, 1, 1)[1]:
            with socket.socket(fileno=received[0]) as connection:
                if os.fork() == 0:
                    asked.close()
                    _serve(connection)
                    os._exit(0)


def request(spec: Path, log: Path) -> bytes:
    """The line that asks for a fit, in the starter's folder and environment."""
    asked = {"spec": str(spec), "log": str(log.resolve()), "folder": str(Path.cwd()), "path": sys.path}
    return json.dumps(asked | {"environment": dict(os.environ)}).encode() + b"\n"


def _serve(connection: socket.socket) -> None:
    """Be the leash of one trainer."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection.makefile("rb") as lines:
        asked = json.loads(lines.readline())
    os.dup2(connection.fileno(), 0)  # what a leash looks at
    status = hold(lambda: _start(asked, connection))
    connection.sendall(json.dumps({"exit": status}).encode() + b"\n")


def _start(asked: dict[str, Any], connection: socket.socket) -> int:
    trainer = os.fork()
    if trainer:
        return trainer
    status = None
    try:
        _become(asked, connection)
        status = _fit(asked["spec"])
    finally:
        if status is None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if status is None else status)


def _become(asked: dict[str, Any], connection: socket.socket) -> None:
    """Be a process as if it had been started for the fit."""
    os.setsid()
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.stdout.flush()  # what a library has said while it was imported is none of the trainer's lines
    with Path(os.devnull).open() as nothing, Path(asked["log"]).open("a") as log:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 2)
    os.dup2(connection.fileno(), 1)
    connection.close()
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.path[:] = asked["path"]  # where the modules of a user's own are found


def _fit(spec: str) -> int:
    from mars_core.fit import train as fitting

    try:
        fitting.main(spec)
    except MarsError as error:
        print(error, file=sys.stderr)
        return 1
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 1
    return 0


if __name__ == "__main__":
    main(*sys.argv[1:])
