"""vLLM servers as actors of a Ray cluster: each has its share of a node, and is replaced when it ends.

An actor holds a server on a leash, so a server ends with its actor, and that one with the run's process,
whichever way that ends. A thread of this process asks the actors whether their servers run, and says which
addresses there are whenever that changes.
"""

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mars_core.generation import GenerationConfig, GenerationError, LaunchConfig
from tasks.cluster.nodes import START_SECONDS, check_nodes, connected, first_line, resources
from tasks.processes.vllm_server import LaunchedServer, last_lines, launched_server
from tasks.run.step import tell

LOOK_SECONDS = 1.0
END_SECONDS = 30.0
FAILED_STARTS = 3
"""Starts in a row that may fail, before those that still run are all that there will be."""

Reach = Callable[[Sequence[str]], None]


class _Holder:
    """An actor: it holds one server on its node."""

    def __init__(self, folder: str) -> None:
        with suppress(OSError):  # a command that is given from the root does not need it
            os.chdir(folder)
        self._running = ExitStack()
        self._server: LaunchedServer | None = None
        self._log = Path()

    def start(
        self, config: GenerationConfig, launch: LaunchConfig, log: Path, api_key: str, threads: int
    ) -> str:
        """Start the server; returns its address once it answers.

        Raises:
            GenerationError: it does not start.
        """
        import ray

        self._log, host = log, ray.util.get_node_ip_address()
        self._server = self._running.enter_context(
            launched_server(config, launch, log, api_key, host, threads)
        )
        return self._server.address

    def end(self) -> str | None:
        """How the server ended; None while it runs."""
        assert self._server
        return None if self._server.poll() is None else f"it ended. {last_lines(self._log)}"

    def stop(self) -> None:
        """End the server; returns when all its processes have ended."""
        self._running.close()


@dataclass
class _Replica:
    """A server as this process sees it."""

    number: int
    holder: Any
    asked: Any
    """The reference to its address, and once that is known to whether it has ended."""
    address: str | None = None


class Replicas:
    """The servers of a run during a `with` block."""

    def __init__(
        self, count: int, config: GenerationConfig, launch: LaunchConfig, log: Path, api_key: str
    ) -> None:
        """Place servers.

        Args:
            count: how many.
            config: which model they serve.
            launch: their command, and what each takes of a node.
            log: gets a number before its suffix for each.
            api_key: what they ask for.

        Raises:
            ComputeError: the cluster does not answer, or a node has another version or does not see the
                folder of the log.
        """
        self.config, self.launch, self.log, self.api_key = config, launch, log.resolve(), api_key
        self._ray = connected("auto")
        check_nodes(self._ray, self.log.parent)
        self.cpus, self.gpus = resources(self._ray, launch.cpus, launch.gpus)
        self._failed_starts, self._why = 0, ""
        self._reach: Reach = lambda addresses: None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._replicas = [self._placed(number) for number in range(count)]
        self._watching = threading.Thread(target=copy_context().run, args=[self._watch], daemon=True)

    def __enter__(self) -> "Replicas":
        self._watching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._watching.join()
        stopped = [one.holder.stop.remote() for one in self._replicas if one.address]
        if stopped:  # a fit may need the GPUs
            self._ray.wait(stopped, num_returns=len(stopped), timeout=END_SECONDS)
        for replica in self._replicas:
            self._ray.kill(replica.holder)

    @property
    def addresses(self) -> list[str]:
        """Where servers are now."""
        return [one.address for one in self._replicas if one.address]

    def first(self) -> list[str]:
        """Wait until a server answers; returns the addresses.

        Raises:
            GenerationError: none does; says why.
        """
        patience = START_SECONDS + self.launch.start_seconds
        with self._changed:
            came = self._changed.wait_for(lambda: self.addresses or not self._replicas, patience)
            if self.addresses:
                return self.addresses
        why = self._why if came else f"none answered within {patience:.0f} s, maybe for want of room"
        raise GenerationError(
            f"no server could be started on the Ray cluster, where each takes {self.cpus} CPUs and "
            f"{self.gpus:g} GPUs: {why}"
        )

    def follow(self, reach: Reach) -> None:
        """Call `reach` with all addresses, now and, from another thread, whenever they change."""
        with self._changed:
            self._reach = reach
            reach(self.addresses)

    def _placed(self, number: int) -> _Replica:
        make = self._ray.remote(_Holder).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )
        holder = make.remote(str(Path.cwd()))
        log = self.log.with_name(f"{self.log.stem}-{number}{self.log.suffix}")
        started = holder.start.remote(self.config, self.launch, log, self.api_key, self.cpus)
        return _Replica(number, holder, started)

    def _watch(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            before = self.addresses
            for replica in list(self._replicas):
                self._look(replica)
            with self._changed:
                if self.addresses != before or not self._replicas:
                    self._reach(self.addresses)
                    self._changed.notify_all()

    def _look(self, replica: _Replica) -> None:
        done, _ = self._ray.wait([replica.asked], timeout=0)
        if not done:
            return
        try:
            said = self._ray.get(replica.asked)
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)  # of an error that the actor raised
            self._replace(replica, str(cause) if cause else f"its process ended: {first_line(error)}")
            return
        if replica.address is None:
            replica.address, self._failed_starts = said, 0
            tell("Server %d answers at %s.", replica.number, replica.address)
        elif said:
            self._replace(replica, said)
            return
        replica.asked = replica.holder.end.remote()

    def _replace(self, replica: _Replica, why: str) -> None:
        self._ray.kill(replica.holder)
        self._replicas.remove(replica)
        self._failed_starts += replica.address is None
        self._why = why
        if self._failed_starts < FAILED_STARTS:
            tell("Server %d is replaced: %s", replica.number, why)
            self._replicas.append(self._placed(replica.number))
        else:
            tell("Server %d is not replaced, for its last start failed, too: %s", replica.number, why)
