"""The store of generations: an append-only folder of requests and their answers, one JSON record a line.

A record holds the key, the generator, the role, the messages and the sampling that were sent, and the
answer as it arrived: every sample with its finish reason, token counts, seconds, and the time.

Its rules:

- Each process writes to its own segment file, so that many can share a folder without locks.
- When `add` returns, the operating system has the record (`kill -9` loses nothing); it is on the disk about a
  second of answers later (a loss of power loses those).
- A broken line can only be the last of its segment: an interrupted write leaves it, and it is skipped. A
  broken line before others means damage, and is an error.
- If two processes answer the same request, the first record is valid for both; if they do so within a second,
  readers take the record of the earlier segment.
"""

import json
import logging
import os
import time
import uuid
from dataclasses import asdict
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from mars_core.errors import MarsError
from mars_core.files import sync
from mars_core.generation.interface import Answer, Request

logger = logging.getLogger(__name__)

SYNC_SECONDS = 1.0
LOOK_SECONDS = 1.0
"""How long additions of other processes may go unseen; a text that two processes ask for meanwhile is two."""


class StoreError(MarsError, ValueError):
    """A file of the store is damaged; the message names it and the line."""


class _Progress(NamedTuple):
    """How far a segment has been read: the next byte, and the number of complete lines before it."""

    offset: int = 0
    lines: int = 0


class GenerationStore:
    """Answers by key. Keeps keys and file positions in memory, never texts.

    >>> with GenerationStore(Path("generations")) as store:
    ...     store.add(answer, request, generator="rules")
    ...     store.get(answer.key)

    Raises:
        StoreError: a segment is damaged; the message names its file and line.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._place: dict[str, tuple[Path, int]] = {}
        self._read: dict[Path, _Progress] = {}
        self._torn: set[Path] = set()
        self._path = self.folder
        self._segment: FileIO | None = None
        self._synced = self._looked = 0.0
        self.refresh()

    def refresh(self) -> None:
        """Read what other processes have added since the last call."""
        self._looked = time.monotonic()
        for segment in sorted(self.folder.glob("*.jsonl")):
            if segment != self._path:
                self._index(segment)

    def get(self, key: str) -> Answer | None:
        """The stored answer, or None."""
        if key not in self._place:
            return None
        record = self.find(key)
        return Answer(
            key=key,
            texts=tuple(record["texts"]),
            finish_reasons=tuple(record["finish_reasons"]),
            prompt_tokens=record["prompt_tokens"],
            completion_tokens=record["completion_tokens"],
            seconds=record["seconds"],
        )

    def find(self, key: str) -> dict[str, Any]:
        """The whole record: the answer, the generator, what was sent, and when.

        Raises:
            KeyError: the store holds no such key.
        """
        if key not in self._place:
            raise KeyError(f"{self.folder} holds no generation with the key {key}")
        segment, offset = self._place[key]
        with segment.open("rb") as lines:
            lines.seek(offset)
            record: dict[str, Any] = json.loads(lines.readline())
        return record

    def add(self, answer: Answer, request: Request, generator: str) -> Answer:
        """Append an answer of the backend named `generator`; returns the answer that is valid from now on.

        A key that the store already has keeps its answer.
        """
        if answer.error is not None:
            raise ValueError(f"a failed answer is not stored: {answer.error}")
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self.refresh()
        if (earlier := self.get(answer.key)) is not None:
            return earlier
        record = asdict(answer) | {
            "role": request.role,
            "generator": generator,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        del record["error"], record["refused"], record["retries"]
        self._place[answer.key] = self._append(json.dumps(record).encode() + b"\n")
        return answer

    def __contains__(self, key: str) -> bool:
        return key in self._place

    def __len__(self) -> int:
        return len(self._place)

    def close(self) -> None:
        """Flush everything to the disk."""
        if self._segment is not None:
            os.fsync(self._segment.fileno())
            self._segment.close()
            self._segment = None

    def __enter__(self) -> "GenerationStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, line: bytes) -> tuple[Path, int]:
        """Write one line to this process's segment; returns where it begins."""
        if self._segment is None:
            self._path = self.folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex}.jsonl"
            self._segment = FileIO(self._path, "ab")
            sync(self.folder)
        offset = self._segment.tell()
        try:
            if self._segment.write(line) != len(line):
                raise OSError(f"{self._path}: only a part of a record could be written; is the disk full?")
        except BaseException:  # a full disk, or Ctrl-C
            # The next record goes to a new segment, so that the broken line stays the last of this one.
            self._segment.close()
            self._segment = None
            raise
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._segment.fileno())
            self._synced = time.monotonic()
        return self._path, offset

    def _index(self, segment: Path) -> None:
        """Read the keys of new lines, up to a torn last one."""
        offset, number = self._read.get(segment, _Progress())
        if segment.stat().st_size <= offset:
            return
        broken: str | None = None
        with segment.open("rb") as lines:
            lines.seek(offset)
            for line in lines:
                if broken is not None:
                    raise StoreError(
                        f"{segment}, line {number + 1}: {broken}. Lines follow it, so this is damage, "
                        "not an interrupted write: restore the file, or delete that line to ask again"
                    )
                try:
                    key = _key_of(line)
                except ValueError as error:
                    broken = str(error)
                    if not line.endswith(b"\n"):
                        break  # a line that another process has added meanwhile does not make it damage
                    continue
                self._place.setdefault(key, (segment, offset))
                offset, number = offset + len(line), number + 1
        if broken is not None and segment not in self._torn:
            self._torn.add(segment)
            logger.warning("%s: last line %d is torn (%s) and is skipped", segment, number + 1, broken)
        self._read[segment] = _Progress(offset, number)


def _key_of(line: bytes) -> str:
    if not line.endswith(b"\n"):
        raise ValueError("the line has no end")
    record = json.loads(line)
    if not isinstance(record, dict) or not isinstance(record.get("key"), str) or "texts" not in record:
        raise ValueError("the line is no record of a generation (an object with key and texts)")
    key: str = record["key"]
    return key
