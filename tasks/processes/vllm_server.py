"""A vLLM server of a run's own.

It runs in a separate Python environment, on a leash (see `tasks.processes.leash`): it ends with the process
that launched it, however that ends, and so does its whole process group. It asks for a key that only this run
has.
"""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mars_core.generation import GenerationConfig, GenerationError, LaunchConfig
from tasks.processes.addresses import answers, free_port
from tasks.processes.child_environment import without_secrets
from tasks.processes.child_process import leashed
from tasks.run.step import tell
from tasks.run.vllm_command import for_cpu, has_gpu, model_arguments, server_command

LAST_LINES = 20
MODEL_SECRETS = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
"""Secrets of the environment that a server may need to fetch its model."""
MESSAGE_SECONDS = 15.0


class LaunchedServer(NamedTuple):
    """A server that has answered."""

    address: str
    """Such as http://127.0.0.1:40001."""
    poll: Callable[[], int | None]
    """Its exit status, or None while it runs."""


@contextmanager
def launched_server(
    config: GenerationConfig,
    launch: LaunchConfig,
    log: Path,
    api_key: str,
    host: str = "127.0.0.1",
    threads: int | None = None,
) -> Iterator[LaunchedServer]:
    """A vLLM server on this machine during a `with` block, which begins when it answers.

    Args:
        config: which model it serves.
        launch: its command.
        log: gets what it says.
        api_key: what it asks for.
        host: address that it listens on.
        threads: of a server on a CPU that shares the machine; by default it has all cores.

    Raises:
        GenerationError: it does not start; the message has the last lines of its log.
    """
    command = server_command(launch)
    port = free_port(host=host)
    address = f"http://{host}:{port}"
    cpu = None if has_gpu() else for_cpu()
    place = [*model_arguments(str(config.model)), "--host", host, "--port", str(port)]
    command += [*place, *(cpu.arguments if cpu else ()), *shlex.split(launch.arguments)]
    tell("Starting a server of %s; its log is %s.", config.model, log)
    environment = {**(cpu.environment if cpu else {}), **without_secrets(but=MODEL_SECRETS)}
    if cpu and threads:
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
    with leashed(command, log=log, env={**environment, "VLLM_API_KEY": api_key}) as server:
        started = said = time.monotonic()
        while not answers(f"{address}/health"):
            now = time.monotonic()
            if server.poll() is not None:
                raise GenerationError(f"the server ended before it answered. {last_lines(log)}")
            if now - started > launch.start_seconds:
                raise GenerationError(
                    f"the server did not answer within {launch.start_seconds:g} s "
                    f"(generation.launch.start_seconds). {last_lines(log)}"
                )
            if now - said > MESSAGE_SECONDS:
                said = now
                tell("Waiting for the server for %.0f s.", now - started)
            time.sleep(0.2)
        tell("The server answers after %.0f s.", time.monotonic() - started)
        yield LaunchedServer(address, server.poll)


def last_lines(log: Path) -> str:
    """The end of a server's log, for a message."""
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.exists() else []
    return f"Its last words, of {log}:\n" + ("\n".join(lines) or "(none)")
