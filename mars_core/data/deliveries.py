"""New preference pairs: which deliveries were not seen before, and which of their rows are accepted.

A file is a delivery, known by the digest of its content: one that is delivered again, under whatever name,
is no new one. A pair is known by the digest of its texts. A file that is still being written, or that does
not read to its end, is left for the next look. A bad row is quarantined with its number and reason, and a
delivery that holds too many of them is quarantined whole: who delivers a wrong schema, exchanged labels or
garbage should hear of it before a model is trained on the rest.

Sources of a run are named by whoever may start it, and are read as `mars_core.data.source_rows` has it.
Deliveries come from others, so this module is the one place where they are opened: regular files alone, no
link is followed, a name stands for itself and is no pattern, and what is read is a copy that nobody else can
write to, whose digest is the delivery's.
"""

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, BinaryIO, NamedTuple

from datasets import Dataset
from pydantic import Field

from mars_core.data.first_reading import first_ids
from mars_core.data.formats.format import FORMATS, Format
from mars_core.data.reading import as_table, content_id, readings, recognised, remark
from mars_core.data.source_rows import (
    READERS,
    Line,
    PairsError,
    Part,
    hub_part,
    lines_of,
    load_hub,
    parts,
    suffix,
)
from mars_core.errors import MarsError
from mars_core.extensions import PluginSection

BLOCK_BYTES = 1 << 20
DUPLICATE = "known"
KEPT_CHARACTERS = 2000
"""How much of a bad row is kept for a person to see."""


class UnfinishedError(MarsError, ValueError):
    """A file does not read to its end; it may still be being written."""


class NoFileError(MarsError, ValueError):
    """What lies there is no regular file."""


class IntakeConfig(PluginSection):
    """Where new preference pairs are delivered, and how many bad rows a delivery may hold."""

    source: str = "incoming"
    """Folder of .jsonl[.gz], .json[.gz], .parquet or .csv files, each a delivery; or one such file, or a hub
    dataset OWNER/NAME[/DIRECTORY]@REVISION[:SPLIT]."""
    format: Annotated[str, FORMATS] = "by_columns"
    """How rows become pairs: by default the columns of each delivery say; or a format by name, or a class of
    your own as module:attribute (docs/data_and_models.md)."""
    settle_seconds: float = Field(60, ge=0)
    """A file that changed less than this long ago is left for the next look."""
    max_bad_share: float = Field(0.2, ge=0, le=1)
    """A delivery with a greater share of bad rows is quarantined whole."""


class Delivery(NamedTuple):
    """A file, or what a hub dataset holds now."""

    name: str
    digest: str
    """sha256 of its content."""
    content: Path | Part


class BadRow(NamedTuple):
    """A row that is not accepted."""

    row: int
    """Number from 1; of a .jsonl file, that of the line."""
    reason: str
    content: str
    """The row as JSON, or the line as it was; its beginning if it is long."""


class Intake(NamedTuple):
    """What became of the rows of a delivery."""

    rows: int
    accepted: Dataset | None
    """New pairs as `mars_core.data.reading` has them, each by the digest of its texts, if any."""
    duplicates: int
    """Pairs that were known."""
    bad: list[BadRow]
    refusal: str | None
    """Why the delivery is quarantined whole, if it is."""
    remark: str = ""
    """How it was read."""
    left_out: Mapping[str, int] = MappingProxyType({})
    """Comparisons that make no pair, by reason."""


def new_deliveries(
    config: IntakeConfig, seen: Container[str], now: float
) -> tuple[list[Delivery], dict[str, str]]:
    """Deliveries that were not seen, in the order of their names; and why others are left for the next look.

    Args:
        config: the source, and how long its files are left to settle.
        seen: digests of the deliveries that were looked at before.
        now: the time, in seconds since the epoch.

    Raises:
        PairsError: the source is not there or cannot be loaded.
    """
    place = Path(config.source).expanduser()
    if not place.exists():
        if "@" not in config.source and not config.source.startswith("sample://"):
            raise PairsError(
                f"data.source={config.source}: no such folder; make it, and deliver files into it"
            )
        part = _part(config.source)
        found = Delivery(part.name, _digest(map(_as_json, part.lines())), part)
        return ([] if found.digest in seen else [found]), {}
    deliveries: dict[str, Delivery] = {}
    left: dict[str, str] = {}
    for file in sorted(place.iterdir()) if place.is_dir() else [place.resolve()]:
        if suffix(file) not in READERS or file.name.startswith("."):
            continue
        name = os.fsencode(file.name).decode(errors="replace")
        try:
            with opened(file) as content:
                # A clock that is ahead dates a file in the future; far ahead, that says nothing of the file.
                if abs(now - os.fstat(content.fileno()).st_mtime) < config.settle_seconds:
                    left[name] = f"it changed in the last {config.settle_seconds:g} seconds"
                    continue
                digest = _digest(_blocks(content))
        except (OSError, NoFileError) as error:
            left[name] = f"it cannot be read: {error}"
            continue
        if digest not in seen:
            deliveries.setdefault(digest, Delivery(name, digest, file))
    return list(deliveries.values()), left


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """A delivered file, open for reading: itself and nothing that it links to.

    Raises:
        NoFileError: it is a link, a folder, a pipe or a device.
        OSError: it is gone, or may not be read.
    """
    try:  # a pipe would wait for its writer
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise NoFileError("it is a link; deliver the file itself") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NoFileError("it is no regular file")
    with open(descriptor, "rb") as content:  # noqa: PTH123  Path.open would look at the name again
        yield content


def examine(
    delivery: Delivery,
    known: Container[str],
    refused: Container[str],
    max_bad_share: float,
    reads: Format | None = None,
    known_first: Container[str] = (),
) -> Intake:
    """Sort the rows of a delivery into new pairs, known ones and bad ones.

    Args:
        delivery: the file, or the dataset.
        known: ids, by `content_id`, of the pairs that were accepted before.
        refused: ids of the pairs that were accepted before, and then refused by the gate.
        max_bad_share: the share of bad rows up to which the good ones are accepted.
        reads: the format; by default the one that the columns say.
        known_first: ids of the pairs that were accepted by the first version of the reading.

    Raises:
        UnfinishedError: the file does not read to its end, holds nothing, or changed meanwhile.
        NoFileError, OSError: it is gone, or may not be read.
    """
    with _copy(delivery) as content:
        return _examine(delivery, content, _Known(known, refused, known_first), max_bad_share, reads)


def _examine(
    delivery: Delivery, content: BinaryIO, pairs: "_Known", max_bad_share: float, reads: Format | None
) -> Intake:
    counted = _Counted(_rows(content, delivery))
    duplicates, bad, left_out = 0, list[BadRow](), Counter[str]()
    read_as, refusal = "", None
    try:
        reader, rows = recognised(iter(counted), reads, delivery.name)
    except PairsError as error:
        refusal = str(error)
    else:
        for reading in readings(rows, reader, delivery.name):
            left_out.update(reading.left_out)
            judged = [pairs.judge(pair, reading.line.row) for pair in reading.pairs]
            duplicates += judged.count(DUPLICATE)
            problems = [reading.problem, *(found for found in judged if found != DUPLICATE)]
            bad += [_bad(reading.line, problem) for problem in problems if problem][:1]
        read_as = remark(reader, counted.columns)
        refusal = _refusal(bad, counted.rows, max_bad_share)
    for _ in counted:  # to the end, where no format reads it
        pass
    if counted.rows == 0:
        raise UnfinishedError("it holds no rows")
    new = pairs.accepted.values()
    table = as_table(iter(new)) if new and not refusal else None
    return Intake(counted.rows, table, duplicates, bad, refusal, read_as, left_out)


class _Known:
    """The pairs that are known, and those that a delivery adds."""

    def __init__(self, known: Container[str], refused: Container[str], known_first: Container[str]) -> None:
        self.known, self.refused, self.known_first = known, refused, known_first
        self.accepted: dict[str, dict[str, Any]] = {}

    def judge(self, pair: dict[str, Any], row: Any) -> str:
        """Accept a pair, or say why not: `DUPLICATE`, or what is wrong with it."""
        prompt, chosen, rejected = pair["prompt"], pair["chosen"], pair["rejected"]
        pair_id, exchanged = content_id(prompt, chosen, rejected), content_id(prompt, rejected, chosen)
        first, first_exchanged = first_ids(row)
        if pair_id in self.known or pair_id in self.accepted or first in self.known_first:
            return DUPLICATE
        if exchanged in self.known or exchanged in self.accepted or first_exchanged in self.known_first:
            return "contradicts a known pair, whose chosen and rejected are exchanged"
        if pair_id in self.refused or first in self.refused:
            return "came in an earlier delivery, which the gate refused"
        self.accepted[pair_id] = pair | {"pair_id": pair_id}
        return ""


class _Counted:
    """The rows of a delivery, once; what was seen so far of their number and columns."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self.rows, self.columns = 0, dict[str, None]()
        self._lines = lines

    def __iter__(self) -> Iterator[Line]:
        for line in self._lines:
            self.rows += 1
            if not line.problem:
                self.columns.update(dict.fromkeys(line.row))
            yield line


def _bad(line: Line, reason: str) -> BadRow:
    row = line.row.decode(errors="replace").strip() if isinstance(line.row, bytes) else line.row
    shown = row if isinstance(row, str) else json.dumps(row, ensure_ascii=True, default=str)
    return BadRow(line.number, reason, shown[:KEPT_CHARACTERS])


def _refusal(bad: list[BadRow], rows: int, max_bad_share: float) -> str | None:
    if len(bad) <= max_bad_share * rows:
        return None
    reasons = Counter(row.reason.partition(":")[0] for row in bad)
    counted = ", ".join(f"{count:,} × {reason}" for reason, count in reasons.most_common(3))
    return (
        f"{len(bad):,} of {rows:,} rows are bad ({counted}), "
        f"more than data.max_bad_share={max_bad_share:g} allows"
    )


@contextmanager
def _copy(delivery: Delivery) -> Iterator[BinaryIO]:
    """The content of a delivery in a file without a name, which nobody can change any more.

    Raises:
        UnfinishedError: the content is no longer what the delivery's digest is of.
    """
    with tempfile.TemporaryFile() as copy:
        if isinstance(delivery.content, Part):
            blocks = map(_as_json, delivery.content.lines())
            found = _digest(_written(blocks, copy, end=b"\n"))
        else:
            with opened(delivery.content) as content:
                found = _digest(_written(_blocks(content), copy))
        if found != delivery.digest:
            raise UnfinishedError("it changed while it was read")
        yield copy


def _written(blocks: Iterator[bytes], copy: BinaryIO, end: bytes = b"") -> Iterator[bytes]:
    """The blocks, each of which is written, with an end, before the next one is asked for."""
    for block in blocks:
        copy.write(block + end)
        yield block


def _blocks(content: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: content.read(BLOCK_BYTES), b"")


def _digest(blocks: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for block in blocks:
        whole.update(block)
    return whole.hexdigest()


def _part(source: str) -> Part:
    """Built-in rows, or those of a data set of the hub, which leaves nothing in a cache of `datasets`."""
    if source.startswith("sample://"):
        [part] = parts(source)
        return part
    return hub_part(source, load_hub(source, cached=False))


def _as_json(line: Line) -> bytes:
    return json.dumps(line.row, sort_keys=True, default=str).encode()


def _rows(content: BinaryIO, delivery: Delivery) -> Iterator[Line]:
    """The rows; a line that is no JSON spoils itself alone, unless it is a last line without an end."""
    kind = suffix(delivery.content) if isinstance(delivery.content, Path) else ".jsonl"
    size = content.seek(0, os.SEEK_END)
    if size == 0 and ".json" not in kind:
        raise UnfinishedError("it is empty")
    if kind == ".csv":
        content.seek(-min(size, 2), os.SEEK_END)
        if not content.read().rstrip(b"\0").endswith(b"\n"):  # in UTF-16 a zero may follow
            raise UnfinishedError("its last line does not end")  # a response may well be cut there
    try:
        for line in lines_of(content, delivery.name, kind):
            if isinstance(line.row, bytes) and not line.row.endswith(b"\n"):
                raise UnfinishedError("its last line is cut off")
            yield line
    except PairsError as error:
        raise UnfinishedError(f"it cannot be read to its end: {error}") from error
