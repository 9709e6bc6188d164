"""The folder of a run: its artifacts, the records of its finished steps, and the lock of its owner.

Steps exchange `ArtifactRef`s, never frames or models. An artifact appears under its name only when it is
complete. It is checked against its digest when it is read, and when its step is found finished; a digest is
computed again only where the size or the time of a file changed. A finished step leaves a small JSON record:
the key of its inputs, and references to its outputs. This folder alone says what is done: a step whose record
holds its key, and whose artifacts are unchanged, does not run again. Runs with the same folder of
`shared_steps` find each other's finished steps there, and link their artifacts into their own folders.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, NamedTuple

import pandas as pd
from filelock import FileLock, Timeout
from prefect import get_run_logger
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar

from mars_core.config import HIDDEN, flat, origin, public, read, scientific, to_yaml, validated
from mars_core.errors import MarsError
from mars_core.experiment import FolderConfig
from mars_core.files import RememberedDigests, digest, sha256_of, write_whole
from mars_core.tables import Rows, Table, TableError, write
from tasks.run.round_paths import RoundPaths
from tasks.run.run_config import RunConfig, load_run

SCHEMA_VERSION = 2
"""Of 1, the digest of a table is that of its file; of 2, that of its content."""
IDENTITY = ".identity"
DIGESTS = ".digests.sqlite"
"""The digests that are remembered; the file may be removed."""
LAYOUT, LAYOUT_FILE = 2, ".layout"
"""Version of the files in a run's folder, raised when an earlier one cannot be read any more."""
CELLS = "cells"
"""In the folder of a comparison: the configuration and the result of each of its runs."""


Config = TypeVar("Config", bound=FolderConfig, default=RunConfig)
"""Configuration of what has the folder: of a run of self-refinement, unless it says otherwise."""


class RunFolderError(MarsError, RuntimeError):
    """The run folder cannot be used for this run; the message says why and what to do."""


class ArtifactRef(BaseModel):
    """One file or folder of a run, identified by its content."""

    model_config = ConfigDict(frozen=True)

    uri: str
    """Path relative to the run folder."""
    sha256: str
    """Digest of a table's content; else of the file, or of the names and digests of all files of a folder."""
    rows: int | None = None
    """Rows of a table."""
    schema_version: int = SCHEMA_VERSION
    """Version of the reference: what its digest is of."""


Outputs = dict[str, ArtifactRef]


class Finished(NamedTuple):
    """The outputs and metrics of a finished step."""

    outputs: Outputs
    metrics: dict[str, float]


class RunFolder(Generic[Config]):
    """Reads and writes the artifacts of one run."""

    def __init__(self, root: Path, config: Config) -> None:
        """Read a run folder; `open_run` makes this process its owner."""
        self.root = root
        self.config = config
        self.digests = RememberedDigests(root / DIGESTS)
        """Of artifacts and sources."""
        self._metrics: dict[int | None, dict[str, float]] = {}

    @staticmethod
    def of_round(round: int) -> RoundPaths:
        """The paths of a round."""
        return RoundPaths(round)

    def rounds(self) -> list[int]:
        """Numbers of the rounds that have a folder."""
        return sorted(int(folder.name.removeprefix("round-")) for folder in self.root.glob("round-*"))

    def note_metrics(self, round: int | None, metrics: dict[str, float]) -> None:
        """Add a step's metrics to those of its round; metrics of a step without a round belong to all
        rounds."""
        self._metrics.setdefault(round, {}).update(metrics)

    def metrics_of(self, round: int) -> dict[str, float]:
        """The metrics of a round's steps in this start, those of steps that were found finished included."""
        return self._metrics.get(None, {}) | self._metrics.get(round, {})

    @property
    def identity(self) -> str:
        """A unique name that the folder got when it was made; MLflow identifies the run by it."""
        return self.path(IDENTITY).read_text().strip()

    @property
    def vectors(self) -> Path:
        """The cache of embeddings and of features that do not change; it may be removed."""
        shared = self.config.shared_steps
        return Path(shared, "vectors.sqlite").resolve() if shared else self.root / ".vectors.sqlite"

    def path(self, artifact: ArtifactRef | str) -> Path:
        """Where an artifact is, or will be."""
        return self.root / (artifact.uri if isinstance(artifact, ArtifactRef) else artifact)

    def write(self, uri: str, put: Callable[[Path], Any], **about: Any) -> ArtifactRef:
        """Let `put` write a file or folder, which appears when it is complete."""
        write_whole(self.path(uri), put)
        return ArtifactRef(uri=uri, sha256=_digest_of(self.path(uri)), **about)

    def write_table(self, uri: str, table: Rows) -> ArtifactRef:
        """Write a table, of which batches need not fit into memory together."""
        written: list[tuple[int, str]] = []
        write_whole(self.path(uri), lambda path: written.append(write(path, table)))
        [(rows, digest_of_content)] = written
        return ArtifactRef(uri=uri, sha256=digest_of_content, rows=rows)

    def take_over(self, uri: str, path: Path, **about: Any) -> ArtifactRef:
        """Link a file, folder or table that was made elsewhere."""
        return self.write(uri, partial(_same_content, path), **about)

    def write_json(self, uri: str, values: Any) -> ArtifactRef:
        """Write a JSON file for machines and people."""
        return self.write(uri, lambda path: path.write_text(json.dumps(values, indent=2) + "\n"))

    def adopt(self, uri: str) -> ArtifactRef:
        """The reference to a file or folder that a child process has written."""
        return ArtifactRef(uri=uri, sha256=_digest_of(self.path(uri)))

    def link(self, artifact: ArtifactRef, uri: str) -> None:
        """Link an artifact under a second name, which takes no space."""
        if not self.intact(artifact.model_copy(update={"uri": uri})):
            self.write(uri, partial(_same_content, self.verified(artifact)))

    def open(self, artifact: ArtifactRef) -> Table:
        """Open a table, to read it in batches."""
        return Table(self.verified(artifact))

    def table(self, artifact: ArtifactRef, *columns: str) -> pd.DataFrame:
        """Read a table, or some of its columns, into memory."""
        return self.open(artifact).read(*columns).to_pandas()

    def json(self, artifact: ArtifactRef) -> Any:
        """Read a JSON file."""
        return json.loads(self.verified(artifact).read_text())

    def verified(self, artifact: ArtifactRef) -> Path:
        """The path of an artifact, after checking that its content is what was written.

        Raises:
            RunFolderError: it is missing or was changed.
        """
        wrong = self._wrong(artifact)
        if wrong:
            raise RunFolderError(
                f"{wrong} is missing or was changed since it was written; start the run again to make it anew"
            )
        return self.path(artifact)

    def intact(self, artifact: ArtifactRef) -> bool:
        """Whether an artifact exists, with the content that was written."""
        return self._wrong(artifact) is None

    def _wrong(self, artifact: ArtifactRef) -> Path | None:
        """The file, of a table maybe one of its parts, that is missing or not what was written."""
        place = self.path(artifact)
        if not place.exists():
            return place
        compute = sha256_of if artifact.schema_version == 1 else _digest_of
        try:
            return None if self.digests.of(place, compute) == artifact.sha256 else place
        except TableError as error:
            return error.file

    def finished(self, step: str, key: str) -> Finished | None:
        """The outputs of a step that has run with this key, here or in a run that shares steps, if intact."""
        return self._found(step, key) or self._taken_over(step, key)

    def _found(self, step: str, key: str) -> Finished | None:
        record = self.path(f".steps/{step}.json")
        if not record.exists() or json.loads(record.read_text())["key"] != key:
            return None
        outputs = self.outputs(step)
        metrics: dict[str, float] = json.loads(record.read_text())["metrics"]
        return Finished(outputs, metrics) if all(map(self.intact, outputs.values())) else None

    def _taken_over(self, step: str, key: str) -> Finished | None:
        """The outputs of another run's step with this key, linked into this run's folder."""
        pointer = self._shared(key)
        if pointer is None:
            return None
        other = RunFolder(pointer.resolve(), self.config)
        found = other._found(step, key) if other.root != self.root else None
        if found is None:
            return None
        for artifact in found.outputs.values():
            self.write(artifact.uri, partial(_same_content, other.path(artifact)))
        self.record(step, key, found.outputs, other.seconds()[step], found.metrics)
        return found

    def _shared(self, key: str) -> Path | None:
        """The link to the folder of the run that has finished a step with this key."""
        folder = self.config.shared_steps
        return Path(folder) / key if folder else None

    @contextmanager
    def alone_with(self, key: str) -> Iterator[None]:
        """Let only one of the runs that share steps run the step of this key; others wait, and link its
        outputs."""
        pointer = self._shared(key)
        if pointer is None:
            yield
            return
        pointer.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(pointer.with_name(f".{key}.lock")):
            yield

    def outputs(self, step: str) -> Outputs:
        """The outputs in the record of a finished step."""
        record = json.loads(self.path(f".steps/{step}.json").read_text())
        return {name: ArtifactRef.model_validate(ref) for name, ref in record["outputs"].items()}

    def record(
        self,
        step: str,
        key: str,
        outputs: Outputs,
        seconds: float,
        metrics: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Write the record of a finished step."""
        values = {
            "key": key,
            "outputs": {name: ref.model_dump() for name, ref in outputs.items()},
            "metrics": dict(metrics),
            "seconds": round(seconds, 3),
        }
        self.write(f".steps/{step}.json", lambda path: path.write_text(json.dumps(values, indent=2)))
        pointer = self._shared(key)
        if pointer is not None:
            pointer.parent.mkdir(parents=True, exist_ok=True)
            beside = pointer.with_name(f".{key}.{uuid.uuid4().hex}")
            beside.symlink_to(self.root)
            beside.replace(pointer)

    def seconds_of(self, round: int) -> float:
        """How long the finished steps of a round took, except for writing its metrics."""
        beginning, last = f"round-{round}-", f"round-{round}-metrics"
        of_steps = self.seconds().items()
        return sum(seconds for name, seconds in of_steps if name.startswith(beginning) and name != last)

    def seconds(self) -> dict[str, float]:
        """How long each finished step took."""
        records = (self.root / ".steps").glob("*.json")
        return {path.stem: json.loads(path.read_text())["seconds"] for path in records}


@contextmanager
def claimed_run(config: Config) -> Iterator[RunFolder[Config]]:
    """Own the folder that a run has or will have during a `with` block, without changing it.

    Raises:
        RunFolderError: another process owns it, it is a comparison's, or it was made with other scientific
            keys.
    """
    root = config.run_folder.resolve()
    with owned(root):
        if (root / CELLS).exists():
            raise RunFolderError(f"{root} is the folder of a comparison: give this run another name")
        _check_layout(root)
        _check_configuration(root / "config.yaml", config)
        yield RunFolder(root, config)


@contextmanager
def open_run(config: Config) -> Iterator[RunFolder[Config]]:
    """Become the owner of a run's folder during a `with` block, and write its configuration.

    Raises:
        RunFolderError: as `claimed_run`.
    """
    with claimed_run(config) as run:
        header = (
            f"# Resolved configuration of {config.name}, written {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
            f"# sha256 of its scientific keys: {digest(scientific(config))}\n"
        )
        run.write(LAYOUT_FILE, lambda path: path.write_text(f"{LAYOUT}\n"))
        run.write("config.yaml", lambda path: path.write_text(header + to_yaml(config), encoding="utf-8"))
        try:
            yield run
        finally:
            if not any(run.path(".steps").glob("round-*.json")):
                # No step has run with these keys, so they may still change.
                run.path("config.yaml").unlink(missing_ok=True)


@contextmanager
def owned(root: Path) -> Iterator[str]:
    """Own a folder during a `with` block; yields its identity, which it gets from its first owner.

    A flow run that Prefect restarts waits: its first attempt may still be alive though it was declared dead.

    Raises:
        RunFolderError: another process owns it.
    """
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / ".lock")
    started_again = flow_run.run_count > 1
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not started_again:
                raise
            get_run_logger().warning("%s is in use, maybe by an earlier attempt of this run; waiting.", root)
            lock.acquire()
    except Timeout:
        raise RunFolderError(
            f"{root} is in use by another process; wait for it, or give this run another name"
        ) from None
    try:
        identity = root / IDENTITY
        if not identity.exists():
            write_whole(identity, lambda path: path.write_text(uuid.uuid4().hex))
        yield identity.read_text().strip()
    finally:
        lock.release()


def existing_run(root: Path) -> RunFolder:
    """Open the folder of a run that was started before, without owning it.

    Raises:
        RunFolderError: it is no run folder.
        ConfigError: its configuration has keys or values that this version does not know.
    """
    file = root / "config.yaml"
    if (root / CELLS).exists():
        raise RunFolderError(f"{root}: a comparison, whose table is its results.md; each cell is a run")
    if not file.exists():
        raise RunFolderError(f"{root}: no run here; a run's folder holds a config.yaml")
    _check_layout(root)
    return RunFolder(root.resolve(), load_run(file))


def _check_layout(root: Path) -> None:
    """Refuse the folder of a run that was made before the layout changed."""
    file = root / LAYOUT_FILE
    layout = file.read_text().strip() if file.exists() else "1"
    if (root / "config.yaml").exists() and layout != str(LAYOUT):
        raise RunFolderError(
            f"{root} was made by another version of mars (layout {layout}, this one reads {LAYOUT}): "
            "give the run another name, or use that version to look at it"
        )


def _digest_of(path: Path) -> str:
    """Digest of a table's content, or of any other file or folder."""
    return Table(path).digest() if path.suffix == ".parquet" else sha256_of(path)


def _same_content(source: Path, place: Path) -> None:
    """Link a file or folder to a second place, or copy it if the file system has no hard links."""
    if source.is_dir():
        shutil.copytree(source, place, copy_function=_link)
    else:
        _link(source, place)


def _link(source: Path | str, place: Path | str) -> None:
    try:
        os.link(source, place)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, place)


def _check_configuration(file: Path, config: FolderConfig) -> None:
    if not file.exists():
        return
    before = validated(type(config), read(file), origin(file, ()))
    there, now = flat(scientific(before)), flat(scientific(config))
    shown = {**flat(public(before)), **flat(public(config))}
    private = tuple(key for key, value in shown.items() if value == HIDDEN)
    differing = [
        key if key.startswith(private) else f"{key}: {there.get(key)!r} there, {now.get(key)!r} now"
        for key in there | now
        if there.get(key) != now.get(key)
    ]
    if differing:
        raise RunFolderError(
            f"{file.parent} was made with other scientific keys:\n  "
            + "\n  ".join(differing)
            + "\nGive this run another name, or remove that folder."
        )
