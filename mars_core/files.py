"""Files and folders: digests of their content, and writes that are complete or leave nothing."""

import ctypes
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

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
    """Digests of files and folders, computed again where a size or a time of modification changed."""

    def __init__(self, file: Path) -> None:
        """Remember them in a JSON file, which may be removed."""
        self.file = file

    def of(self, path: Path, compute: Callable[[Path], str] = sha256_of) -> str:
        """The digest of a file or folder as `compute` gives it."""
        state, changed = _state(path)
        name = f"{compute.__name__} {path}"
        known = self._known().get(name)
        if known and known["state"] == state:
            return known["digest"]
        found = compute(path)
        if abs(time.time() - changed) > SETTLED_SECONDS and _state(path)[0] == state:
            self._save(self._known() | {name: {"state": state, "digest": found}})
        return found

    def forget(self) -> None:
        """Compute all digests again when they are asked for."""
        self.file.unlink(missing_ok=True)

    def _known(self) -> dict[str, dict[str, str]]:
        try:
            known: dict[str, dict[str, str]] = json.loads(self.file.read_text())
        except (OSError, ValueError):
            return {}
        return known

    def _save(self, known: dict[str, dict[str, str]]) -> None:
        beside = self.file.with_name(f"{self.file.name}.{uuid.uuid4().hex}")
        with suppress(OSError):  # a disk that is full or cannot be written: they are computed again
            beside.write_text(json.dumps(known, indent=1))
            beside.replace(self.file)


def _state(path: Path) -> tuple[str, float]:
    """The names, sizes and times of modification of all files of a path, and the latest of these times."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    found = [(file.relative_to(path).as_posix(), file.stat()) for file in files]
    latest = max((about.st_mtime for _, about in found), default=0.0)
    return digest([(name, about.st_size, about.st_mtime_ns) for name, about in found]), latest


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
