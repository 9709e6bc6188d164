"""Files and folders that come under their name only when they are whole, and then outlive a loss of power."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(place: Path, put: Callable[[Path], Any]) -> None:
    """Let `put` write a file or folder beside its place, then move it there.

    Where writing fails, or the process is killed, what was there before stays. What an earlier, killed
    writer left beside the place is removed first.
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
    if place.is_dir():  # a removal takes time, so it must not happen under the place's name
        place.rename(before)
    beside.replace(place)
    sync(place.parent)
    _remove(before)


def sync(path: Path) -> None:
    """Let what a file holds, or which names a folder holds, survive a loss of power."""
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
