"""Examine one delivery in a process of its own, which may end as it likes: no file stops a retraining.

    python -m mars_core.data.examination SPEC.json

The process has a limit of memory, and whoever starts it limits its time. Of the specification's folder
`outcome.json` is written last; `accepted.parquet` and `bad.jsonl` are there where the outcome counts some.
"""

import errno
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import pyarrow
from pydantic import BaseModel, ConfigDict

from mars_core.config import validated
from mars_core.data import reading
from mars_core.data.accepted import Accepted
from mars_core.data.deliveries import Delivery, IntakeConfig, NoFileError, UnfinishedError, examine
from mars_core.errors import MarsError

FULL_DISK = 74
"""Exit status for want of room on the disk, for which no delivery is to blame."""


class ExaminationError(MarsError, RuntimeError):
    """A delivery needs more memory than it may have."""


class Examination(BaseModel):
    """What to examine, and how."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    name: str
    digest: str
    """sha256 of the file."""
    file: bytes
    """Its path, which may be no text."""
    config: dict[str, Any]
    """Keys of `data`."""
    max_bad_share: float
    """In place of the configured one."""
    known: list[Accepted]
    refused: list[Accepted]
    """What the gate refused."""
    folder: Path
    """Where the outcome is written."""


class Outcome(BaseModel):
    """What became of a delivery; see `mars_core.data.deliveries.Intake`."""

    rows: int = 0
    pairs: int = 0
    duplicates: int = 0
    bad: int = 0
    refusal: str | None = None
    remark: str = ""
    left_out: dict[str, int] = {}
    gone: str = ""
    """Why the file cannot be read, if so: it is gone, or no file any more."""
    unfinished: str = ""
    """Why it does not read to its end, if so."""


def main(spec_file: str) -> None:
    """Examine what a file specifies.

    Raises:
        ExaminationError: there is too little memory.
        SystemExit: with the status `FULL_DISK`.
    """
    spec = Examination.model_validate_json(Path(spec_file).read_bytes())
    config = validated(IntakeConfig, spec.config, "data")
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # others reserve memory that they do not use
    _limit_memory(config.limits.memory_bytes)
    try:
        outcome = _examined(spec, config)
    except MemoryError as error:
        raise ExaminationError(
            f"it needs more memory than data.limits.memory_bytes={config.limits.memory_bytes:,}"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(error, file=sys.stderr)
        sys.exit(FULL_DISK)
    (spec.folder / "outcome.json").write_text(outcome.model_dump_json())


def _examined(spec: Examination, config: IntakeConfig) -> Outcome:
    delivery = Delivery(spec.name, spec.digest, Path(os.fsdecode(spec.file)))
    first = _ids([accepted for accepted in spec.known if accepted.reading == 1])
    known, refused = _ids(spec.known), _ids(spec.refused)
    try:
        intake = examine(delivery, known, refused, spec.max_bad_share, config.open(), first, config.limits)
    except UnfinishedError as error:
        return Outcome(unfinished=str(error))
    except (NoFileError, FileNotFoundError, PermissionError) as error:
        return Outcome(gone=str(error))
    if intake.accepted is not None:
        reading.write_table(intake.accepted, spec.folder / "accepted.parquet")
    with (spec.folder / "bad.jsonl").open("w", encoding="utf-8", errors="replace") as bad:
        for row in intake.bad:
            bad.write(json.dumps({"file": spec.name, **row._asdict()}, ensure_ascii=False) + "\n")
    return Outcome(
        rows=intake.rows,
        pairs=0 if intake.accepted is None else len(intake.accepted),
        duplicates=intake.duplicates,
        bad=intake.bad_rows,
        refusal=intake.refusal,
        remark=intake.remark,
        left_out=dict(intake.left_out),
    )


def _ids(deliveries: list[Accepted]) -> set[str]:
    return {pair_id for accepted in deliveries for pair_id in accepted.ids()}


def _limit_memory(most: int) -> None:
    """Let this process take so much memory beside what it has."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        taken = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:"))
        limit = taken * 1024 + most
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


if __name__ == "__main__":
    main(*sys.argv[1:])
