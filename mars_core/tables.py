"""Tables on disk: one Parquet file, or above a size a folder of parts, written and read a batch at a time.

    write(folder / "train.parquet", batches)
    for batch in Table(folder / "train.parquet").batches("prompt", "chosen"):
        ...

A folder holds its parts and `MANIFEST`, which names them in order with the rows and the sha256 of each. The
digest of a table is one of its content: the same for a file and for a folder, and however rows are divided
into parts, row groups and batches.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from datasets import Dataset
from numpy.typing import NDArray

from mars_core.errors import MarsError
from mars_core.files import digest, sha256_of, sync

PART_BYTES = 256 * 2**20
"""A file of a table ends with the row group that reaches this size."""
GROUP_ROWS, GROUP_BYTES = 65_536, 16 * 2**20
"""A row group ends with the batch that reaches one of these; the bytes are those in memory."""
BATCH_ROWS = 8_192
MANIFEST = "_parts.json"
"""Readers of Parquet folders pass over names that begin with an underscore."""

Rows: TypeAlias = "pd.DataFrame | Dataset | pa.Table | Iterable[pa.RecordBatch]"
"""What can be written as a table; at least one batch, which may be empty."""


class TableError(MarsError, RuntimeError):
    """A table is not what was written; the message names the file."""

    def __init__(self, file: Path, why: str) -> None:
        """Of a file, which may be a part of the table."""
        super().__init__(f"{file} {why}")
        self.file = file


class Part(NamedTuple):
    """A file of a table in parts."""

    name: str
    rows: int
    sha256: str


class Table:
    """A table on disk, of which nothing is held in memory."""

    def __init__(self, path: Path) -> None:
        """Find the files of a table.

        Raises:
            TableError: there is no such table, or the folder holds no list of its parts.
        """
        self.path = path
        self.parts: list[Part] = []
        """Of a folder; a table of one file has none."""
        self.files = [path]
        """In the order of the rows."""
        if path.is_dir():
            manifest = self._manifest()
            self.parts = [Part(**part) for part in manifest["parts"]]
            self.files = [path / part.name for part in self.parts]
        for file in self.files:
            if not file.exists():
                raise TableError(file, "is missing")

    def __len__(self) -> int:
        """The number of rows."""
        return sum(self._of_each(lambda file: int(file.metadata.num_rows)))

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        names: list[str] = self.schema.names
        return names

    @property
    def schema(self) -> pa.Schema:
        """The names and types of the columns."""
        schema: pa.Schema = pyarrow.parquet.read_schema(self.files[0])
        return schema.remove_metadata()

    def batches(self, *columns: str) -> Iterator[pa.RecordBatch]:
        """The rows in order, some at a time; by default all columns."""
        for path in self.files:
            with pyarrow.parquet.ParquetFile(path) as file:
                for group in range(file.num_row_groups):  # one by one: a reader keeps all that it has read
                    yield from file.iter_batches(BATCH_ROWS, [group], list(columns) or None)

    def read(self, *columns: str) -> pa.Table:
        """All rows, in memory; by default all columns."""
        names = list(columns) or self.columns
        return pa.Table.from_batches(self.batches(*names), self._schema_of(names))

    def numbers(self, column: str) -> NDArray[Any]:
        """A column of numbers, [n], in memory."""
        found: NDArray[Any] = self.read(column)[column].to_numpy()
        return found

    def texts(self, column: str) -> Iterator[str]:
        """The values of a column of texts in order, one after the other."""
        for batch in self.batches(column):
            yield from batch[0].to_pylist()

    def select(self, rows: Sequence[int] | NDArray[np.intp], *columns: str) -> Dataset:
        """Some rows by their numbers from 0, in this order, in memory; row groups without them are not read.

        By default all columns.
        """
        wanted = np.asarray(rows, dtype=np.intp)
        order = np.argsort(wanted, kind="stable")
        ascending, found, start = wanted[order], list[pa.Table](), 0
        names = list(columns) or self.columns
        for path in self.files:
            with pyarrow.parquet.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    end = start + file.metadata.row_group(group).num_rows
                    first, last = np.searchsorted(ascending, [start, end])
                    if first < last:
                        of_group = file.read_row_group(group, columns=names).replace_schema_metadata()
                        found.append(of_group.take(ascending[first:last] - start))
                    start = end
        table = pa.concat_tables(found) if found else self._schema_of(names).empty_table()
        return Dataset(table.take(np.argsort(order, kind="stable")))

    def between(self, first: int, end: int, *columns: str) -> Iterator[pa.RecordBatch]:
        """The rows from number `first` up to `end`, some at a time; row groups without them are not read.

        By default all columns.
        """
        names, start = list(columns) or self.columns, 0
        for path in self.files:
            with pyarrow.parquet.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    rows = file.metadata.row_group(group).num_rows
                    if start < end and start + rows > first:
                        for batch in file.iter_batches(BATCH_ROWS, [group], names):
                            skipped = max(0, first - start)
                            wanted = batch.slice(skipped, max(0, min(end - start, len(batch)) - skipped))
                            start += len(batch)
                            if len(wanted):
                                yield wanted
                    else:
                        start += rows

    def where(self, column: str, values: Collection[str], *columns: str) -> pa.Table:
        """The rows that have one of some values in a column, in memory; by default with all columns."""
        names = list(columns) or self.columns
        wanted = pa.array(list(values), self.schema.field(column).type)
        found = (batch.filter(pc.is_in(batch[column], wanted)) for batch in self.batches(*names))
        return pa.Table.from_batches(found, self._schema_of(names))

    def digest(self) -> str:
        """The digest of the content.

        Of a folder, each part is checked against its own.

        Raises:
            TableError: a file was changed so that it cannot be read, or is not the part that was written.
        """
        for part in self.parts:
            if sha256_of(self.path / part.name) != part.sha256:
                raise TableError(self.path / part.name, "was changed since it was written")
        if self.parts:
            manifest = self._manifest()
            if manifest["of_the_list"] != _list_digest(manifest["digest"], self.parts):
                raise TableError(self.path / MANIFEST, "was changed since it was written")
            return str(manifest["digest"])
        content = ContentDigest()
        try:
            content.columns(self.schema)
            for batch in self.batches():
                content.update(batch)
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, OSError) and error.errno:  # of the system; a damaged file has no number
                raise
            raise TableError(self.path, f"was changed since it was written: {error}") from error
        return content.hexdigest()

    def _manifest(self) -> Any:
        try:
            manifest = json.loads((self.path / MANIFEST).read_text())
            if not {"digest", "parts", "of_the_list"} <= set(manifest):
                raise ValueError(f"it holds {', '.join(manifest)}")
            return manifest
        except (OSError, TypeError, ValueError) as error:
            raise TableError(self.path / MANIFEST, f"does not list the table's parts: {error}") from error

    def _of_each(self, ask: Callable[[pyarrow.parquet.ParquetFile], int]) -> Iterator[int]:
        for path in self.files:
            with pyarrow.parquet.ParquetFile(path) as file:
                yield ask(file)

    def _schema_of(self, columns: Sequence[str]) -> pa.Schema:
        schema = self.schema
        return pa.schema([schema.field(name) for name in columns])


def write(path: Path, rows: Rows, part_bytes: float | None = None) -> tuple[int, str]:
    """Write a table to a place where there is nothing; returns its number of rows and its digest.

    `part_bytes` is as of `Writer`.
    """
    with Writer(path, part_bytes) as writer:
        for batch in batches_of(rows):
            writer.write(batch)
    return writer.rows, writer.digest


def batches_of(rows: Rows) -> Iterator[pa.RecordBatch]:
    """The batches of a table in memory, at least one; of batches, these."""
    if isinstance(rows, pd.DataFrame):
        rows = pa.Table.from_pandas(rows, preserve_index=False)
    if isinstance(rows, Dataset):
        empty = rows.features.arrow_schema.empty_table()
        rows = (batch for some in _some(rows, empty) for batch in batches_of(some))
    if isinstance(rows, pa.Table):
        found = rows.to_batches(BATCH_ROWS)
        yield from found or [pa.RecordBatch.from_pylist([], schema=rows.schema)]
    else:
        yield from rows


def _some(rows: Dataset, empty: pa.Table) -> Iterator[pa.Table]:
    for some in rows.with_format("arrow").iter(BATCH_ROWS) if len(rows) else [empty]:
        yield some.combine_chunks()


class Writer:
    """Writes the batches of a table; the file becomes a folder of parts once it has reached `PART_BYTES`.

    As a context manager it completes the table at the end of the `with` block.
    """

    def __init__(self, path: Path, part_bytes: float | None = None) -> None:
        """Write to a place where there is nothing; a part ends at `part_bytes`, by default `PART_BYTES`."""
        self.path = path
        self._part_bytes = PART_BYTES if part_bytes is None else part_bytes
        self._aside = path.with_name(f"{path.name}.first")
        self._aside.unlink(missing_ok=True)  # of a writer that was killed
        self.rows = 0
        self.digest = ""
        """Of the content, once it is complete."""
        self._content = ContentDigest()
        self._waiting: list[pa.RecordBatch] = []
        self._parts: list[Part] = []
        self._writer: pyarrow.parquet.ParquetWriter | None = None
        self._written = 0
        """Rows in the open file."""

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        elif self._writer:
            self._writer.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; all batches have the same columns."""
        if not self._content.names:
            self._content.columns(batch.schema)
        self._content.update(batch)
        self._waiting.append(batch)
        self.rows += len(batch)
        if sum(map(len, self._waiting)) >= GROUP_ROWS or sum(b.nbytes for b in self._waiting) >= GROUP_BYTES:
            self._write_group()

    def close(self) -> None:
        """Write what waits, and complete the table."""
        if self._waiting:
            self._write_group()
        self.digest = self._content.hexdigest()
        if not self._parts:
            self._end_file()
            return
        if self._writer:
            self._end_part()
        manifest = {
            "digest": self.digest,
            "parts": [part._asdict() for part in self._parts],
            "of_the_list": _list_digest(self.digest, self._parts),
        }
        (self.path / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")

    def _write_group(self) -> None:
        group, self._waiting = pa.Table.from_batches(self._waiting).replace_schema_metadata(), []
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._file, group.schema)
        self._writer.write_table(group, row_group_size=max(1, len(group)))
        self._written += len(group)
        if self._file.stat().st_size >= self._part_bytes:
            self._end_part()

    @property
    def _file(self) -> Path:
        """The file that is open, or the next one: the first part stands in the place of the whole table."""
        return self.path / _name(len(self._parts)) if self.path.is_dir() else self.path

    def _end_part(self) -> None:
        self._end_file()
        if self.path.is_file():
            self.path.rename(self._aside)
            self.path.mkdir()
            self._aside.rename(self.path / _name(0))
        name = _name(len(self._parts))
        sync(self.path / name)
        self._parts.append(Part(name, self._written, sha256_of(self.path / name)))
        self._written = 0

    def _end_file(self) -> None:
        if self._writer is None:
            raise ValueError(f"{self.path}: a table has at least one batch, if one without rows")
        self._writer.close()
        self._writer = None


def _list_digest(content: str, parts: Sequence[Part]) -> str:
    """A digest of a table's parts in their order, and of its content's digest."""
    return digest(content, [part._asdict() for part in parts])


def _name(number: int) -> str:
    return f"part-{number:05d}.parquet"


class ContentDigest:
    """sha256 over the names, types and values of a table's columns, a batch after the other."""

    def __init__(self) -> None:
        """Of no columns yet."""
        self.names: dict[str, str] = {}
        """Column → type; texts are of one type, whatever the width of their offsets."""
        self._streams: defaultdict[str, Any] = defaultdict(hashlib.sha256)
        self._rows = 0

    def columns(self, schema: pa.Schema) -> None:
        """Begin, with these columns."""
        self.names = {field.name: _kind(field.type) for field in schema}

    def update(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self._rows += len(batch)
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            self._add(name, column)

    def hexdigest(self) -> str:
        """The digest of the rows so far."""
        streams = {name: stream.hexdigest() for name, stream in self._streams.items() if self._rows}
        return digest(list(self.names.items()), self._rows, streams)

    def _add(self, name: str, values: pa.Array) -> None:
        """Add values to the streams of their kind: which are there, lengths, and bytes."""
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        kind = values.type
        self._streams[f"{name} valid"].update(_bytes(values.is_valid().cast(pa.uint8())))
        if pa.types.is_string(kind) or pa.types.is_binary(kind):
            values = values.cast(pa.large_string() if pa.types.is_string(kind) else pa.large_binary())
        if pa.types.is_large_string(values.type) or pa.types.is_large_binary(values.type):
            values = values.fill_null("" if pa.types.is_large_string(values.type) else b"")
            _, offsets, text = values.buffers()
            ends = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
            self._streams[f"{name} lengths"].update(np.diff(ends).tobytes())
            if text and len(ends):
                self._streams[f"{name} bytes"].update(memoryview(text)[ends[0] : ends[-1]])
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            self._streams[f"{name} lengths"].update(
                _bytes(pc.list_value_length(values).fill_null(0).cast(pa.int64()))
            )
            self._add(f"{name} values", values.flatten())
        elif pa.types.is_struct(kind):
            for field, column in zip(kind, values.flatten(), strict=True):
                self._add(f"{name} {field.name}", column)
        elif pa.types.is_boolean(kind):
            self._streams[f"{name} bytes"].update(_bytes(values.fill_null(False).cast(pa.uint8())))
        elif not pa.types.is_null(kind):
            self._streams[f"{name} bytes"].update(_bytes(values.fill_null(0)))


def _kind(kind: pa.DataType) -> str:
    """A type, without the width of its offsets and the names of a list's values."""
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list<{_kind(kind.value_type)}>"
    return str(kind).removeprefix("large_")


def _bytes(values: pa.Array) -> bytes:
    found: bytes = values.to_numpy(zero_copy_only=False).tobytes()
    return found
