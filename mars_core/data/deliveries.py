"""New preference pairs: which deliveries were not seen before, and which of their rows are accepted.

A file is a delivery, known by the digest of its content: one that is delivered again, under whatever name,
is no new one. A pair is known by what its texts mean (`mars_core.data.identity`). A file that is still being
written, or that does not read to its end, is left for the next look. A bad row is quarantined with its number
and reason, and a delivery that holds too many of them is quarantined whole: who delivers a wrong schema,
exchanged labels or garbage should hear of it before a model is trained on the rest.

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
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, BinaryIO, NamedTuple

from datasets import Dataset
from pydantic import Field

from mars_core.data.first_reading import first_ids
from mars_core.data.formats.format import FORMATS, Format
from mars_core.data.identity import pair_identities
from mars_core.data.reading import Reading, as_table, readings, recognised, remark
from mars_core.data.source_rows import (
    READERS,
    LimitError,
    Limits,
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
from mars_core.files import RememberedDigests

BLOCK_BYTES = 1 << 20
DUPLICATE = "known"
KEPT_CHARACTERS = 2000
"""How much of a bad row is kept for a person to see."""
KEPT_ROWS = 1000
"""How many bad rows of a delivery are kept; the others are counted."""


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
    limits: Limits = Limits()
    """What one delivery may hold, and its reading may take."""


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
    """New pairs as `mars_core.data.reading` has them, each by its `pair_identity`, if any."""
    duplicates: int
    """Pairs that were known."""
    bad: list[BadRow]
    """The first `KEPT_ROWS` that are not accepted."""
    bad_rows: int
    """How many there are."""
    refusal: str | None
    """Why the delivery is quarantined whole, if it is."""
    remark: str = ""
    """How it was read."""
    left_out: Mapping[str, int] = MappingProxyType({})
    """Comparisons that make no pair, by reason."""


def new_deliveries(
    config: IntakeConfig, seen: Container[str], now: float, digests: RememberedDigests | None = None
) -> tuple[list[Delivery], dict[str, str]]:
    """Deliveries that were not seen, in the order of their names; and why others are left for the next look.

    Args:
        config: the source, and how long its files are left to settle.
        seen: digests of the deliveries that were looked at before.
        now: the time, in seconds since the epoch.
        digests: those that are remembered of files; by default all are computed.

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
        name = _shown(file)
        try:
            with opened(file) as content:
                # A clock that is ahead dates a file in the future; far ahead, that says nothing of the file.
                if abs(now - os.fstat(content.fileno()).st_mtime) < config.settle_seconds:
                    left[name] = f"it changed in the last {config.settle_seconds:g} seconds"
                    continue
                if os.fstat(content.fileno()).st_size > config.limits.bytes:
                    left[name] = f"it is larger than data.limits.bytes={config.limits.bytes:,}"
                    continue
                compute = partial(_digest, _blocks(content, config.limits.bytes))
                digest = digests.of_open(content, compute) if digests else compute()
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


def on_disk(delivery: Delivery, folder: Path) -> Delivery:
    """The delivery as a file: itself, or the rows of a data set in a new file of a folder."""
    if isinstance(delivery.content, Path):
        return delivery
    file = folder / "rows.jsonl"
    with file.open("wb") as rows:
        digest = _digest(_written((_as_json(line) + b"\n" for line in delivery.content.lines()), rows))
    return Delivery(delivery.name, digest, file)


def examine(
    delivery: Delivery,
    known: Collection[str],
    refused: Collection[str],
    max_bad_share: float,
    reads: Format | None = None,
    known_first: Collection[str] = (),
    limits: Limits | None = None,
) -> Intake:
    """Sort the rows of a delivery into new pairs, known ones and bad ones.

    Args:
        delivery: the file; see `on_disk`.
        known: ids, by `pair_identity`, of the pairs that were accepted before.
        refused: ids of the pairs that were accepted before, and then refused by the gate.
        max_bad_share: the share of bad rows up to which the good ones are accepted.
        reads: the format; by default the one that the columns say.
        known_first: ids of the pairs that were accepted by the first version of the reading.
        limits: how much it may hold; its memory and time are for the caller to limit.

    Raises:
        UnfinishedError: the file does not read to its end, holds nothing, or changed meanwhile.
        NoFileError, OSError: it is gone, or may not be read.
    """
    assert isinstance(delivery.content, Path)
    limits = limits or Limits()
    sorting = _Sorting(_Known(known, refused, known_first), limits)
    table: Dataset | None = None
    refusal: str | None = None
    read_as = ""
    with _copy(delivery.content, delivery.digest, limits.bytes) as content:
        counted = _Counted(_rows(content, delivery.name, suffix(delivery.content), limits), limits.rows)
        try:
            try:
                reader, rows = recognised(iter(counted), reads, delivery.name)
            except PairsError as error:
                refusal = str(error)
            else:
                table = as_table(sorting.accepted(readings(rows, reader, delivery.name)))
                read_as = remark(reader, counted.columns)
                refusal = sorting.refusal(counted.rows, max_bad_share)
            for _ in counted:  # to the end, where no format reads it
                pass
            if counted.rows == 0:
                raise UnfinishedError("it holds no rows")
        except LimitError as error:
            refusal = str(error)
    accepted = table if table is not None and len(table) and refusal is None else None
    return Intake(
        counted.rows, accepted, sorting.duplicates, sorting.kept, sorting.bad.total(), refusal, read_as,
        sorting.left_out,
    )  # fmt: skip


class _Known:
    """The pairs that are known, those that a delivery adds included."""

    def __init__(
        self, known: Collection[str], refused: Collection[str], known_first: Collection[str]
    ) -> None:
        self.known, self.refused, self.known_first = known, refused, known_first
        self.read_first = bool(known_first or refused)
        self.added = set[str]()

    def judge(self, pair: dict[str, Any], row: Any) -> str:
        """Give a new pair its id, or say why it is none: `DUPLICATE`, or what is wrong with it."""
        pair_id, exchanged = pair_identities(pair["prompt"], pair["chosen"], pair["rejected"])
        first, first_exchanged = first_ids(row) if self.read_first else ("", "")
        if pair_id in self.known or pair_id in self.added or first in self.known_first:
            return DUPLICATE
        if exchanged in self.known or exchanged in self.added or first_exchanged in self.known_first:
            return "contradicts a known pair, whose chosen and rejected are exchanged"
        if pair_id in self.refused or first in self.refused:
            return "came in an earlier delivery, which the gate refused"
        self.added.add(pair_id)
        pair["pair_id"] = pair_id
        return ""


class _Sorting:
    """The rows of a delivery as they are read: new pairs go on, all others are counted."""

    def __init__(self, known: _Known, limits: Limits) -> None:
        self._known, self._limits = known, limits
        self.duplicates = 0
        self.left_out, self.bad = Counter[str](), Counter[str]()
        self.kept: list[BadRow] = []

    def accepted(self, readings: Iterable[Reading]) -> Iterator[dict[str, Any]]:
        """The new pairs.

        Raises:
            LimitError: there are too many, or their texts are.
        """
        pairs = size = 0
        for reading in readings:
            self.left_out.update(reading.left_out)
            problem = reading.problem
            for pair in reading.pairs:
                judged = self._too_long(pair) or self._known.judge(pair, reading.line.row)
                if judged == DUPLICATE:
                    self.duplicates += 1
                elif judged:
                    problem = problem or judged
                else:
                    pairs, size = pairs + 1, size + _size(pair)
                    if pairs > self._limits.rows:
                        raise LimitError(f"it holds more pairs than data.limits.rows={self._limits.rows:,}")
                    if size > self._limits.bytes:
                        raise LimitError(f"its pairs hold more than data.limits.bytes={self._limits.bytes:,}")
                    yield pair
            if problem:
                self.bad[problem.partition(":")[0]] += 1
                if len(self.kept) < KEPT_ROWS:
                    self.kept.append(_bad(reading.line, problem))

    def refusal(self, rows: int, max_bad_share: float) -> str | None:
        """Why the delivery is quarantined whole, if it has too many bad rows."""
        bad = self.bad.total()
        if bad <= max_bad_share * rows:
            return None
        counted = ", ".join(f"{count:,} × {reason}" for reason, count in self.bad.most_common(3))
        return (
            f"{bad:,} of {rows:,} rows are bad ({counted}), "
            f"more than data.max_bad_share={max_bad_share:g} allows"
        )

    def _too_long(self, pair: Mapping[str, Any]) -> str:
        length, most = _size(pair), self._limits.characters
        return f"texts longer than data.limits.characters={most:,}: {length:,}" if length > most else ""


def _size(pair: Mapping[str, Any]) -> int:
    return sum(len(pair[name]) for name in ("prompt", "chosen", "rejected"))


class _Counted:
    """The rows of a delivery, once; what was seen so far of their number and columns."""

    def __init__(self, lines: Iterator[Line], most: int) -> None:
        self.rows, self.columns = 0, dict[str, None]()
        self._lines, self._most = lines, most

    def __iter__(self) -> Iterator[Line]:
        for line in self._lines:
            self.rows += 1
            if self.rows > self._most:
                raise LimitError(f"it holds more rows than data.limits.rows={self._most:,}")
            if not line.problem:
                self.columns.update(dict.fromkeys(line.row))
            yield line


def _bad(line: Line, reason: str) -> BadRow:
    row = line.row.decode(errors="replace").strip() if isinstance(line.row, bytes) else line.row
    shown = row if isinstance(row, str) else json.dumps(row, ensure_ascii=True, default=str)
    return BadRow(line.number, reason, shown[:KEPT_CHARACTERS])


@contextmanager
def _copy(file: Path, digest: str, most: int) -> Iterator[BinaryIO]:
    """The content of a file of at most so many bytes in one without a name, which nobody can change any more.

    Raises:
        UnfinishedError: it is no longer what the digest is of.
    """
    with tempfile.TemporaryFile() as copy:
        with opened(file) as content:
            found = _digest(_written(_blocks(content, most), copy))
        if found != digest:
            raise UnfinishedError("it changed while it was read")
        yield copy


def _shown(file: Path) -> str:
    """A file's name as text that ends no line of a log."""
    name = os.fsencode(file.name).decode(errors="replace")
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in name)


def _written(blocks: Iterable[bytes], copy: BinaryIO) -> Iterator[bytes]:
    """The blocks, each of which is written before the next one is asked for."""
    for block in blocks:
        copy.write(block)
        yield block


def _blocks(content: BinaryIO, most: int) -> Iterator[bytes]:
    """The first bytes of an open file, which may grow meanwhile."""
    while block := content.read(min(BLOCK_BYTES, most)):
        most -= len(block)
        yield block


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


def _rows(content: BinaryIO, name: str, kind: str, limits: Limits) -> Iterator[Line]:
    """The rows; a line that is no JSON spoils itself alone, unless it is a last line without an end."""
    size = content.seek(0, os.SEEK_END)
    if size == 0 and ".json" not in kind:
        raise UnfinishedError("it is empty")
    if kind == ".csv":
        content.seek(-min(size, 2), os.SEEK_END)
        if not content.read().rstrip(b"\0").endswith(b"\n"):  # in UTF-16 a zero may follow
            raise UnfinishedError("its last line does not end")  # a response may well be cut there
    try:
        for line in lines_of(content, name, kind, limits):
            if isinstance(line.row, bytes) and not line.row.endswith(b"\n"):
                raise UnfinishedError("its last line is cut off")
            yield line
    except PairsError as error:
        raise UnfinishedError(f"it cannot be read to its end: {error}") from error
