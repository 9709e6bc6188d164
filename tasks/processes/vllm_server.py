"""A run's own vLLM server: it starts when the first text is needed, and ends when the generator is closed.

It runs in a separate Python environment, on a leash (see `tasks.processes.leash`): it ends with the run,
however that ends, and so does its whole process group. It listens on the loopback, and asks for a key that
only this run has.
"""

import secrets
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from accelerate.utils.memory import clear_device_cache

from mars_core.generation import (
    Answer,
    Backend,
    GenerationConfig,
    GenerationError,
    LaunchConfig,
    Request,
)
from mars_core.generation.instructions import ROLES
from tasks.processes.addresses import answers, free_port
from tasks.processes.child_environment import without_secrets
from tasks.processes.child_process import leashed
from tasks.run.step import tell
from tasks.run.vllm_command import check, for_cpu, has_gpu, model_arguments, server_command

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


class LaunchedBackend(Backend):
    """The backend of a server that starts with the first request that must be sent."""

    def __init__(self, config: GenerationConfig, launch: LaunchConfig, log: Path) -> None:
        super().__init__(config)
        self.launch = launch
        self.log = log
        self.backend = config.open()
        self._server = ExitStack()
        self._runs = False

    def key(self, request: Request) -> str:
        """See `Backend.key`; the server's address is not part of it."""
        return self.backend.key(request)

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """See `Backend.answers`; starts the server if it does not run yet.

        Raises:
            GenerationError: it does not start, or stops answering; the message has the last lines of its log.
        """
        if not self._runs:
            key = secrets.token_urlsafe()
            self.backend = type(self.backend).of_launched(self.config, self._start(key), key)
            self._runs = True
        try:
            yield from self.backend.answers(requests)
        except GenerationError as error:
            raise GenerationError(f"{error}. {self._last_words()}") from None

    def close(self) -> None:
        """End the server and all its processes, which frees the GPU."""
        self._server.close()
        self._runs = False

    def _start(self, api_key: str) -> str:
        """Start the server and wait until it answers; returns its address."""
        check(self.config, self.launch)
        command = server_command(self.launch)
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        cpu = None if has_gpu() else for_cpu()
        place = [*model_arguments(str(self.config.model)), "--host", "127.0.0.1", "--port", str(port)]
        command += [*place, *(cpu.arguments if cpu else ()), *shlex.split(self.launch.arguments)]
        tell("Starting a server of %s; its log is %s.", self.config.model, self.log)
        if cpu:
            self._tell_slow_sampling()
        given = without_secrets(but=MODEL_SECRETS)
        environment = {**(cpu.environment if cpu else {}), **given, "VLLM_API_KEY": api_key}
        clear_device_cache(garbage_collection=True)  # this process would keep memory that is free
        server = self._server.enter_context(leashed(command, log=self.log, env=environment))
        started = said = time.monotonic()
        while not answers(f"{address}/health"):
            now = time.monotonic()
            if server.poll() is not None:
                raise GenerationError(f"the server ended before it answered. {self._last_words()}")
            if now - started > self.launch.start_seconds:
                raise GenerationError(
                    f"the server did not answer within {self.launch.start_seconds:g} s "
                    f"(generation.launch.start_seconds). {self._last_words()}"
                )
            if now - said > MESSAGE_SECONDS:
                said = now
                tell("Waiting for the server for %.0f s.", now - started)
            time.sleep(0.2)
        tell("The server answers after %.0f s.", time.monotonic() - started)
        return address

    def _tell_slow_sampling(self) -> None:
        roles = [role for role in ROLES if self.config.sampling(role).top_p < 1]
        if roles:
            tell(
                "On a CPU top_p below 1 about halves the tokens per second, for every token sorts the "
                "vocabulary: set %s to 1 where speed matters.",
                ", ".join(f"generation.{role}.top_p" for role in roles),
            )

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return f"Its last words, of {self.log}:\n" + ("\n".join(lines) or "(none)")
