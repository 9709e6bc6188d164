"""Scoring by the nodes of a Ray cluster.

    compute: {backend: ray, address: auto}

A specification is divided into parts, each some rows of it. An actor computes a part with the same function
as `local` and writes its results into a folder beside `spec.output`, whole and with a digest. At the end the
parts are put together. A part that is there is not computed again, whoever started it: so a run that is
started again goes on where it was, and the loss of an actor, a node or the driver costs the parts in flight.
Rows and results go through files: the folder of the run is on a file system that all nodes see.

The actors are the driver's own and live as long as its process, not in Ray Data's pool: this one ends with
each data set, and a round of a run scores six times, while an actor takes ten seconds to import torch.

What goes wrong with a part:

- an error of the project, such as a reward that is NaN, ends the run, as it does with `local`;
- a file that cannot be read or written: the part is tried once more, then the run ends;
- the actor or its node dies, as when memory runs out, or it raises another error, or takes longer than
  `part_minutes`: the actor is replaced and the part tried once more, then halved, as are its batches, until a
  single row is left that two actors have failed with: it is named, and the run ends.
"""

import functools
import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mars_core.config import Configuration, Operational
from mars_core.errors import MarsError
from mars_core.files import digest, remove, sha256_of, write_whole
from mars_core.method.semantics import Embedder, EmbedSpec, embed
from mars_core.model.reward_model import RewardModel
from mars_core.model.scoring import ScoreSpec, model_of, rows_of, score
from tasks.cluster.nodes import (
    START_SECONDS,
    ComputeError,
    about,
    check_nodes,
    connected,
    differences,
    first_line,
    resources,
    room,
)
from tasks.cluster.parts import Embedding, Rows, Scoring, Work, with_vectors, with_whole_paths
from tasks.compute.compute import Compute, OnScored

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
TRIES = 2
"""Actors that may end with a part, or that may fail to read or write its files, before the part is halved, or
the run ends."""
FAILED_STARTS = 3
"""Actors in a row that may end before they are ready."""


class Ray(Compute):
    """Actors on the nodes of a Ray cluster; this process runs on one of them."""

    class Config(Configuration):
        """Where the cluster is, and how work is divided; nothing here changes a result."""

        address: Annotated[str, Operational()] = "auto"
        """host:port of the cluster's head; `auto` is RAY_ADDRESS, or else the cluster of this machine."""
        actors: Annotated[int | None, Operational()] = Field(None, ge=1)
        """Processes that score; by default as many as the cluster has room for when a run starts."""
        gpus: Annotated[float | None, Operational()] = Field(None, ge=0)
        """GPUs of an actor; by default 1 where the cluster has some, else 0."""
        cpus: Annotated[int | None, Operational()] = Field(None, ge=1)
        """CPUs of an actor, and its threads; by default 1 beside a GPU, else all of the smallest node."""
        rows_of_part: Annotated[int, Operational()] = Field(4096, ge=1)
        """Rows that are computed, written and, after a loss, computed again together."""
        part_minutes: Annotated[float, Operational()] = Field(30.0, gt=0)
        """Longest time of a part."""

    def check(self, folder: Path) -> None:
        """Check that the nodes have this version of the project, and see the folder of the run.

        Raises:
            ComputeError: ray is not installed, the cluster does not answer, or a node differs; says which.
        """
        self._pool().check(folder.resolve())

    def run(self, spec: ScoreSpec, on_scored: OnScored) -> None:
        """See `Compute.run`.

        Raises:
            ComputeError: as of `check`; no actor can be started; or a row cannot be scored.
        """
        spec = with_whole_paths(spec)
        counts = rows_of(spec)
        if not sum(counts.values()):
            score(spec, on_scored)
            return
        places = spec.output.with_name(f"{spec.output.name}.parts")
        model = with_vectors(spec)
        work = Scoring(spec, counts, places, model.store if model else None)
        for other in places.iterdir() if places.is_dir() else ():
            if other != work.folder:  # of an earlier specification
                remove(other)
        self._complete(work, on_scored)
        if model:
            work.take_in()
            score(spec, None, model)
        else:
            # The parts stay until the next specification: a run that is killed before it has recorded these
            # results finds them.
            write_whole(spec.output, work.put_together)

    def embed(self, spec: EmbedSpec, on_embedded: OnScored) -> None:
        """See `Compute.embed`.

        Raises:
            ComputeError: as of `run`.
        """
        work = Embedding(spec)
        self._complete(work, on_embedded)
        work.take_in()

    def release(self) -> None:
        """End the actors; the next specification starts them again."""
        self._pool().release()

    def _complete(self, work: Work, on_done: OnScored) -> None:
        """Compute the parts that are not there."""
        work.folder.mkdir(parents=True, exist_ok=True)
        found, missing = work.divided(self.config.rows_of_part)
        for rows in found:
            on_done(work.units(rows))
        if missing:
            pool = self._pool()
            pool.check(work.folder.parents[1])
            pool.compute(work, missing, 60 * self.config.part_minutes, lambda rows: on_done(work.units(rows)))

    def _pool(self) -> "_Pool":
        config = self.config
        with _OPENING:
            return _pool_of(config.address, config.actors, config.gpus, config.cpus)


@dataclass(frozen=True)
class _Part:
    """Rows that wait for an actor."""

    rows: Rows
    tries: int = 0
    """Actors that have failed with it."""
    batch_share: float = 1.0
    """Batches have this share of the configured tokens or texts."""

    def again(self, row_names: Callable[[Rows], str], why: str) -> "list[_Part]":
        """What to try after an actor has failed with the part: the same, or its halves in smaller batches.

        Raises:
            ComputeError: a single row is left; names it by `row_names`, and says why.
        """
        if self.tries + 1 < TRIES:
            return [_Part(self.rows, self.tries + 1, self.batch_share)]
        if self.rows.end - self.rows.first == 1:
            raise ComputeError(f"{row_names(self.rows)} cannot be computed: {why}")
        return [
            _Part(half, 0 if half.end - half.first == 1 else TRIES - 1, self.batch_share / 2)
            for half in self.rows.halves()
        ]


class _Worker:
    """An actor: it computes parts, and keeps the model from one part of a specification to the next."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._loaded: tuple[str, RewardModel | Embedder] | None = None

    def ready(self, expected: dict[str, str]) -> None:
        """Import what scoring needs.

        Raises:
            ComputeError: this node has another version than the driver.
        """
        import torch

        torch.set_num_threads(self._threads)
        if wrong := differences(about(), expected):
            raise ComputeError(wrong)

    def compute(self, kind: str, text: str, content: str, rows: tuple[int, int], place: str) -> None:
        """Compute a part into the folder `place`, and then write its record.

        Args:
            kind: whether `text` is a `ScoreSpec` or an `EmbedSpec`.
            text: the specification of the part, as JSON.
            content: the digest of the checkpoint.
            rows: the rows of the part.
            place: a folder that is not there yet.
        """
        folder = Path(place)
        folder.mkdir()
        if kind == ScoreSpec.__name__:
            spec = ScoreSpec.model_validate_json(text)
            how = spec.model_dump_json(include={"model", "reward_model", "objective"})
            loads_features = str(bool(spec.vectors))
            model = self._load(digest(content, how, loads_features), lambda: model_of(spec))
            score(spec, None, model)  # type: ignore[arg-type]
        else:
            wanted = EmbedSpec.model_validate_json(text)
            key = digest(content, wanted.semantics.model_dump_json())
            embed(wanted, self._load(key, lambda: Embedder(wanted.semantics)))  # type: ignore[arg-type]
        about = {"first": rows[0], "end": rows[1], "folder": folder.name, "sha256": sha256_of(folder)}
        write_whole(folder.with_suffix(".json"), lambda path: path.write_text(json.dumps(about)))

    def forget(self) -> None:
        """Give the model's memory back: between two specifications a fit may need it."""
        import torch

        self._loaded = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _load(self, key: str, load: Callable[[], RewardModel | Embedder]) -> RewardModel | Embedder:
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # before the next one needs the memory
            self._loaded = key, load()
        return self._loaded[1]


@dataclass
class _Actor:
    """An actor as the driver sees it."""

    handle: Any
    task: Any
    """What it does now: the reference to its result, at first to that of `ready`."""
    is_ready: bool = False
    part: _Part | None = None
    since: float = field(default_factory=time.monotonic)

    def do(self, task: Any, part: _Part | None) -> None:
        """Note what it does from now on."""
        self.task, self.part, self.since = task, part, time.monotonic()


class _Pool:
    """The actors of this process; a specification has all of them, one specification after another."""

    def __init__(self, address: str, actors: int | None, gpus: float | None, cpus: int | None) -> None:
        self._ray = connected(address)
        self.cpus, self.gpus = resources(self._ray, cpus, gpus)
        self.size = actors or room(self._ray, self.cpus, self.gpus)
        self._actors: list[_Actor] = []
        self._checked: set[Path] = set()
        self._failed_starts = 0
        self._lock = threading.Lock()

    def check(self, folder: Path) -> None:
        """Check each node's version, and that it sees a folder as this process does, once a folder.

        Raises:
            ComputeError: a node differs; names it.
        """
        if folder not in self._checked:
            check_nodes(self._ray, folder)
            self._checked.add(folder)

    def compute(self, work: Work, parts: list[Rows], seconds: float, on_done: Callable[[Rows], None]) -> None:
        """Compute parts; `on_done` is called with each one that is done.

        Raises:
            ComputeError: a row cannot be computed, or no actor can be started.
            ModelError: as of `score`.
        """
        with self._lock:
            waiting = deque(_Part(rows) for rows in parts)
            content = str(work.content()[0])
            try:
                while waiting or any(actor.part for actor in self._actors):
                    self._fill_up()
                    for actor in self._actors:
                        if waiting and actor.is_ready and not actor.part:
                            self._begin(actor, work, content, waiting.popleft())
                    for actor in self._ended(seconds):
                        waiting.extendleft(self._settle(actor, work, seconds, on_done))
            except BaseException:
                self._end([actor for actor in self._actors if actor.part])
                raise
            for actor in self._actors:
                if actor.is_ready:
                    actor.handle.forget.remote()

    def release(self) -> None:
        """End all actors."""
        with self._lock:
            self._end(list(self._actors))

    def _fill_up(self) -> None:
        """Start actors in the place of those that have ended."""
        starting = self._ray.remote(_Worker).options(
            num_cpus=self.cpus, num_gpus=self.gpus, scheduling_strategy="SPREAD", max_restarts=0
        )
        while len(self._actors) < self.size:
            handle = starting.remote(self.cpus)
            self._actors.append(_Actor(handle, handle.ready.remote(about())))
        first = min(actor.since for actor in self._actors)
        if time.monotonic() - first > START_SECONDS and not any(actor.is_ready for actor in self._actors):
            free = self._ray.available_resources()
            raise ComputeError(
                f"no actor started within {START_SECONDS:.0f} s: one takes {self.cpus} CPUs and "
                f"{self.gpus:g} GPUs, and of the cluster's {free.get('CPU', 0):g} and "
                f"{free.get('GPU', 0):g} are free"
            )

    def _begin(self, actor: _Actor, work: Work, content: str, part: _Part) -> None:
        place = work.folder / f"{part.rows.first}-{part.rows.end}-{uuid.uuid4().hex[:8]}"
        spec = work.of_rows(part.rows, place, part.batch_share)
        arguments = type(spec).__name__, spec.model_dump_json(), content, tuple(part.rows), str(place)
        actor.do(actor.handle.compute.remote(*arguments), part)

    def _ended(self, seconds: float) -> list[_Actor]:
        """Actors that are ready, have done their part, have failed, or have taken longer than `seconds`."""
        tasks = [actor.task for actor in self._actors if actor.part or not actor.is_ready]
        done, _ = self._ray.wait(tasks, num_returns=1, timeout=LOOK_SECONDS)
        late = time.monotonic() - seconds
        return [actor for actor in self._actors if actor.task in done or (actor.part and actor.since < late)]

    def _settle(
        self, actor: _Actor, work: Work, seconds: float, on_done: Callable[[Rows], None]
    ) -> list[_Part]:
        """Take what an actor has done; returns the parts to try again."""
        part, errors = actor.part, self._ray.exceptions
        try:
            self._ray.get(actor.task, timeout=0)
        except errors.RayError as error:
            cause = getattr(error, "cause", None)  # of an error that the actor raised
            if isinstance(cause, MarsError):
                raise cause from None
            self._end([actor])
            why = f"its process ended: {first_line(error)}"
            if isinstance(error, errors.GetTimeoutError):
                why = f"it takes longer than {seconds / 60:g} minutes"
            elif cause is not None:
                why = f"{type(cause).__name__}: {cause}"
            if part is None:
                return self._failed_start(why)
            if isinstance(cause, OSError) and part.tries + 1 == TRIES:
                raise ComputeError(f"an actor failed with {why}") from None
            logger.warning("An actor is replaced, and its part computed again: %s.", why)
            return part.again(work.row_names, why)
        self._failed_starts, actor.is_ready = 0, True
        actor.do(None, None)
        if part:
            on_done(part.rows)
        return []

    def _failed_start(self, why: str) -> list[_Part]:
        self._failed_starts += 1
        if self._failed_starts >= FAILED_STARTS:
            raise ComputeError(f"{FAILED_STARTS} actors failed before they were ready: {why}")
        return []

    def _end(self, actors: list[_Actor]) -> None:
        for actor in actors:
            self._ray.kill(actor.handle)
            if actor in self._actors:
                self._actors.remove(actor)


_OPENING = threading.Lock()
"""Cells of a comparison run in threads of one process, which has one pool."""


@functools.cache
def _pool_of(address: str, actors: int | None, gpus: float | None, cpus: int | None) -> _Pool:
    """The pool of this process; it ends with it."""
    return _Pool(address, actors, gpus, cpus)
