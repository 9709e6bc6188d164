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
import importlib.metadata
import json
import logging
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from filelock import FileLock, Timeout
from pydantic import Field

import mars_core
from mars_core.config import Configuration, Operational, redact, scientific
from mars_core.errors import MarsError
from mars_core.files import digest, remove, sha256_of, write_whole
from mars_core.method.semantics import Embedder, EmbedSpec, embed
from mars_core.model.checkpoints import content_of_checkpoint
from mars_core.model.feature_store import FeatureStore
from mars_core.model.joined_scores import join
from mars_core.model.reward_model import RewardModel
from mars_core.model.scoring import ScoreSpec, model_of, pairs_of, rows_of, score, texts_of
from mars_core.tables import Table
from tasks.compute.compute import Compute, OnScored

logger = logging.getLogger(__name__)

INSTALL = 'compute.backend=ray needs the package ray: pip install "mars[ray]", on every node of the cluster'
CONNECT_SECONDS = 25.0
START_SECONDS = 600.0
"""How long to wait for the first actor: nodes may have to be started for it."""
LOOK_SECONDS = 1.0
TRIES = 2
"""Actors that may end with a part, or that may fail to read or write its files, before the part is halved, or
the run ends."""
FAILED_STARTS = 3
"""Actors in a row that may end before they are ready."""


class ComputeError(MarsError, RuntimeError):
    """The cluster cannot be used, or a row cannot be scored; the message says which and why."""


class Rows(NamedTuple):
    """Rows of a specification from `first` up to `end`, counted over all of its names, one after another."""

    first: int
    end: int

    def halves(self) -> "tuple[Rows, Rows]":
        """Two parts of at least one row each."""
        middle = (self.first + self.end) // 2
        return Rows(self.first, middle), Rows(middle, self.end)


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
        spec = _with_whole_paths(spec)
        counts = rows_of(spec)
        if not sum(counts.values()):
            score(spec, on_scored)
            return
        places = spec.output.with_name(f"{spec.output.name}.parts")
        model = _with_vectors(spec)
        work = _Scoring(spec, counts, places, model.store if model else None)
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
        work = _Embedding(spec)
        self._complete(work, on_embedded)
        work.take_in()

    def _complete(self, work: "_Work", on_done: OnScored) -> None:
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


# What is computed


class _Work(ABC):
    """A specification in parts; of each a folder of results and, beside it, a record with its digest."""

    def __init__(self, spec: ScoreSpec | EmbedSpec, counts: Mapping[str, int], places: Path) -> None:
        """Divide `spec`, which has `counts` rows by name; the parts have a folder in `places`."""
        self.spec, self.counts = spec, counts
        self.total = sum(counts.values())
        self.folder = places / digest(_sources(), type(spec).__name__, *self.content())[:32]

    @abstractmethod
    def content(self) -> list[Any]:
        """What a result depends on besides the specification's scientific keys."""

    @abstractmethod
    def of_rows(self, rows: Rows, place: Path, batch_share: float) -> ScoreSpec | EmbedSpec:
        """The specification of a part, whose results go into `place`, with smaller batches."""

    @abstractmethod
    def units(self, rows: Rows) -> int:
        """How much a part counts in a progress bar."""

    def is_done(self, rows: Rows) -> bool:
        """Whether all that a part computes is known without it."""
        return False

    @abstractmethod
    def row_names(self, rows: Rows) -> str:
        """What the rows of a part are called."""

    def take_in(self) -> None:
        """Add the vectors of all parts to the store that they are for, and remove the parts."""
        for _, place in self.there():
            self.keep(place / "vectors.sqlite")
        remove(self.folder)

    @abstractmethod
    def keep(self, vectors: Path) -> None:
        """Add the vectors of a part to the store."""

    def by_name(self, rows: Rows) -> dict[str, tuple[int, int]]:
        """The rows of each name that are in a part; empty names belong to the first part."""
        found, start = {}, 0
        for name, count in self.counts.items():
            first, end = max(rows.first - start, 0), min(rows.end - start, count)
            if first < end or (not count and not rows.first):
                found[name] = (first, end) if count else (0, 0)
            start += count
        return found

    def there(self) -> list[tuple[Rows, Path]]:
        """The parts that are there and whole, in order; none of them has a row of another."""
        found = []
        for record in self.folder.glob("*.json"):
            about = json.loads(record.read_text())
            place = self.folder / about["folder"]
            if place.is_dir() and sha256_of(place) == about["sha256"]:
                found.append((Rows(about["first"], about["end"]), place))
        end, kept = 0, []
        for rows, place in sorted(found, key=lambda part: (part[0].first, -part[0].end)):
            if rows.first >= end:
                kept.append((rows, place))
                end = rows.end
        return kept

    def divided(self, size: int) -> tuple[list[Rows], list[Rows]]:
        """The parts that are there, or whose results are known, and those that are missing."""
        found = [rows for rows, _ in self.there()]
        missing, start = list[Rows](), 0
        for rows in [*found, Rows(self.total, self.total)]:
            missing += [Rows(at, min(at + size, rows.first)) for at in range(start, rows.first, size)]
            start = rows.end
        known = list(filter(self.is_done, missing))
        return found + known, [rows for rows in missing if rows not in known]


class _Scoring(_Work):
    """The parts of a `ScoreSpec`; with a store of features their purpose is to fill it."""

    spec: ScoreSpec

    def __init__(
        self, spec: ScoreSpec, counts: Mapping[str, int], places: Path, store: FeatureStore | None = None
    ) -> None:
        self.store = store
        super().__init__(spec, counts, places)

    def content(self) -> list[Any]:
        spec = self.spec
        tables = {name: Table(file).digest() for name, file in spec.pairs.items()}
        tables |= {name: Table(texts.file).digest() for name, texts in spec.texts.items()}
        paired = [name for name, texts in spec.texts.items() if texts.paired]
        objective = scientific(spec.objective, content_of_checkpoint) if spec.objective else None
        how = [scientific(spec.reward_model), objective, spec.moments, spec.features, bool(self.store)]
        return [content_of_checkpoint(spec.model), how, list(tables.items()), paired]

    def of_rows(self, rows: Rows, place: Path, batch_share: float) -> ScoreSpec:
        tokens = max(1, int(self.spec.reward_model.batch_tokens * batch_share))
        changed = {
            "rows": self.by_name(rows),
            "output": place / "scores",
            "vectors": place / "vectors.sqlite" if self.store else None,
            "readouts": None,
            "reward_model": self.spec.reward_model.model_copy(update={"batch_tokens": tokens}),
        }
        return self.spec.model_copy(update=changed)

    def units(self, rows: Rows) -> int:
        texts = self.spec.texts
        return sum(
            (end - first) * (1 if name in texts and not texts[name].paired else 2)
            for name, (first, end) in self.by_name(rows).items()
        )

    def is_done(self, rows: Rows) -> bool:
        store = self.store
        return store is not None and all(
            store.has(*self._texts(name, some))
            for name, some in self.by_name(rows).items()
            if self.counts[name]
        )

    def row_names(self, rows: Rows) -> str:
        [(name, (first, end))] = (
            (name, own) for name, own in self.by_name(rows).items() if self.counts[name]
        )
        if name in self.spec.pairs:
            [batch] = pairs_of(self.spec.pairs[name], (first, end))
            return f"pair {batch['pair_id'][0].as_py()} of {name}"
        return f"row {first} of {name}"

    def _texts(self, name: str, rows: tuple[int, int]) -> tuple[list[str], list[str]]:
        if name in self.spec.texts:
            return texts_of(self.spec.texts[name], rows)
        prompts, responses = list[str](), list[str]()
        for batch in pairs_of(self.spec.pairs[name], rows):
            prompts += batch["prompt"].to_pylist() * 2
            responses += batch["chosen"].to_pylist() + batch["rejected"].to_pylist()
        return prompts, responses

    def keep(self, vectors: Path) -> None:
        assert self.store
        self.store.take_in(vectors)

    def put_together(self, folder: Path) -> None:
        """Write the results of all parts as those of one specification."""
        join(self.spec, [(self.by_name(rows), place / "scores") for rows, place in self.there()], folder)


class _Embedding(_Work):
    """The parts of an `EmbedSpec`."""

    spec: EmbedSpec

    def __init__(self, spec: EmbedSpec) -> None:
        places = spec.vectors.with_name(f"{spec.vectors.stem}.parts")
        super().__init__(spec, {"pairs": len(Table(spec.pairs))}, places)
        self.embedder = Embedder(spec.semantics, spec.vectors)

    def content(self) -> list[Any]:
        return [content_of_checkpoint(self.spec.semantics.embedder), Table(self.spec.pairs).digest()]

    def of_rows(self, rows: Rows, place: Path, batch_share: float) -> EmbedSpec:
        texts = max(1, int(self.spec.semantics.batch_texts * batch_share))
        changed = {
            "rows": tuple(rows),
            "vectors": place / "vectors.sqlite",
            "semantics": self.spec.semantics.model_copy(update={"batch_texts": texts}),
        }
        return self.spec.model_copy(update=changed)

    def units(self, rows: Rows) -> int:
        return rows.end - rows.first

    def is_done(self, rows: Rows) -> bool:
        batches = Table(self.spec.pairs).between(*rows, "chosen", "rejected")
        return all(
            self.embedder.has([text for side in ("chosen", "rejected") for text in batch[side].to_pylist()])
            for batch in batches
        )

    def row_names(self, rows: Rows) -> str:
        [batch] = Table(self.spec.pairs).between(*rows, "pair_id")
        return f"pair {batch['pair_id'][0].as_py()}"

    def keep(self, vectors: Path) -> None:
        self.embedder.take_in(vectors)


def _with_whole_paths(spec: ScoreSpec) -> ScoreSpec:
    """A specification whose files an actor finds, which has another working folder."""
    changed: dict[str, Any] = {"output": spec.output.absolute()}
    if Path(spec.model).expanduser().is_dir():
        changed["model"] = str(Path(spec.model).expanduser().absolute())
    changed["pairs"] = {name: file.absolute() for name, file in spec.pairs.items()}
    changed["texts"] = {
        name: texts.model_copy(update={"file": texts.file.absolute()}) for name, texts in spec.texts.items()
    }
    return spec.model_copy(update=changed)


def _with_vectors(spec: ScoreSpec) -> RewardModel | None:
    """The model of a specification that keeps features in a store, which this process alone writes."""
    if not spec.vectors:
        return None
    model = model_of(spec)
    model.keep_features(spec.vectors)
    return model if model.store else None


# Where it is computed


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
        if wrong := _differences(_about(), expected):
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
        self._ray = _connected(address)
        nodes = self._nodes()
        has_gpus = any(node["Resources"].get("GPU") for node in nodes)
        self.gpus = gpus if gpus is not None else float(has_gpus)
        self.cpus = cpus or (1 if self.gpus else int(min(node["Resources"]["CPU"] for node in nodes)))
        self.size = actors or max(1, sum(map(self._room, nodes)))
        self._actors: list[_Actor] = []
        self._checked: set[Path] = set()
        self._failed_starts = 0
        self._lock = threading.Lock()

    def _nodes(self) -> list[dict[str, Any]]:
        """The nodes that compute."""
        nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        if not nodes:
            raise ComputeError("the Ray cluster has no node with CPUs: start one with `ray start --address`")
        return nodes

    def _room(self, node: dict[str, Any]) -> int:
        room = node["Resources"]["CPU"] // self.cpus
        return int(min(room, node["Resources"].get("GPU", 0) // self.gpus) if self.gpus else room)

    def check(self, folder: Path) -> None:
        """Check each node's version, and that it sees a folder as this process does.

        Raises:
            ComputeError: a node differs; names it.
        """
        if folder in self._checked:
            return
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nonce = uuid.uuid4().hex
        look = self._ray.remote(_look)
        folder.mkdir(parents=True, exist_ok=True)
        with _nonce_in(folder, nonce):
            looks = {}
            for node in self._nodes():
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
                looks[node["NodeID"]] = (
                    node,
                    look.options(**options).remote(str(folder), nonce, node["NodeID"]),
                )
            for name, (node, task) in looks.items():
                said = self._said(task) or _of_node(folder, nonce, name)
                if said:
                    raise ComputeError(f"node {node['NodeName']} ({node['NodeManagerAddress']}): {said}")
        self._checked.add(folder)

    def _said(self, task: Any) -> str:
        """What is wrong with a node."""
        try:
            about, wrong = self._ray.get(task, timeout=START_SECONDS)
            return _differences(about, _about()) or str(wrong)
        except self._ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines()
            found = [line for line in lines if "ModuleNotFoundError" in line or "ImportError" in line]
            return (
                f"this project cannot be used there: {(found or lines or [type(error).__name__])[-1].strip()}"
            )

    def compute(
        self, work: _Work, parts: list[Rows], seconds: float, on_done: Callable[[Rows], None]
    ) -> None:
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

    def _fill_up(self) -> None:
        """Start actors in the place of those that have ended."""
        starting = self._ray.remote(_Worker).options(
            num_cpus=self.cpus, num_gpus=self.gpus, scheduling_strategy="SPREAD", max_restarts=0
        )
        while len(self._actors) < self.size:
            handle = starting.remote(self.cpus)
            self._actors.append(_Actor(handle, handle.ready.remote(_about())))
        first = min(actor.since for actor in self._actors)
        if time.monotonic() - first > START_SECONDS and not any(actor.is_ready for actor in self._actors):
            free = self._ray.available_resources()
            raise ComputeError(
                f"no actor started within {START_SECONDS:.0f} s: one takes {self.cpus} CPUs and "
                f"{self.gpus:g} GPUs, and of the cluster's {free.get('CPU', 0):g} and "
                f"{free.get('GPU', 0):g} are free"
            )

    def _begin(self, actor: _Actor, work: _Work, content: str, part: _Part) -> None:
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
        self, actor: _Actor, work: _Work, seconds: float, on_done: Callable[[Rows], None]
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
            why = f"its process ended: {_first_line(error)}"
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


def _connected(address: str) -> Any:
    """The package ray, once this process is connected to the cluster.

    Raises:
        ComputeError: ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise ComputeError(INSTALL) from None
    failed = list[BaseException]()

    def connect() -> None:
        try:
            ray.init(address, namespace="mars", log_to_driver=False, configure_logging=False)
        except BaseException as error:  # noqa: BLE001 - it is raised in the other thread
            failed.append(error)

    # Not in this thread: ray.init would replace its handler of SIGTERM, and may wait for minutes.
    logging.getLogger("ray").setLevel(logging.ERROR)  # it warns that it does not
    connecting = threading.Thread(target=connect, daemon=True)
    if not ray.is_initialized():
        connecting.start()
        connecting.join(CONNECT_SECONDS)
    if failed or connecting.is_alive():
        why = _first_line(failed[0]) if failed else f"no answer within {CONNECT_SECONDS:.0f} s"
        raise ComputeError(
            f"compute.address={redact(address)}: no Ray cluster can be used: {why}. Start its head, or name "
            "another address; docs/scaling.md has more"
        )
    return ray


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


@functools.cache
def _sources() -> str:
    """The digest of the code that computes a part."""
    root = Path(mars_core.__file__).parent
    files = sorted([*root.rglob("*.py"), Path(__file__)])
    return digest(
        {
            file.name if file == Path(__file__) else str(file.relative_to(root)): sha256_of(file)
            for file in files
        }
    )


def _about() -> dict[str, str]:
    """The versions of what computes; builds of one version, as for CUDA, are the same."""
    names = ("mars", "torch", "transformers", "sentence-transformers", "tokenizers")
    found = {}
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name).partition("+")[0]
    return found | {"sources of mars": _sources()[:12]}


def _differences(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What a node has in another version than the driver; empty if nothing."""
    wrong = [
        f"{name} {there.get(name, 'is missing')} (here {here.get(name, 'none')})"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
    return f"has other versions: {', '.join(wrong)}; install the same on every node" if wrong else ""


# Whether all nodes see the folder of the run


@contextmanager
def _nonce_in(folder: Path, nonce: str) -> Iterator[None]:
    """Put what `_look` looks for into a folder, and hold a lock there."""
    file = folder / f".ray-{nonce}"
    file.write_text(nonce)
    try:
        with FileLock(folder / f".ray-{nonce}.lock"):
            yield
    finally:
        for left in folder.glob(f".ray-{nonce}*"):
            left.unlink(missing_ok=True)


def _look(folder: str, nonce: str, node: str) -> tuple[dict[str, str], str]:
    """On a node: its versions, and what is wrong with the folder, which it also writes to."""
    advice = "the folder of the run must be on a file system that all nodes see under the same path"
    place = Path(folder)
    file, own = place / f".ray-{nonce}", place / f".ray-{nonce}.{node}"
    try:
        if file.read_text() != nonce:
            return _about(), f"sees another {folder}; {advice}"
        with suppress(Timeout):
            FileLock(f"{file}.lock").acquire(timeout=0)
            return _about(), f"{folder}: its file system has no locks between nodes; {advice}, with locks"
        own.with_suffix(".partial").write_text(nonce)
        own.with_suffix(".partial").replace(own)
    except OSError as error:
        return _about(), f"cannot use {folder} ({type(error).__name__}: {error}); {advice}"
    return _about(), ""


def _of_node(folder: Path, nonce: str, node: str) -> str:
    """What is wrong with what a node has written, as this process sees it."""
    for _ in range(20):
        with suppress(OSError):
            if (folder / f".ray-{nonce}.{node}").read_text() == nonce:
                return ""
        time.sleep(0.5)  # a network's file system shows a new file a little later
    return f"wrote into {folder}, and this process does not see it: it is another folder there"
