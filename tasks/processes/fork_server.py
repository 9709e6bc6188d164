"""A process that has imported the trainer, and forks a trainer for each fit; deliveries are examined so, too.

    python -m tasks.processes.fork_server DESCRIPTOR

Importing the trainer and its networks takes longer than many fits. DESCRIPTOR is a socket that the starter
has opened. To start a fit, it sends a connection over that socket, and over the connection one line of JSON:
the module whose `main` is called, its argument, the log, the working folder and the environment. The
trainer's standard output is that connection, and its standard error is the log. A leash, which is forked too,
holds the trainer until the starter closes its end or dies, and finally sends the exit status:
{"exit": status}.

Before a fork the process only imports: it loads no model, uses no GPU and starts no threads. A GPU's driver
does not survive a fork, and a library may touch it on import; so a fit on a GPU is a command.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mars_core.errors import MarsError
from tasks.processes.descendants import MARK
from tasks.processes.leash import die_with_parent, hold


def main(descriptor: str) -> None:
    """Fork a leash with a trainer for every connection, until the starter closes the socket."""
    gc.disable()  # what is imported stays; to look through it takes two seconds
    import transformers.modeling_layers  # noqa: F401  what the module of every network imports first

    import mars_core.data.examination
    import mars_core.fit.train  # noqa: F401

    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the exit status of a leash is not needed
    with socket.socket(fileno=int(descriptor)) as asked:
        while received := socket.recv_fds(asked, 1, 1)[1]:
            with socket.socket(fileno=received[0]) as connection:
                if os.fork() == 0:
                    asked.close()
                    _serve(connection)
                    os._exit(0)


def request(module: str, spec: Path, log: Path, environment: Mapping[str, str]) -> bytes:
    """The line that calls a module's `main` with the name of a file, in the starter's folder."""
    asked = {"module": module, "spec": str(spec), "log": str(log.resolve())}
    place = {"folder": str(Path.cwd()), "path": sys.path, "environment": dict(environment)}
    return json.dumps(asked | place).encode() + b"\n"


def _serve(connection: socket.socket) -> None:
    """Be the leash of one trainer."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection.makefile("rb") as lines:
        asked = json.loads(lines.readline())
    os.dup2(connection.fileno(), 0)  # a leash ends when its standard input closes
    status = hold(lambda: _start(asked, connection))
    connection.sendall(json.dumps({"exit": status}).encode() + b"\n")


def _start(asked: dict[str, Any], connection: socket.socket) -> int:
    trainer = os.fork()
    if trainer:
        return trainer
    status = None
    try:
        gc.enable()
        _become(asked, connection)
        status = _run(asked["module"], asked["spec"])
    finally:
        if status is None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if status is None else status)


def _become(asked: dict[str, Any], connection: socket.socket) -> None:
    """Make this process like one that was started for the fit."""
    os.setsid()
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.stdout.flush()  # output of imports must not appear among the trainer's lines
    with Path(os.devnull).open() as nothing, Path(asked["log"]).open("a") as log:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 2)
    os.dup2(connection.fileno(), 1)
    connection.close()
    os.chdir(asked["folder"])
    mark = os.environ[MARK]
    os.environ.clear()
    os.environ.update(asked["environment"] | {MARK: mark})
    sys.path[:] = asked["path"]  # so that a user's own modules are found


def _run(module: str, spec: str) -> int:
    try:
        importlib.import_module(module).main(spec)
    except MarsError as error:
        print(error, file=sys.stderr)
        return 1
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 1
    return 0


if __name__ == "__main__":
    main(*sys.argv[1:])
