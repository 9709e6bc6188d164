"""What a leash holds, wherever it went: found by a mark in its environment, killed when the leash was.

A leash that is killed by SIGKILL can end nothing any more; Linux kills its command, but not what that has
started. All of it has inherited the leash's mark. Whoever started the leash looks for it at once; where that
one was killed as well, the next start does: it finds a record of each leash that did not come to remove it.

A control group or a process namespace would do the same, but needs rights that a container without
capabilities, and most users, do not have, and a namespace shows programs other process ids than /proc does.
"""

import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "MARS_LEASH"
"""Environment variable of all that a leash holds."""
LOOKS = 5
RECORDS = Path(tempfile.gettempdir()) / f"mars-leashes-{os.getuid()}"
"""Folder with an empty file for each leash, by its mark; its leash has it locked as long as it lives."""


def marked() -> dict[str, str]:
    """The variables of a new leash. Without the second one some programs write their title over them."""
    return {MARK: secrets.token_hex(16), "SPT_NOENV": "1"}


@contextmanager
def recorded(mark: str) -> Iterator[None]:
    """Keep a record of the leash that this process is, for the length of a `with` block."""
    folder = _records()
    beside, record = folder / f".{mark}", folder / mark
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    beside.rename(record)  # locked already, so nobody takes it for that of a dead leash
    try:
        yield
    finally:
        record.unlink(missing_ok=True)
        os.close(descriptor)


def sweep() -> None:
    """Kill what dead leashes have left."""
    for record in _records().glob("[!.]*"):
        with suppress(OSError), record.open() as opened:  # it is gone, or locked by a leash that lives
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kill_marked(record.name)
            record.unlink()


def kill_marked(mark: str) -> None:
    """Kill every process that has inherited a mark; while they are looked for, they may start others."""
    import psutil  # only now: a leash is to start quickly

    for _ in range(LOOKS):
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):  # another user's, or gone
                if process.environ().get(MARK) == mark:
                    process.kill()
                    found.append(process)
        if not found:
            return
        psutil.wait_procs(found, timeout=1)


def _records() -> Path:
    """The folder of records, which must be this user's own: its names decide what is killed."""
    RECORDS.mkdir(mode=0o700, exist_ok=True)
    about = RECORDS.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
        raise PermissionError(f"{RECORDS} is another user's: set TMPDIR to a folder of your own")
    return RECORDS
