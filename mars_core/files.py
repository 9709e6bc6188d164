"""Files and folders: digests of their content, and writes that are complete or leave nothing."""

import ctypes
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux's renameat2."""


def digest(*values: object) -> str:
    """sha256 (hexadecimal) over JSON-serialisable values; the order of a mapping's keys does not count."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Digest of a file, or of the names and digests of all files under a folder."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        lines = [f"{file.relative_to(path).as_posix()} {sha256_of(file)}" for file in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


SETTLED_SECONDS = 2.0
"""A file that changed less than this long ago may change again at the time that it has now."""


class RememberedDigests:
    """Digests of files that did not change since they were computed, in an SQLite file that may be removed.

    A file is known by its place on the disk, its size and its times; nobody can set that of its last change.
    """

    def __init__(self, file: Path) -> None:
        """Remember them in `file`, which is made if there is none."""
        self.file = file

    def of(self, path: Path, compute: Callable[[Path], str] = sha256_of) -> str:
        """The digest of a file or folder as `compute` gives it."""
        return self._remember(compute.__name__, lambda: _states(path), lambda: compute(path))

    def of_open(self, content: BinaryIO, compute: Callable[[], str]) -> str:
        """The digest of an open file, as `compute` gives it."""
        return self._remember("", lambda: {"": os.fstat(content.fileno())}, compute)

    def forget(self) -> None:
        """Compute all digests again when they are asked for."""
        self.file.unlink(missing_ok=True)

    def _remember(self, kind: str, look: "Callable[[], States]", compute: Callable[[], str]) -> str:
        states = look()
        key = _key(kind, states)
        known = self._execute("SELECT digest FROM digests WHERE state = ?", key)
        if known:
            return str(known[0][0])
        found = compute()
        changed = max((about.st_ctime for about in states.values()), default=0.0)
        if time.time() - changed > SETTLED_SECONDS and _key(kind, look()) == key:
            self._execute("INSERT OR REPLACE INTO digests VALUES (?, ?)", key, found)
        return found

    def _execute(self, statement: str, *values: str) -> list[Any]:
        """The rows that a statement gives; none where the file cannot be used, or the disk is full."""
        with suppress(sqlite3.Error), closing(sqlite3.connect(self.file)) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS digests (state TEXT PRIMARY KEY, digest TEXT)")
            return database.execute(statement, values).fetchall()
        return []


States: TypeAlias = Mapping[str, os.stat_result]
"""What the system says of files, by their names."""


def _states(path: Path) -> States:
    """Of a file, or of all files of a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return {file.relative_to(path).as_posix(): file.stat() for file in files}


def _key(kind: str, states: States) -> str:
    """What a digest of some kind is remembered by."""
    names = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    return digest(kind, {name: [getattr(about, part) for part in names] for name, about in states.items()})


def write_whole(place: Path, put: Callable[[Path], Any]) -> None:
    """Let `put` write a file or folder under a temporary name, then move it to `place`.

    If writing fails or the process is killed, the previous content stays. What failed is removed, and what a
    killed writer has left before the next one begins.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    beside, before = (place.with_name(f".{place.name}.{end}") for end in ("partial", "replaced"))
    if before.exists() and not place.exists():
        before.rename(place)  # the writer was killed between two renames
    for leftover in (beside, before):
        remove(leftover)
    try:
        put(beside)
        for path in beside.rglob("*") if beside.is_dir() else ():
            sync(path)
        sync(beside)
    except BaseException as error:
        with suppress(OSError):
            remove(beside)  # it would keep the room that a full disk lacks
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(place)  # a full disk often does not say where
        raise
    if place.exists() and (place.is_dir() or beside.is_dir()):
        _replace_folder(beside, place, before)
    else:
        beside.replace(place)
    sync(place.parent)
    for outdated in (beside, before):
        remove(outdated)


def _replace_folder(new: Path, place: Path, before: Path) -> None:
    """Exchange two folders' names at once, so that one is always at its place; where that cannot be done, let
    the old one make way first."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # no Linux
        failed = 1
    else:
        failed = rename(_HERE, os.fsencode(new), _HERE, os.fsencode(place), _EXCHANGE)
    if failed:  # the file system does not know it
        place.rename(before)
        new.replace(place)


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk, so that they survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    elif path.is_file():
        path.unlink()
