"""The rows of a benchmark in its publisher's own files: where each stands, and what it has to hold.

    for row in read_rows("RMB_dataset", "RMB"):
        uid = row.text("pair_uid")  # or an error: RMB_dataset/Pairwise_set/…/S6.json: row 3 has no field …

A source is a file, a folder with files anywhere inside, or data sets of the hub with their revisions. Files
are arrays of JSON, lines of JSON (both also gzipped) and Parquet.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import huggingface_hub
import pyarrow
import pyarrow.parquet
from datasets import Dataset

from mars_core.data import dialogue
from mars_core.data.source_rows import lines
from mars_core.errors import MarsError

ENDINGS = (".json", ".json.gz", ".jsonl", ".jsonl.gz", ".parquet")
"""What the names of files end in that can be read."""


class BenchmarkError(MarsError, ValueError):
    """The benchmark cannot be read; the message names its source, and the row, field or column."""


class Row(NamedTuple):
    """One row as its publisher wrote it."""

    file: str
    """Its file as the source names it; below a folder or a data set with the path inside of that."""
    number: int
    """Its place in the file: the line of a .jsonl file, else the row, from 1."""
    values: Mapping[str, Any]

    @property
    def place(self) -> str:
        """What messages call it."""
        return f"{self.file}: row {self.number}"

    def refuse(self, why: str) -> NoReturn:
        """Raise a BenchmarkError that names the row."""
        raise BenchmarkError(f"{self.place} {why}")

    def value(self, field: str) -> Any:
        """What a field holds, whatever that is."""
        if field not in self.values:
            self.refuse(f"has no field {field}; it has {', '.join(self.values) or 'none'}")
        return self.values[field]

    def name(self, field: str) -> str:
        """A field that holds a name or a number, as text."""
        value = self.value(field)
        if value in (None, "") or not isinstance(value, str | int):
            self.refuse(f"{field} must be a name or a number, it is {_short(value)}")
        return str(value)

    def text(self, field: str) -> str:
        """A field that holds text which is not empty."""
        text = self.checked(field, self.value(field))
        if not text.strip():
            self.refuse(f"{field} is empty")
        return text

    def texts(self, field: str, number: int | None = None) -> list[str]:
        """A field that holds a list of texts, so many where `number` says it; a text may be empty."""
        texts = self.value(field)
        if not isinstance(texts, list) or len(texts) != (number or max(len(texts), 1)):
            self.refuse(f"{field} must be a list of {number or 'some'} texts, it is {_short(texts)}")
        return [self.checked(f"{field}[{place}]", text) for place, text in enumerate(texts)]

    def one_of(self, field: str, known: Sequence[str]) -> str:
        """A field that holds one of some words."""
        value = self.value(field)
        if value not in known:
            self.refuse(f"{field} must be one of {', '.join(known)}, it is {_short(value)}")
        return str(value)

    def checked(self, field: str, text: Any) -> str:
        """A value that must be text; an error calls it by `field`."""
        if not isinstance(text, str):
            self.refuse(f"{field} must be text, it is {_short(text)}")
        try:
            text.encode()
        except UnicodeEncodeError:
            self.refuse(f"{field} holds half a character, which no table can store")
        return text


def read_rows(source: str, title: str, hub: str | None = None, patterns: Sequence[str] = ("*",)) -> list[Row]:
    """The rows of a benchmark's files, in the order of the files' names.

    Args:
        source: a file, a folder, or NAME@REVISION[ + NAME@REVISION]… of the hub, where NAME is OWNER/DATASET
            and maybe a folder inside of it.
        title: what messages call the benchmark.
        hub: its official data set, which messages name.
        patterns: which files of a data set of the hub are the benchmark's.

    Raises:
        BenchmarkError: the source is none of these, cannot be read, or has no rows; names the file and row.
    """
    path = Path(source).expanduser()
    if path.is_file():
        files = [(source, path)]
    elif path.is_dir():
        files = _files_in(path, source)
    elif path.name.endswith(ENDINGS) or source.startswith((".", "/", "~")):
        raise BenchmarkError(f"{title} file or folder {source} does not exist")
    elif all("@" in part and "/" in part for part in source.split(" + ")):
        files = [file for part in source.split(" + ") for file in _download(part, title, patterns)]
    else:
        raise BenchmarkError(
            f"cannot read {title} from {source!r}: name a file ending in {', '.join(ENDINGS)}, a folder of "
            f"such files, or a hub dataset with its revision ({hub or 'OWNER/NAME'}@main)"
        )
    rows = [
        Row(name, number, values) for name, file in files for number, values in _rows_of(file, name, title)
    ]
    if not rows:
        raise BenchmarkError(f"{source} has no rows of {title} in files ending in {', '.join(ENDINGS)}")
    return rows


def to_dataset(rows: Sequence[tuple[Row, Mapping[str, Any]]], source: str) -> Dataset:
    """The rows of a benchmark as it is scored, which are known by their columns id and subset.

    Raises:
        BenchmarkError: two have the same; names both.
    """
    first: dict[tuple[str, str], Row] = {}
    for row, values in rows:
        key = values["subset"], values["id"]
        if key in first:
            row.refuse(f"repeats id {key[1]} of {key[0]}, which is {first[key].place} too")
        first[key] = row
    if not rows:
        raise BenchmarkError(f"{source} has no rows to score")
    return Dataset.from_list([dict(values) for _, values in rows])


def as_prompt(turns: Sequence[dialogue.Turn]) -> str:
    """Turns as a stored prompt; one that quotes another speaker loses the blank line before the quotation.

    Raises:
        ValueError: there is no turn, or a role is unknown.
    """
    try:
        return dialogue.transcript(turns)
    except ValueError:
        quoting = [f"\n\n{speaker}:" for speaker in dialogue.SPEAKERS.values()]
        mended = list(turns)
        for mark in quoting:
            mended = [turn._replace(content=turn.content.replace(mark, mark[1:])) for turn in mended]
        return dialogue.transcript(mended)


def _files_in(folder: Path, name: str) -> list[tuple[str, Path]]:
    files = sorted(file for file in folder.rglob("*") if file.name.endswith(ENDINGS) and file.is_file())
    return [(f"{name.rstrip('/')}/{file.relative_to(folder).as_posix()}", file) for file in files]


def _download(part: str, title: str, patterns: Sequence[str]) -> list[tuple[str, Path]]:
    """The files of a data set of the hub, which `huggingface_hub` keeps in its cache."""
    location, _, revision = part.strip().partition("@")
    owner, name, *inside = location.split("/")
    below = "/".join(inside)
    try:
        snapshot = huggingface_hub.snapshot_download(
            f"{owner}/{name}",
            repo_type="dataset",
            revision=revision,
            allow_patterns=[f"{below}/{pattern}" if below else pattern for pattern in patterns],
        )
    except Exception as error:  # the hub client raises many kinds; all mean the same to the reader
        raise BenchmarkError(f"{part}: {title} cannot be loaded from the hub: {error}") from error
    folder = Path(snapshot) / below
    return _files_in(folder, f"{location}@{revision}")


def _rows_of(file: Path, name: str, title: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of a file with their numbers."""
    try:
        if file.name.endswith(".parquet"):
            yield from enumerate(pyarrow.parquet.read_table(file).to_pylist(), start=1)
        elif file.name.endswith((".jsonl", ".jsonl.gz")):
            for number, values, problem in lines(file):
                if problem:
                    raise BenchmarkError(f"{name}: line {number}: {problem}")
                yield number, values
        else:
            yield from enumerate(_array(file, name, title), start=1)
    except (OSError, EOFError, zlib.error, pyarrow.ArrowException) as error:
        raise BenchmarkError(f"{name}: cannot be read: {error}") from error


def _array(file: Path, name: str, title: str) -> list[Mapping[str, Any]]:
    if not file.name.endswith(ENDINGS):
        raise BenchmarkError(f"{name}: {title} is read from files ending in {', '.join(ENDINGS)}")
    raw = file.read_bytes()
    try:
        array = json.loads(gzip.decompress(raw) if file.name.endswith(".gz") else raw)
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{name}: no JSON: {error}") from error
    if not isinstance(array, list):
        raise BenchmarkError(f"{name}: {title} is an array of rows, this file holds {_short(array)}")
    for number, values in enumerate(array, start=1):
        if not isinstance(values, dict):
            raise BenchmarkError(
                f"{name}: row {number} must be an object with fields, it is {_short(values)}"
            )
    return array


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:59]}…"
