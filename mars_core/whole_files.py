"""Files and folders that appear under their name only when they are whole."""

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
    if place.is_dir():  # a removal takes time, so it must not happen under the place's name
        place.rename(before)
    beside.replace(place)
    _remove(before)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.is_file():
        path.unlink()
