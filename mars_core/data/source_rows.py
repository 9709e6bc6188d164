"""Rows of a source as its author wrote them: files, folders, data sets of the hub, the built-in pairs.

A row is a dictionary. No column is given a type, so that a text which looks like a date, or an id 007, stays
what it is; rows come one after the other, so that a file need not fit into memory.
"""

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pyarrow
import pyarrow.parquet
from datasets import Dataset

from mars_core.data import samples
from mars_core.errors import MarsError

datasets.disable_progress_bars()

Row = dict[str, Any]

LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class PairsError(MarsError, ValueError):
    """The data cannot be used as they are; the message names file, row and field."""


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
        source: sample://preferences, a file of a kind in `READERS`, a folder of such files, or a hub data set
            NAME[/DIRECTORY]@REVISION[:SPLIT]. In a folder .json files count where there are no others.

    Raises:
        PairsError: the source is not there, or the hub does not give it.
    """
    if source == "sample://preferences":
        return [Part(source, lambda: numbered(samples.preferences()))]
    if source.startswith("sample://"):
        raise PairsError(f"{source}: the built-in pairs are sample://preferences")
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
        raise PairsError(f"{source}: no such file or folder")
    else:
        table = load_hub(source)
        return [Part(source, lambda: numbered(table))]
    return [Part(str(file), lambda file=file: lines(file)) for file in files]  # type: ignore[misc]


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
            if content.read(len(LFS_POINTER)) == LFS_POINTER:
                raise PairsError(f"{file}: a pointer of Git LFS and not the data: fetch them by git lfs pull")
        yield from READERS[suffix(file)](file)
    except UnicodeError as error:
        raise PairsError(f"{file}: not UTF-8, in which it has to be saved: {error}") from error
    except (OSError, EOFError, zlib.error, csv.Error, pyarrow.ArrowException) as error:
        raise PairsError(f"{file}: {error}") from error


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


def load_hub(source: str, default_split: str = "train") -> Dataset:
    """Load NAME[/DIRECTORY]@REVISION[:SPLIT] from the hub; no dataset code is executed.

    Raises:
        PairsError: the source names no revision, or cannot be loaded.
    """
    location, _, pinned = source.partition("@")
    revision, _, split = pinned.partition(":")
    if not location or not revision:
        raise PairsError(
            f"{source}: no such file or folder; a hub dataset is named with its revision, "
            "NAME[/DIRECTORY]@REVISION[:SPLIT], such as Anthropic/hh-rlhf@main"
        )
    owner, *rest = location.split("/")
    name, directory = "/".join([owner, *rest[:1]]), "/".join(rest[1:])
    try:
        return datasets.load_dataset(
            name, data_dir=directory or None, revision=revision, split=split or default_split
        )
    except Exception as error:  # the hub client raises many kinds; all mean the same to the reader
        raise PairsError(f"{source}: cannot be loaded from the hub: {error}") from error


def suffix(path: Path) -> str:
    """The end of a file's name that says how it is read: `READERS` has those that are."""
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def _json(file: Path) -> Iterator[Line]:
    """The rows of one array, or a row a line, whatever the file is called."""
    with _opened(file) as content:
        start = content.read(4096)
        if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            try:
                rows = json.loads((start + content.read()).decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                if ".jsonl" not in suffix(file):
                    raise PairsError(f"{file}: no JSON: {error}") from error
            else:
                yield from (Line(number, row, _fault(row)) for number, row in enumerate(rows, start=1))
                return
    with _opened(file) as content:
        for number, line in enumerate(content, start=1):
            if not line.strip():
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


def _opened(file: Path) -> Any:
    return gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")


def _parquet(file: Path) -> Iterator[Line]:
    with pyarrow.parquet.ParquetFile(file) as table:
        yield from numbered(row for batch in table.iter_batches(1024) for row in batch.to_pylist())


def _csv(file: Path) -> Iterator[Line]:
    """The rows of a CSV, all of them text; the header says what separates its columns: , ; or a tab."""
    csv.field_size_limit(sys.maxsize)
    with file.open("rb") as content:
        encoding = "utf-16" if content.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with file.open(encoding=encoding, newline="") as text:
        separator = max(",;\t", key=text.readline().count)
        text.seek(0)
        rows = csv.reader(text, delimiter=separator, strict=True)
        columns = [name.strip() for name in next(rows, [])]
        try:
            for number, fields in enumerate(rows, start=1):
                if len(fields) not in (0, len(columns)):
                    raise PairsError(
                        f"{file}: row {number} has {len(fields)} columns and the header {len(columns)}: "
                        'a text that holds a separator, a quote or a line end belongs in "quotes"'
                    )
                if fields:
                    yield Line(number, dict(zip(columns, fields, strict=True)), "")
        except csv.Error as error:
            raise PairsError(f"{file}: the row that ends in line {rows.line_num}: {error}") from error


READERS: dict[str, Callable[[Path], Iterator[Line]]] = {
    **dict.fromkeys((".jsonl", ".jsonl.gz", ".json", ".json.gz"), _json), ".parquet": _parquet, ".csv": _csv
}  # fmt: skip
"""How a file is read, by the end of its name."""
