"""Files and folders: digests of their content, and writes that are complete or leave nothing."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


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


def write_whole(place: Path, put: Callable[[Path], Any]) -> None:
    """Let `put` write a file or folder under a temporary name, then move it to `place`.

    If writing fails or the process is killed, the previous content stays. Leftovers of an earlier writer that
    was killed are removed first.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    beside, before = (place.with_name(f".{place.name}.{end}") for end in ("partial", "replaced"))
    for leftover in (beside, before):
        _remove(leftover)
    try:
        put(beside)
    except OSError as error:  # a full disk often does not say where
        if error.errno and not error.filename:
            error.filename = str(place)
        raise
    for path in beside.rglob("*") if beside.is_dir() else ():
        sync(path)
    sync(beside)
    if place.is_dir():  # a crash in the middle of its removal must not leave half of it under its name
        place.rename(before)
    beside.replace(place)
    sync(place.parent)
    _remove(before)


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk, so that they survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.is_file():
        path.unlink()
