"""Sources of preference pairs → one table, and which rows are valid.

Everything downstream sees one table with the columns `COLUMNS`, and with `margin` and `weight` where the data
have them. A prompt is in the stored form of `mars_core.data.dialogue`; a response is plain text.
"""

import hashlib
import re
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from mars_core.data import dialogue
from mars_core.data.formats.by_columns import ByColumns
from mars_core.data.formats.format import COMMON, Format, LeftOut, Pair, number_of
from mars_core.data.source_rows import MEDIA, Line, PairsError, Part, Row, parts

COLUMNS = ("pair_id", "prompt", "chosen", "rejected", "source")
NUMBERS = ("margin", "weight")
"""Further columns, where the data have them: the margin asked for in the fit, null for none; the weight."""

VERSION = 2
"""Counted up whenever a row is read to other texts than before; 1 is `mars_core.data.first_reading`."""

FIRST_ROWS = 100
"""The rows that a format is recognised by."""
NAMED_ROWS = 5
"""How many invalid rows an error names; it counts the others."""
ROWS_AT_ONCE = 2_048
LONGEST_RUN = 2**18
"""Runs of `FirstPlaces` that are longer are not merged: it bounds the memory that this takes."""

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # which JSON can spell, and UTF-8 cannot
SCHEMA = pa.schema(dict.fromkeys(COLUMNS, pa.string()) | dict.fromkeys(NUMBERS, pa.float32()))


class Pairs(NamedTuple):
    """What a source holds."""

    table: Dataset
    """The columns `COLUMNS`, and those of `NUMBERS` that some pair has."""
    left_out: Counter[str]
    """How many rows or comparisons were left out, by reason."""
    remarks: list[str]
    """How the source was read: its format, and the columns that were not used."""


class Place(NamedTuple):
    """How far a source was read."""

    file: int
    """Number of the file, from 0."""
    row: int | None
    """Number of its last row that was read; None where that was all of it."""


class Chunk(NamedTuple):
    """Some of the pairs of a source."""

    pairs: list[dict[str, Any]]
    """With `COLUMNS` and `NUMBERS`."""
    place: Place | None
    """What was read by now, where reading can go on from there."""


class Reading(NamedTuple):
    """What a row says, or several that make pairs together."""

    line: Line
    """The row, or the first of them."""
    pairs: list[dict[str, Any]]
    """Its pairs, with `COLUMNS` and `NUMBERS`."""
    left_out: list[str]
    """Reasons why comparisons in it make no pair."""
    problem: str
    """Why it is invalid, as `reason` or `reason: detail`; empty if it is not."""


def read(
    source: str,
    reads: Format | None = None,
    *,
    where: Mapping[str, Any] | None = None,
    invalid: Literal["error", "drop"] = "error",
    refusal: Callable[[str], str | None] | None = None,
) -> Pairs:
    """Read the pairs of a source.

    A pair is known by the row's pair_id or id, or else by a digest of its texts; of pairs with one id the
    first counts.

    Args:
        source: as of `mars_core.data.source_rows.parts`.
        reads: the format; by default the one that the columns say.
        where: columns, and the values that rows must have in them.
        invalid: what becomes of invalid rows.
        refusal: why a stored prompt cannot be used, if so.

    Raises:
        PairsError: the source is not there or has a wrong form, or (`invalid="error"`) a row is.
    """
    sieve = Sieve(source, refusal)
    table = as_table(pair for chunk in chunks(source, sieve, reads, where=where) for pair in chunk.pairs)
    sieve.conclude(len(table), where, invalid)
    return Pairs(table, sieve.left_out + sieve.invalid, sieve.said())


def chunks(
    source: str,
    sieve: "Sieve",
    reads: Format | None = None,
    *,
    where: Mapping[str, Any] | None = None,
    after: Place | None = None,
) -> Iterator[Chunk]:
    """The valid pairs of a source, some at a time.

    Args:
        source: as of `mars_core.data.source_rows.parts`.
        sieve: lets them through, and counts the others.
        reads: as of `read`.
        where: as of `read`.
        after: the last row that was read before, so that reading goes on behind it.

    Raises:
        PairsError: the source is not there or has a wrong form.
    """
    files = parts(source)
    last_file, last_row = after or Place(-1, 0)
    sieve.files = [part.name for part in files]
    for number, part in enumerate(files):
        if number < last_file or (number == last_file and last_row is None):
            continue
        columns = dict[str, None]()  # in their order
        lines = selected(part, where or {}, columns)
        first = next(lines, None)
        if first is None:  # no row has what `where` asks for
            continue
        reader, lines = recognised(chain([first], lines), reads, part.name)
        if number == last_file:
            lines = (line for line in lines if line.number > (last_row or 0))
        alone = type(reader).group is Format.group  # each row makes pairs by itself, so that any may be last
        found = readings(lines, reader, source)
        while some := list(islice(found, ROWS_AT_ONCE)):
            pairs = list(sieve.valid(some, number))
            yield Chunk(pairs, Place(number, some[-1].line.number) if alone else None)
        sieve.remarks.setdefault(remark(reader, columns), []).append(part.name)
        yield Chunk([], Place(number, None))


def recognised(lines: Iterator[Line], reads: Format | None, name: str) -> tuple[Format, Iterator[Line]]:
    """The format that reads these lines, and the lines.

    Args:
        lines: of one file.
        reads: the configured format; by default the one that the columns say.
        name: what messages call the file.

    Raises:
        PairsError: no format does; names the columns and what formats there are.
    """
    first = list(islice(lines, FIRST_ROWS))
    rows = [line.row for line in first if not line.problem]
    columns = {column for row in rows for column in row}
    try:
        reader = (reads or ByColumns(ByColumns.Config())).at(columns, rows)
    except ValueError as error:
        raise PairsError(f"{name}: {error}") from error
    return reader, chain(first, lines)


def readings(lines: Iterable[Line], reader: Format, default_source: str) -> Iterator[Reading]:
    """What each row says; rows that make pairs together come last, and are held in memory."""
    groups: dict[Hashable, list[Line]] = {}
    for line in lines:
        if line.problem:
            yield Reading(line, [], [], line.problem)
            continue
        group = reader.group(line.row)
        if group is None:
            yield _reading([line], reader, default_source)
        else:
            groups.setdefault(group, []).append(line)
    for together in groups.values():
        yield _reading(together, reader, default_source)


def remark(reader: Format, columns: Iterable[str]) -> str:
    """What a run says of a source: its format, the columns that it uses, and those that it does not."""
    there = set(columns)
    used = reader.used(there)
    unused = [column for column in columns if column not in COMMON.union(used)]
    package, _, module = type(reader).__module__.rpartition(".")
    name = module if package == Format.__module__.rpartition(".")[0] else type(reader).__qualname__
    also = [number for number in NUMBERS if number in there]
    return f"read as {name} ({', '.join([*used, *also])})" + (
        f"; not used: {', '.join(unused)}" if unused else ""
    )


def as_table(pairs: Iterator[dict[str, Any]]) -> Dataset:
    """Pairs as a memory-mapped table with `COLUMNS`, and those of `NUMBERS` that one of them has.

    Its file has no name, and is gone with the table.
    """
    with tempfile.NamedTemporaryFile(suffix=".arrow") as file:
        with pa.ipc.new_file(file.name, SCHEMA) as written:
            while some := list(islice(pairs, ROWS_AT_ONCE)):
                written.write_batch(pa.RecordBatch.from_pylist(some, schema=SCHEMA))
        arrow = pa.ipc.open_file(pa.memory_map(file.name)).read_all()
    asked = {name for name in NUMBERS if arrow[name].null_count < len(arrow)}
    return with_numbers(Dataset(arrow, fingerprint=uuid.uuid4().hex), asked)


def with_numbers(table: Dataset, numbers: Set[str]) -> Dataset:
    """A table of pairs with just those of the columns `NUMBERS` that are asked for.

    Where the table knows nothing, a margin is null and a weight 1.
    """
    arrow = table.with_format("arrow")[:]
    for name in NUMBERS:
        if name in numbers and name not in table.column_names:
            arrow = arrow.append_column(name, pa.nulls(len(arrow), pa.float32()))
    kept = [name for name in NUMBERS if name in numbers]
    arrow = arrow.select([*COLUMNS, *kept])
    if "weight" in kept:
        place = arrow.column_names.index("weight")
        arrow = arrow.set_column(place, "weight", arrow["weight"].fill_null(1.0))
    return Dataset(arrow, fingerprint=uuid.uuid4().hex)  # or else all texts are hashed for one


def write_table(table: Dataset, place: Path) -> None:
    """Write a table as Parquet.

    The file is opened here, for `datasets` takes a name with a * in it for that of many files.
    """
    with place.open("wb") as file:
        table.to_parquet(file)


def content_id(prompt: str, chosen: str, rejected: str) -> str:
    """What a pair is known by that has no id of its own: a digest of its texts."""
    return hashlib.sha256("\0".join((prompt, chosen, rejected)).encode()).hexdigest()[:16]


def counted(reasons: Counter[str]) -> str:
    """How often each reason occurred, in words."""
    return ", ".join(f"{count:,} × {reason}" for reason, count in reasons.items()) or "nothing"


class Sieve:
    """Lets valid pairs through; counts the others, and names the first of the invalid rows."""

    def __init__(self, source: str, refusal: Callable[[str], str | None] | None) -> None:
        """Of a source; `refusal` says why a stored prompt cannot be used, if so."""
        self.source, self.refusal = source, refusal
        self.files: list[str] = []
        """The names of the source's files."""
        self.left_out, self.invalid = Counter[str](), Counter[str]()
        self.named: list[str] = []
        self.remarks = dict[str, list[str]]()
        """How files were read, and the names of those that were."""
        self.first = FirstPlaces()
        """Where each id came first: the file's number · 2⁴⁰ + the row's."""

    def valid(self, readings: Sequence[Reading], file: int) -> Iterator[dict[str, Any]]:
        """The valid pairs among what the rows of a file say."""
        keys = [[key_of(pair["pair_id"]) for pair in reading.pairs] for reading in readings]
        known = iter(self.first.find(list(chain.from_iterable(keys))).tolist())
        new = dict[int, int]()
        for reading, own in zip(readings, keys, strict=True):
            self.left_out.update(reading.left_out)
            problem, place = reading.problem, (file << 40) + reading.line.number
            for pair, key, before in zip(reading.pairs, own, list(islice(known, len(own))), strict=True):
                before = before if before >= 0 else new.get(key, -1)
                problem = self._problem(pair, -1 if before == place else before)
                if problem:
                    break
                new[key] = place
                yield pair | {"place": place}
            if problem:
                self.invalid[problem.partition(":")[0]] += 1
                if len(self.named) < NAMED_ROWS:
                    self.named.append(f"{self.files[file]}: row {reading.line.number}: {problem}")
        self.first.add(new)

    def conclude(
        self, pairs: int, where: Mapping[str, Any] | None, invalid: Literal["error", "drop"]
    ) -> None:
        """Raise PairsError if there are invalid rows, and none is expected, or no pairs at all."""
        if self.named and invalid == "error":
            total = self.invalid.total()
            unnamed = total - len(self.named)
            listed = "\n  ".join([*self.named, *([f"and {unnamed} more"] if unnamed else [])])
            advice = "Repair what is named, or set data.invalid=drop to leave it out."
            if not pairs:
                question = "No row is valid: has a column another name than expected?"
                advice = "\n".join([*self.said(), f"{question} {advice}"])
            raise PairsError(f"{total} invalid row{'s' if total > 1 else ''}:\n  {listed}\n{advice}")
        if not pairs:
            condition = f" where {dict(where)}" if where else ""
            raise PairsError(
                f"{self.source}: no pairs{condition}; left out: {counted(self.left_out + self.invalid)}"
            )

    def state(self) -> dict[str, Any]:
        """What was counted by now, for `restore`."""
        return {name: getattr(self, name) for name in ("left_out", "invalid", "named", "remarks")}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with what an earlier start had counted."""
        self.left_out, self.invalid = Counter(state["left_out"]), Counter(state["invalid"])
        self.named, self.remarks = state["named"], state["remarks"]

    def said(self) -> list[str]:
        """How the source was read, in sentences without an end."""
        return [
            f"{self.source if len(self.remarks) == 1 else ', '.join(names)}: {remark}"
            for remark, names in self.remarks.items()
        ]

    def _problem(self, pair: Mapping[str, Any], before: int) -> str:
        """Why a pair is invalid; `before` is where its id was first, or -1."""
        refused = self.refusal(pair["prompt"]) if self.refusal else None
        if refused or before < 0:
            return refused or ""
        return (
            f"duplicate id: {pair['pair_id']!r}, first in {self.files[before >> 40]}: "
            f"row {before & (2**40 - 1)} (a row without an id is known by its texts)"
        )


class FirstPlaces:
    """By 64-bit key, where it came first, in 16 bytes each: sorted runs, in which short ones are merged."""

    def __init__(self) -> None:
        """None yet."""
        self._runs: list[tuple[NDArray[np.uint64], NDArray[np.int64]]] = []

    def find(self, keys: Sequence[int]) -> NDArray[np.int64]:
        """The place of each key [n], -1 where it is new."""
        wanted = np.array(keys, dtype=np.uint64)
        found = np.full(len(wanted), -1, dtype=np.int64)
        for known, places in self._runs:
            at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
            there = known[at] == wanted
            found[there] = places[at[there]]
        return found

    def add(self, places: Mapping[int, int]) -> None:
        """Add new keys with their places."""
        if not places:
            return
        keys = np.fromiter(places.keys(), np.uint64, len(places))
        values = np.fromiter(places.values(), np.int64, len(places))
        while self._runs and len(self._runs[-1][0]) <= min(len(keys), LONGEST_RUN):
            before = self._runs.pop()
            keys, values = np.concatenate([before[0], keys]), np.concatenate([before[1], values])
        order = np.argsort(keys)
        self._runs.append((keys[order], values[order]))


def key_of(text: str) -> int:
    """A hash of 64 bits, under which a text is known; two of ten million share one once in 300,000 times."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def selected(part: Part, where: Mapping[str, Any], columns: dict[str, None]) -> Iterator[Line]:
    """The rows whose columns have the wanted values; `columns` gets the names of all columns there are.

    Raises:
        PairsError: a line is no row, there are no rows, or a column that `where` names is not there.
    """
    any_row = False
    for line in part.lines():
        if line.problem:
            raise PairsError(f"{part.name}: line {line.number}: {line.problem}")
        any_row = True
        columns.update(dict.fromkeys(line.row))
        if all(_is(line.row.get(column), wanted) for column, wanted in where.items()):
            yield line
    if not any_row:
        raise PairsError(f"{part.name}: no rows")
    for column in where:
        if column not in columns:
            raise PairsError(
                f"{part.name}: no column {column!r}, which data.where names; found {', '.join(columns)}"
            )


def _is(value: Any, wanted: Any) -> bool:
    return value == wanted or str(value) == str(wanted)


def _reading(lines: Sequence[Line], reader: Format, default_source: str) -> Reading:
    pairs, left_out = list[dict[str, Any]](), list[str]()
    rows = [line.row for line in lines]
    try:
        for made in reader.pairs(rows):
            if isinstance(made, LeftOut):
                left_out.append(made.reason)
            else:
                pairs.append(_stored(made, rows, default_source))
    except ValueError as error:
        return Reading(lines[0], [], [], str(error))
    for number, pair in enumerate(pairs if len(pairs) > 1 else ()):
        if pair["pair_id"] is not None:
            pair["pair_id"] += f"-{number}"
    for pair in pairs:
        pair["pair_id"] = pair["pair_id"] or content_id(pair["prompt"], pair["chosen"], pair["rejected"])
    return Reading(lines[0], pairs, left_out, "")


def check_texts(row: Row, asked: Sequence[dialogue.Turn], **texts: str) -> None:
    """Check what a row says, before it is stored.

    Raises:
        ValueError: a text is empty or cannot be stored, or the texts are about something that is no text.
    """
    for name in MEDIA:
        if row.get(name):
            raise ValueError(f"{name} is not empty; a reward model reads text alone")
    for name, text in {"prompt": "".join(turn.content for turn in asked), **texts}.items():
        if not text.strip():
            raise ValueError(f"{name} is empty")
        if _HALF_CHARACTER.search(text):
            raise ValueError(f"{name} holds half a character, which no table can store")


def id_of(row: Row) -> str | None:
    """What a row calls itself, if it does."""
    return next((str(row[key]) for key in ("pair_id", "id") if row.get(key) not in (None, "")), None)


def _stored(pair: Pair, rows: Sequence[Row], default_source: str) -> dict[str, Any]:
    """A pair in the columns of the table.

    Raises:
        ValueError: it is invalid.
    """
    row = rows[0]
    chosen, rejected = pair.chosen.strip(), pair.rejected.strip()
    source = str(row.get("source") or default_source)
    check_texts(row, pair.asked, chosen=chosen, rejected=rejected, source=source)
    if chosen == rejected:
        raise ValueError("chosen equals rejected")
    own = row if len(rows) == 1 else {}  # what several rows say is not one pair's
    margin, weight = (number_of(own.get(name), name) for name in NUMBERS)
    if weight is not None and weight <= 0:
        raise ValueError(f"weight is not positive: {weight:g}")
    if pair.weight is not None:
        weight = pair.weight * (weight or 1)
    return {
        "pair_id": id_of(own),
        "prompt": dialogue.transcript(pair.asked),
        "chosen": chosen,
        "rejected": rejected,
        "source": source,
        "margin": pair.margin if margin is None else margin,
        "weight": weight,
    }
