"""Rows of a source as its author wrote them: files, folders, data sets of the hub, the built-in pairs.

A row is a dictionary. No column is given a type, so that a text which looks like a date, or an id 007, stays
what it is; rows come one after the other, so that a file need not fit into memory. Of Parquet and the hub,
columns of texts and numbers are read, and what metadata say of them is ignored: nothing is decoded or
fetched.
"""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, NamedTuple

import datasets
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from datasets import Dataset
from pydantic import Field

from mars_core.config import Configuration
from mars_core.data import samples
from mars_core.data.remote import RemoteFile, files_at, is_remote
from mars_core.errors import MarsError

datasets.disable_progress_bars()

Row = dict[str, Any]

ROWS_AT_ONCE = 1024
READ_BYTES = 1 << 18

MEDIA = ("image", "images", "video", "videos", "audio", "audios")
"""Columns of what the texts may be about; where one is filled, the texts alone are not what was judged."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class PairsError(MarsError, ValueError):
    """The data cannot be used as they are; the message names file, row and field."""


class LimitError(MarsError, RuntimeError):
    """A file holds more than it may; the message names the limit's key."""


class Limits(Configuration):
    """What one delivery may hold and its reading may take; with more it is quarantined."""

    bytes: int = Field(2**31, ge=1)
    """Size of the file once it is decompressed, and of the texts of its pairs."""
    rows: int = Field(1_000_000, ge=1)
    """Number of its rows, and of its pairs."""
    row_bytes: int = Field(2**24, ge=1)
    """Size of a row of JSON lines, or of a field of a CSV; a longer row of JSON lines is a bad one."""
    characters: int = Field(200_000, ge=1)
    """Length of a pair's texts together; a pair with more makes its row a bad one."""
    memory_bytes: int = Field(2**31, ge=1)
    """Memory that its reading may take."""
    seconds: float = Field(600, gt=0)
    """How long its reading may take."""


class Line(NamedTuple):
    """A row with its place in its file."""

    number: int
    """From 1; of a file of JSON lines, that of the line."""
    row: Any
    """The row; what is no JSON as bytes."""
    problem: str
    """Why it is no row; empty if it is one."""


class Part(NamedTuple):
    """A file of a source, or a whole one."""

    name: str
    """What messages call it."""
    lines: Callable[[], Iterator[Line]]
    """Reads its rows from the start."""


def parts(source: str) -> list[Part]:
    """The parts of a source: one a file, or one for built-in data or a split of the hub.

    Args:
        source: sample://preferences, a file of a kind in `READERS`, a folder of such files, an address of
            these, or a hub data set OWNER/NAME[/DIRECTORY]@REVISION[:SPLIT]. In a folder .json files count
            where there are no others.

    Raises:
        PairsError: the source is not there, or the hub does not give it.
        RemoteError: nothing is at the address, or it may not be read.
    """
    if source == "sample://preferences":
        return [Part(source, lambda: numbered(samples.preferences()))]
    if source.startswith("sample://"):
        raise PairsError(f"{source}: the built-in pairs are sample://preferences")
    if is_remote(source):
        return [Part(file.address, partial(_lines_at, file)) for file in files_at(source, tuple(READERS))]
    path = Path(source).expanduser()
    if path.is_dir():
        files = files_in(path)
        if not files:
            raise PairsError(f"{source}: no {', '.join(READERS)} file in this folder")
    elif path.exists():
        if suffix(path) not in READERS:
            raise PairsError(f"{source}: not a {', '.join(READERS)} file")
        files = [path]
    elif suffix(path) in READERS or source.startswith((".", "/", "~")):
        if "*" in source:
            raise PairsError(f"{source}: a pattern is part of an address: file://{path.absolute()}")
        where = "" if path.is_absolute() else f" in {Path.cwd()}, where the command was started"
        raise PairsError(f"{source}: no such file or folder{where}")
    else:
        return [hub_part(source, load_hub(source))]
    return [Part(str(file), lambda file=file: lines(file)) for file in files]  # type: ignore[misc]


def hub_part(source: str, table: Dataset) -> Part:
    """A data set of the hub as a source."""

    def batches() -> Iterator[pyarrow.RecordBatch]:
        for some in table.with_format("arrow").iter(ROWS_AT_ONCE):
            yield from some.to_batches()

    return Part(source, lambda: numbered(_plain_rows(batches())))


def files_in(folder: Path) -> list[Path]:
    """The files of pairs in a folder, by name; .json ones, which may be about the data, if there are no
    others."""
    files = sorted(file for file in folder.iterdir() if suffix(file) in READERS)
    others = [file for file in files if not suffix(file).startswith(".json") or ".jsonl" in suffix(file)]
    return others or files


def numbered(rows: Any) -> Iterator[Line]:
    """Rows that are known to be some, numbered from 1."""
    return (Line(number, row, "") for number, row in enumerate(rows, start=1))


def lines(file: Path) -> Iterator[Line]:
    """The rows of a file of one of the kinds in `READERS`.

    Raises:
        PairsError: it does not read to its end; names the file and, in a CSV, the row.
    """
    try:
        with file.open("rb") as content:
            yield from lines_of(content, str(file), suffix(file), None)
    except OSError as error:
        raise PairsError(f"{file}: {error}") from error


def _lines_at(file: RemoteFile) -> Iterator[Line]:
    with file.open() as content:
        yield from lines_of(content, file.address, suffix(Path(file.path)), None)


def lines_of(content: BinaryIO, name: str, kind: str, limits: Limits | None) -> Iterator[Line]:
    """The rows of an open file of a kind in `READERS`, from its start.

    Args:
        content: the file.
        name: what messages call it.
        kind: how it is read.
        limits: how much of it is read; all of a trusted one.

    Raises:
        PairsError: as of `lines`.
        LimitError: it holds more.
    """
    try:
        content.seek(0)
        if content.read(len(LFS_POINTER)) == LFS_POINTER:
            raise PairsError(f"{name}: a pointer of Git LFS and not the data: fetch them by git lfs pull")
        yield from READERS[kind](content, name, kind, limits)
    except UnicodeError as error:
        raise PairsError(f"{name}: not UTF-8, in which it has to be saved: {error}") from error
    except (OSError, EOFError, zlib.error, csv.Error, pyarrow.ArrowException) as error:
        raise PairsError(f"{name}: {error}") from error


def load_file(path: Path) -> Dataset:
    """A file of one of the kinds in `READERS` as one table.

    Raises:
        PairsError: it cannot be read, a line is no row, there are no rows, or a column holds values of
            several kinds.
    """
    rows = []
    for line in lines(path):
        if line.problem:
            raise PairsError(f"{path}: line {line.number}: {line.problem}")
        rows.append(line.row)
    if not rows:
        raise PairsError(f"{path}: no rows")
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        return Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
    except pyarrow.ArrowException as error:
        raise PairsError(f"{path}: a column holds values of several kinds: {error}") from error


def load_hub(source: str, default_split: str = "train", *, cached: bool = True) -> Dataset:
    """Load OWNER/NAME[/DIRECTORY]@REVISION[:SPLIT] from the hub; no dataset code is executed.

    Args:
        source: the data set. A folder of its name is never read in its place.
        default_split: the split, where the source names none.
        cached: whether the rows stay in the cache of `datasets`, for the next time.

    Raises:
        PairsError: the source names no revision, a folder has the data set's name, or it cannot be loaded.
    """
    location, _, pinned = source.partition("@")
    revision, _, split = pinned.partition(":")
    if "/" not in location or not revision:
        raise PairsError(
            f"{source}: no such file or folder; a hub dataset is named with its revision, "
            "OWNER/NAME[/DIRECTORY]@REVISION[:SPLIT], such as Anthropic/hh-rlhf@main"
        )
    owner, name, *directory = location.split("/")
    if Path(owner, name).exists():
        raise PairsError(
            f"{source}: a data set of the hub, but there is a folder {owner}/{name} here, which `datasets` "
            f"would read in its place: rename it, or name it as ./{owner}/{name}"
        )
    try:
        with TemporaryDirectory(prefix="mars-hub-") as passing:  # what is mapped outlives its name
            return datasets.load_dataset(
                f"{owner}/{name}",
                data_dir="/".join(directory) or None,
                revision=revision,
                split=split or default_split,
                **({} if cached else {"cache_dir": passing}),
            )
    except Exception as error:  # the hub client raises many kinds; all mean the same to the reader
        raise PairsError(f"{source}: cannot be loaded from the hub: {error}") from error


def suffix(path: Path) -> str:
    """The end of a file's name that says how it is read: `READERS` has those that are."""
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def _json(content: BinaryIO, name: str, kind: str, limits: Limits | None) -> Iterator[Line]:
    """The rows of one array, or a row a line, whatever the file is called."""
    text = _unpacked(content, kind, limits)
    start = text.read(4096)
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        try:
            rows = json.loads((start + text.read()).decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            if ".jsonl" not in kind:
                raise PairsError(f"{name}: no JSON: {error}") from error
        else:
            yield from (Line(number, row, _fault(row)) for number, row in enumerate(rows, start=1))
            return
    yield from json_lines(_unpacked(content, kind, limits), limits.row_bytes if limits else sys.maxsize)


def json_lines(text: BinaryIO, longest: int = sys.maxsize) -> Iterator[Line]:
    """The rows of JSON lines, read as they come; of a longer line than `longest` it says that it is one."""
    for number, line in enumerate(iter(partial(text.readline, longest), b""), start=1):
        if not line.strip():
            continue
        if len(line) == longest and not line.endswith(b"\n"):
            shown, rest = line.decode(errors="replace"), line
            while rest and not rest.endswith(b"\n"):
                rest = text.readline(longest)
            yield Line(number, shown, f"longer than data.limits.row_bytes={longest:,}")
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            yield Line(number, line, "not UTF-8")
        except (ValueError, RecursionError):
            yield Line(number, line, "no JSON")
        else:
            yield Line(number, row, _fault(row))


def _fault(row: Any) -> str:
    return "" if isinstance(row, dict) else "no object with columns"


def _unpacked(content: BinaryIO, kind: str, limits: Limits | None) -> BinaryIO:
    """The content from its start, decompressed where its kind says that it is compressed.

    What is returned may be closed without closing the content.
    """
    content.seek(0)
    stream = gzip.GzipFile(fileobj=content) if kind.endswith(".gz") else content
    return io.BufferedReader(_Bounded(stream, limits.bytes if limits else sys.maxsize), READ_BYTES)


class _Bounded(io.RawIOBase):
    """A stream of which no more than so many bytes can be read."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream, self._most, self._read = stream, most, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._stream.readinto(buffer)
        self._read += count
        if self._read > self._most:
            raise LimitError(f"it holds more than data.limits.bytes={self._most:,}")
        return count


def _parquet(content: BinaryIO, name: str, kind: str, limits: Limits | None) -> Iterator[Line]:
    def batches() -> Iterator[pyarrow.RecordBatch]:
        size = 0
        for batch in table.iter_batches(ROWS_AT_ONCE):
            size += batch.nbytes
            if limits and size > limits.bytes:
                raise LimitError(f"it holds more than data.limits.bytes={limits.bytes:,}")
            yield batch

    with pyarrow.parquet.ParquetFile(content) as table:
        yield from numbered(_plain_rows(batches()))


def _plain_rows(batches: Iterable[pyarrow.RecordBatch]) -> Iterator[Row]:
    """The rows of Arrow batches: their texts, numbers and truth values, and lists and groups of these."""
    for batch in batches:
        columns = {
            name: values.to_pylist()
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
            if (values := _plain(name, column)) is not None
        }
        for row in range(batch.num_rows):
            yield {name: values[row] for name, values in columns.items()}


def _plain(name: str, column: pyarrow.Array) -> pyarrow.Array | None:
    """A column as it is read: dates, which may be too far for Python, as text; of media how many there are.

    None for other bytes, which are no texts.
    """
    if isinstance(column, pyarrow.ExtensionArray):
        column = column.storage
    if _is_plain(column.type):
        return column
    if pyarrow.types.is_temporal(column.type) or pyarrow.types.is_decimal(column.type):
        return column.cast(pyarrow.string())
    if name not in MEDIA:
        return None
    is_list = pyarrow.types.is_list(column.type) or pyarrow.types.is_large_list(column.type)
    return pyarrow.compute.list_value_length(column) if is_list else column.is_valid()


def _is_plain(kind: pyarrow.DataType) -> bool:
    types = pyarrow.types
    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    if types.is_nested(kind):
        return all(_is_plain(kind.field(place).type) for place in range(kind.num_fields))
    return any(
        is_one(kind)
        for is_one in (
            types.is_string, types.is_large_string, types.is_string_view, types.is_boolean, types.is_integer,
            types.is_floating, types.is_null,
        )
    )  # fmt: skip


def _csv(content: BinaryIO, name: str, kind: str, limits: Limits | None) -> Iterator[Line]:
    """The rows of a CSV, all of them text; the header says what separates its columns: , ; or a tab."""
    longest = limits.row_bytes if limits else sys.maxsize
    csv.field_size_limit(longest)
    content.seek(0)
    encoding = "utf-16" if content.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"

    def text() -> io.TextIOWrapper:
        return io.TextIOWrapper(_unpacked(content, kind, limits), encoding=encoding, newline="")

    separator = max(",;\t", key=text().readline(longest).count)
    rows = csv.reader(text(), delimiter=separator, strict=True)
    columns = [name.strip() for name in next(rows, [])]
    try:
        for number, fields in enumerate(rows, start=1):
            if len(fields) not in (0, len(columns)):
                raise PairsError(
                    f"{name}: row {number} has {len(fields)} columns and the header {len(columns)}: "
                    'a text that holds a separator, a quote or a line end belongs in "quotes"'
                )
            if fields:
                yield Line(number, dict(zip(columns, fields, strict=True)), "")
    except csv.Error as error:
        raise PairsError(f"{name}: the row that ends in line {rows.line_num}: {error}") from error


Reader = Callable[[BinaryIO, str, str, Limits | None], Iterator[Line]]
"""Reads the rows of an open file: its name for messages, its kind, and its limits, where it has some."""

READERS: dict[str, Reader] = {
    **dict.fromkeys((".jsonl", ".jsonl.gz", ".json", ".json.gz"), _json), ".parquet": _parquet, ".csv": _csv
}  # fmt: skip
"""How a file is read, by its kind, which is the end of its name."""
