"""New preference pairs: which deliveries were not seen before, and which of their rows are accepted.

A file is a delivery, known by the digest of its content: one that is delivered again, under whatever name,
is no new one. A pair is known by the digest of its texts. A file that is still being written, or that does
not read to its end, is left for the next look. A bad row is quarantined with its number and reason, and a
delivery that holds too many of them is quarantined whole: who delivers a wrong schema, exchanged labels or
garbage should hear of it before a model is trained on the rest.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from datasets import Dataset
from pydantic import Field

from mars_core.data.first_reading import first_ids
from mars_core.data.formats.format import FORMATS, Format
from mars_core.data.reading import as_table, content_id, readings, recognised, remark
from mars_core.data.source_rows import READERS, Line, PairsError, Part, files_in, lines, parts, suffix
from mars_core.errors import MarsError
from mars_core.extensions import PluginSection
from mars_core.files import sha256_of

DUPLICATE = "known"
KEPT_CHARACTERS = 2000
"""How much of a bad row is kept for a person to see."""


class UnfinishedError(MarsError, ValueError):
    """A file does not read to its end; it may still be being written."""


class IntakeConfig(PluginSection):
    """Where new preference pairs are delivered, and how many bad rows a delivery may hold."""

    source: str = "incoming"
    """Folder of .jsonl[.gz], .json[.gz], .parquet or .csv files, each a delivery; or one such file, or a hub
    dataset NAME[/DIRECTORY]@REVISION[:SPLIT]."""
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
        [part] = parts(config.source)
        found = Delivery(part.name, _digest_of_rows(part), part)
        return ([] if found.digest in seen else [found]), {}
    files = files_in(place) if place.is_dir() else [place]
    deliveries: dict[str, Delivery] = {}
    left: dict[str, str] = {}
    for file in files:
        if suffix(file) not in READERS or file.name.startswith(".") or not file.is_file():
            continue
        name = os.fsencode(file.name).decode(errors="replace")
        try:
            # A clock that is ahead dates a file in the future; far ahead, that says nothing about the file.
            if abs(now - file.stat().st_mtime) < config.settle_seconds:
                left[name] = f"it changed in the last {config.settle_seconds:g} seconds"
                continue
            digest = sha256_of(file)
        except OSError as error:
            left[name] = f"it cannot be read: {error}"
            continue
        if digest not in seen:
            deliveries.setdefault(digest, Delivery(name, digest, file))
    return list(deliveries.values()), left


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
        OSError: it is gone, or may not be read.
    """
    pairs = _Known(known, refused, known_first)
    counted = _Counted(delivery.content)
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
    if isinstance(delivery.content, Path) and sha256_of(delivery.content) != delivery.digest:
        raise UnfinishedError("it changed while it was read")
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

    def __init__(self, content: Path | Part) -> None:
        self.rows, self.columns = 0, dict[str, None]()
        self._lines = _rows(content)

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


def _rows(content: Path | Part) -> Iterator[Line]:
    """The rows; a line that is no JSON spoils itself alone, unless it is a last line without an end."""
    if isinstance(content, Part):
        yield from content.lines()
        return
    if content.stat().st_size == 0 and ".json" not in suffix(content):
        raise UnfinishedError("it is empty")
    if suffix(content) == ".csv" and not _ends_in_newline(content):
        raise UnfinishedError("its last line does not end")  # a response may well be cut there
    try:
        for line in lines(content):
            if isinstance(line.row, bytes) and not line.row.endswith(b"\n"):
                raise UnfinishedError("its last line is cut off")
            yield line
    except PairsError as error:
        raise UnfinishedError(f"it cannot be read to its end: {error}") from error


def _ends_in_newline(file: Path) -> bool:
    with file.open("rb") as content:
        content.seek(-1, 2)
        return content.read() == b"\n"


def _digest_of_rows(part: Part) -> str:
    whole = hashlib.sha256()
    for line in part.lines():
        whole.update(json.dumps(line.row, sort_keys=True, default=str).encode())
    return whole.hexdigest()
