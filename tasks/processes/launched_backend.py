"""The backend of a run's own vLLM servers: one on this machine, or replicas on the nodes of a Ray cluster.

They start when the first text is needed, and end when the generator is closed.
"""

import secrets
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
from tasks.processes.replicas import Replicas
from tasks.processes.vllm_server import last_lines, launched_server
from tasks.run.step import tell
from tasks.run.vllm_command import check, has_gpu


class LaunchedBackend(Backend):
    """The backend of servers that start with the first request that must be sent."""

    def __init__(self, config: GenerationConfig, launch: LaunchConfig, log: Path) -> None:
        super().__init__(config)
        self.launch = launch
        self.log = log
        self.backend = config.open()
        self._servers = ExitStack()
        self._runs = False

    def key(self, request: Request) -> str:
        """See `Backend.key`; the servers' addresses are not part of it."""
        return self.backend.key(request)

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """See `Backend.answers`; starts the servers if they do not run yet.

        Raises:
            GenerationError: none starts, or all stop answering; the message has the last lines of a log.
            ComputeError: there are to be replicas, and the Ray cluster cannot be used.
        """
        if not self._runs:
            self._start(secrets.token_urlsafe())
            self._runs = True
        try:
            yield from self.backend.answers(requests)
        except GenerationError as error:
            raise GenerationError(f"{error}. {last_lines(self._latest_log())}") from None

    def close(self) -> None:
        """End the servers and all their processes, which frees the GPU."""
        self._servers.close()
        self._runs = False

    def _start(self, api_key: str) -> None:
        """Start the servers, and wait until one answers."""
        check(self.config, self.launch)
        if not has_gpu():
            self._tell_slow_sampling()
        clear_device_cache(garbage_collection=True)  # this process would keep memory that is free
        make = type(self.backend).of_launched
        if self.launch.replicas:
            replicas = self._servers.enter_context(
                Replicas(self.launch.replicas, self.config, self.launch, self.log, api_key)
            )
            self.backend = make(self.config, replicas.first(), api_key, self.launch.start_seconds)
            replicas.follow(self.backend.reach)
        else:
            server = self._servers.enter_context(launched_server(self.config, self.launch, self.log, api_key))
            self.backend = make(self.config, [server.address], api_key)

    def _tell_slow_sampling(self) -> None:
        roles = [role for role in ROLES if self.config.sampling(role).top_p < 1]
        if roles:
            tell(
                "On a CPU top_p below 1 about halves the tokens per second, for every token sorts the "
                "vocabulary: set %s to 1 where speed matters.",
                ", ".join(f"generation.{role}.top_p" for role in roles),
            )

    def _latest_log(self) -> Path:
        """The log that was written to last: each replica has one."""
        logs = self.log.parent.glob(f"{self.log.stem}*{self.log.suffix}")
        return max(logs, key=lambda log: log.stat().st_mtime, default=self.log)
