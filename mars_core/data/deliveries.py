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
import zlib
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from pydantic import Field

from mars_core.config import Configuration
from mars_core.data.formats import (
    COLUMNS,
    READERS,
    PairsError,
    content_id,
    json_lines,
    load_file,
    load_tables,
    row_texts,
    suffix,
)
from mars_core.errors import MarsError
from mars_core.files import sha256_of

KEPT_CHARACTERS = 2000
"""How much of a bad row is kept for a person to see."""


class UnfinishedError(MarsError, ValueError):
    """A file does not read to its end; it may still be being written."""


class IntakeConfig(Configuration):
    """Where new preference pairs are delivered, and how many bad rows a delivery may hold."""

    source: str = "incoming"
    """Folder of .jsonl[.gz], .parquet or .csv files, each a delivery; or one such file, or a hub dataset
    NAME[/DIRECTORY]@REVISION[:SPLIT]."""
    settle_seconds: float = Field(60, ge=0)
    """A file that changed less than this long ago is left for the next look."""
    max_bad_share: float = Field(0.2, ge=0, le=1)
    """A delivery with a greater share of bad rows is quarantined whole."""


class Delivery(NamedTuple):
    """A file, or what a hub dataset holds now."""

    name: str
    digest: str
    """sha256 of its content."""
    content: Path | Dataset


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
    """New pairs with the columns of `mars_core.data.pairs`, each by the digest of its texts, if any."""
    duplicates: int
    """Rows whose pair was known."""
    bad: list[BadRow]
    refusal: str | None
    """Why the delivery is quarantined whole, if it is."""


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
        [(name, table)] = load_tables(config.source)
        found = Delivery(name, _digest_of_rows(table), table)
        return ([] if found.digest in seen else [found]), {}
    files = sorted(place.iterdir()) if place.is_dir() else [place]
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
    delivery: Delivery, known: Container[str], refused: Container[str], max_bad_share: float
) -> Intake:
    """Sort the rows of a delivery into new pairs, known ones and bad ones.

    Args:
        delivery: the file, or the dataset.
        known: ids, by `content_id`, of the pairs that were accepted before.
        refused: ids of the pairs that were accepted before, and then refused by the gate.
        max_bad_share: the share of bad rows up to which the good ones are accepted.

    Raises:
        UnfinishedError: the file does not read to its end, holds nothing, or changed meanwhile.
        OSError: it is gone, or may not be read.
    """
    accepted: dict[str, dict[str, str]] = {}
    rows, duplicates, bad = 0, 0, list[BadRow]()
    for number, row, problem in _rows(delivery.content):
        rows += 1
        pair = None
        if not problem:
            try:
                pair = row_texts({"chosen": None, "rejected": None} | row)
            except ValueError as error:
                problem = str(error)
        if pair is not None:
            prompt, chosen, rejected = pair
            pair_id, exchanged = content_id(prompt, chosen, rejected), content_id(prompt, rejected, chosen)
            if pair_id in known or pair_id in accepted:
                duplicates += 1
                continue
            if exchanged in known or exchanged in accepted:
                problem = "contradicts a known pair, whose chosen and rejected are exchanged"
            elif pair_id in refused:
                problem = "came in an earlier delivery, which the gate refused"
            else:
                source = str(row.get("source") or delivery.name)
                accepted[pair_id] = dict(
                    zip(COLUMNS, (pair_id, prompt, chosen, rejected, source), strict=True)
                )
                continue
        shown = row if isinstance(row, str) else json.dumps(row, ensure_ascii=True, default=str)
        bad.append(BadRow(number, problem, shown[:KEPT_CHARACTERS]))
    if rows == 0:
        raise UnfinishedError("it holds no rows")
    if isinstance(delivery.content, Path) and sha256_of(delivery.content) != delivery.digest:
        raise UnfinishedError("it changed while it was read")
    refusal = _refusal(bad, rows, max_bad_share)
    table = Dataset.from_list(list(accepted.values())) if accepted and not refusal else None
    return Intake(rows, table, duplicates, bad, refusal)


def _refusal(bad: list[BadRow], rows: int, max_bad_share: float) -> str | None:
    if len(bad) <= max_bad_share * rows:
        return None
    reasons = Counter(row.reason.partition(":")[0] for row in bad)
    counted = ", ".join(f"{count:,} × {reason}" for reason, count in reasons.most_common(3))
    return (
        f"{len(bad):,} of {rows:,} rows are bad ({counted}), "
        f"more than data.max_bad_share={max_bad_share:g} allows"
    )


def _rows(content: Path | Dataset) -> Iterator[tuple[int, Any, str]]:
    """Number of each row, the row, and what is wrong with it if it is no row at all."""
    if isinstance(content, Dataset):
        yield from ((number, row, "") for number, row in enumerate(content, start=1))
    elif READERS[suffix(content)] == "json":
        yield from _lines(content)
    else:
        if content.stat().st_size == 0:
            raise UnfinishedError("it is empty")
        if READERS[suffix(content)] == "csv" and not _ends_in_newline(content):
            raise UnfinishedError("its last line does not end")  # a response may well be cut there
        try:
            table = load_file(content, ("id", *COLUMNS))
            yield from ((number, row, "") for number, row in enumerate(table, start=1))
        except (PairsError, UnicodeDecodeError) as error:
            raise UnfinishedError(f"it cannot be read: {error}") from error


def _lines(file: Path) -> Iterator[tuple[int, Any, str]]:
    """As `_rows`; a line that is no JSON spoils itself alone, unless it is a last line without an end."""
    try:
        for number, row, problem in json_lines(file):
            if isinstance(row, bytes) and not row.endswith(b"\n"):
                raise UnfinishedError("its last line is cut off")
            yield number, row.decode(errors="replace").strip() if isinstance(row, bytes) else row, problem
    except (EOFError, OSError, zlib.error) as error:
        raise UnfinishedError(f"it cannot be read to its end: {error}") from error


def _ends_in_newline(file: Path) -> bool:
    with file.open("rb") as content:
        content.seek(-1, 2)
        return content.read() == b"\n"


def _digest_of_rows(table: Dataset) -> str:
    whole = hashlib.sha256()
    for row in table:
        whole.update(json.dumps(row, sort_keys=True, default=str).encode())
    return whole.hexdigest()
