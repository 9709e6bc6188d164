"""Files and data sets of preference pairs: how each is read into one table, and which of its rows are valid.

Everything downstream sees one table with the columns `COLUMNS`, memory-mapped by `datasets`. A prompt
is in the stored form of `mars_core.data.dialogue`; a response is plain text.
"""

import gzip
import hashlib
import json
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from mars_core.data import dialogue, samples
from mars_core.errors import MarsError

datasets.disable_progress_bars()
logging.getLogger("datasets.packaged_modules.json.json").setLevel(logging.CRITICAL)  # it also raises all

COLUMNS = ("pair_id", "prompt", "chosen", "rejected", "source")


READERS = {".jsonl": "json", ".jsonl.gz": "json", ".parquet": "parquet", ".csv": "csv"}


NAMED_ROWS = 5
"""How many invalid rows an error names; it counts the others."""


_ASSISTANT = "\n\nAssistant:"


_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # which JSON can spell, and UTF-8 cannot


class PairsError(MarsError, ValueError):
    """The data cannot be used as they are; the message names file, row and field."""


def read(
    source: str, *, where: Mapping[str, Any] | None = None, invalid: Literal["error", "drop"] = "error"
) -> tuple[Dataset, Counter[str]]:
    """Read one source into the columns `COLUMNS`; the second value counts left-out rows by reason.

    Rows hold prompt, chosen and rejected as text or as conversations (lists of role and content).
    Without a prompt column the two dialogues are split at their last common `Assistant:`. A row is
    known by its pair_id or id, or else by a digest of its texts; of rows with one id the first counts.

    Raises:
        PairsError: the source is not there or has a wrong form, or (`invalid="error"`) a row is.
    """
    tables, reasons, bad_rows = [], Counter[str](), list[str]()
    first_place: dict[str, str] = {}
    for name, part in load_tables(source):
        rows = _rows_where(part, where or {}, name)
        if len(rows) == 0:
            continue
        try:
            table = _canonical_table(part.select(rows), origin=source)
        except UnicodeDecodeError as error:
            raise PairsError(f"{name}: {_bad_line(Path(name)) or f'not UTF-8: {error}'}") from error
        valid = []
        for i, (pair_id, problem) in enumerate(zip(table["pair_id"][:], table["problem"][:], strict=True)):
            place = f"{name}: row {rows[i] + 1}"
            if not problem and first_place.setdefault(pair_id, place) != place:
                problem = (
                    f"duplicate id: {pair_id!r}, first in {first_place[pair_id]} "
                    "(a row without an id is known by its texts)"
                )
            if not problem:
                valid.append(i)
                continue
            reasons[problem.partition(":")[0]] += 1
            if len(bad_rows) < NAMED_ROWS:
                bad_rows.append(f"{place}: {problem}")
        tables.append(table.select(valid).select_columns(list(COLUMNS)))
    if bad_rows and invalid == "error":
        unnamed = reasons.total() - len(bad_rows)
        listed = "\n  ".join([*bad_rows, *([f"and {unnamed} more"] if unnamed else [])])
        raise PairsError(
            f"{reasons.total()} invalid row{'s' if reasons.total() > 1 else ''}:\n  {listed}\n"
            "Repair what is named, or set data.invalid=drop to leave it out."
        )
    if not first_place:
        condition = f" where {dict(where)}" if where else ""
        raise PairsError(f"{source}: no pairs{condition}; left out: {counted(reasons)}")
    return datasets.concatenate_datasets(tables), reasons


def content_id(prompt: str, chosen: str, rejected: str) -> str:
    """What a pair is known by that has no id of its own: a digest of its texts."""
    return hashlib.sha256("\0".join((prompt, chosen, rejected)).encode()).hexdigest()[:16]


def row_texts(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Prompt in the stored form, chosen and rejected response of one row, if it is valid.

    Raises:
        ValueError: the row is invalid; says why, as `reason` or `reason: detail`.
    """
    for name in ("prompt", "chosen", "rejected"):
        if name in row and row[name] is None:
            raise ValueError(f"{name} is missing or null")
    asked, chosen, rejected = _turns_and_responses(row)
    prompt = "".join(turn.content for turn in asked)
    for name, text in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        if not text.strip():
            raise ValueError(f"{name} is empty")
        if _HALF_CHARACTER.search(text):
            raise ValueError(f"{name} holds half a character, which no table can store")
    if _HALF_CHARACTER.search(str(row.get("source") or "")):
        raise ValueError("source holds half a character, which no table can store")
    if chosen.strip() == rejected.strip():
        raise ValueError("chosen equals rejected")
    return dialogue.transcript(asked), chosen.strip(), rejected.strip()


def load_file(path: Path, text_columns: Sequence[str]) -> Dataset:
    """Load a local file of one of the kinds in `READERS`, memory-mapped.

    Args:
        path: the file.
        text_columns: what a CSV, which says nothing of types, holds as text: unasked, a response "None"
            is read as missing and an id 007 as 7.

    Raises:
        PairsError: it cannot be read.
    """
    reader = READERS[suffix(path)]
    as_text = {"converters": dict.fromkeys(text_columns, str), "na_filter": False} if reader == "csv" else {}
    try:
        return datasets.load_dataset(reader, data_files=str(path), split="train", **as_text)
    except Exception as error:  # every reader, and every compression, raises kinds of its own
        empty = isinstance(error, StopIteration) or "corresponds to no data" in str(error)
        problem = "no rows" if empty else _bad_line(path) or error.__cause__ or error
        raise PairsError(f"{path}: {problem}") from error


def json_lines(file: Path) -> Iterator[tuple[int, Any, str]]:
    """Number, row, and what is wrong with it, of each line of a .jsonl file that is not blank.

    Lines count from 1. The row of a line that is no JSON is the line itself, as bytes.
    """
    opened = gzip.open if file.suffix == ".gz" else Path.open
    with opened(file, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError:
                yield number, line, "not UTF-8"
            except (ValueError, RecursionError):
                yield number, line, "no JSON"
            else:
                yield number, row, "" if isinstance(row, dict) else "no object with columns"


def _bad_line(file: Path) -> str | None:
    """The first line of a .jsonl file that is no row, and why; its reader counts them in blocks, from 0."""
    if READERS.get(suffix(file)) == "json":
        with suppress(EOFError, OSError, zlib.error):
            return next(
                (f"line {number}: {problem}" for number, _, problem in json_lines(file) if problem), None
            )
    return None


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


def load_tables(source: str) -> list[tuple[str, Dataset]]:
    """The tables of a source with the name each has in messages: one a file, or one for a hub split.

    Raises:
        PairsError: the source is not there, or cannot be read.
    """
    if source == "sample://preferences":
        return [(source, Dataset.from_list(samples.preferences()))]
    if source.startswith("sample://"):
        raise PairsError(f"{source}: the built-in pairs are sample://preferences")
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if suffix(file) in READERS)
        if not files:
            raise PairsError(f"{source}: no {', '.join(READERS)} file in this folder")
    elif path.exists():
        if suffix(path) not in READERS:
            raise PairsError(f"{source}: not a {', '.join(READERS)} file")
        files = [path]
    elif suffix(path) in READERS or source.startswith((".", "/", "~")):
        raise PairsError(f"{source}: no such file or folder")
    else:
        return [(source, load_hub(source))]
    return [(str(file), load_file(file, ("id", *COLUMNS))) for file in files]


def suffix(path: Path) -> str:
    """The end of a file's name that says how it is read: `READERS` has those that are."""
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def counted(reasons: Counter[str]) -> str:
    """How often each reason occurred, in words."""
    return ", ".join(f"{count:,} × {reason}" for reason, count in reasons.items()) or "nothing"


def _rows_where(part: Dataset, where: Mapping[str, Any], name: str) -> NDArray[np.intp]:
    """Numbers, from 0, of the rows whose columns have the wanted values."""
    found = ", ".join(part.column_names)
    for column in ("chosen", "rejected"):
        if column not in part.column_names:
            raise PairsError(
                f"{name}: no column {column!r}; found {found}. Rename the columns to prompt (where there is "
                "one), chosen and rejected."
            )
    kept = np.ones(len(part), dtype=bool)
    for column, wanted in where.items():
        if column not in part.column_names:
            raise PairsError(f"{name}: no column {column!r}, which data.where names; found {found}")
        kept &= [value == wanted or str(value) == str(wanted) for value in part[column]]
    return np.flatnonzero(kept)


def _canonical_table(part: Dataset, origin: str) -> Dataset:
    """`COLUMNS`, and `problem`: empty, or why the row is invalid, as `reason` or `reason: detail`."""
    read_columns = [column for column in ("id", *COLUMNS) if column in part.column_names]
    return part.select_columns(read_columns).map(
        _canonical_batch,
        batched=True,
        remove_columns=read_columns,
        fn_kwargs={"origin": origin},
        features=datasets.Features({key: datasets.Value("string") for key in (*COLUMNS, "problem")}),
        load_from_cache_file=False,  # the cache does not notice when the code of this module changes
    )


def _canonical_batch(batch: dict[str, list[Any]], origin: str) -> dict[str, list[str]]:
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    canonical = [_canonical(row, origin) for row in rows]
    return {key: [row[key] for row in canonical] for key in (*COLUMNS, "problem")}


def _canonical(row: Mapping[str, Any], origin: str) -> dict[str, str]:
    prompt = chosen = rejected = problem = ""
    try:
        prompt, chosen, rejected = row_texts(row)
    except ValueError as error:
        problem = str(error)
    given = next((str(row[key]) for key in ("pair_id", "id") if row.get(key) not in (None, "")), None)
    return {
        "pair_id": given or content_id(prompt, chosen, rejected),
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "source": str(row.get("source") or origin),
        "problem": problem,
    }


def _turns_and_responses(row: Mapping[str, Any]) -> tuple[list[dialogue.Turn], str, str]:
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise ValueError("only one of chosen and rejected is text")
    asked: list[dialogue.Turn] = []
    if not isinstance(chosen, str):
        asked, chosen = _split_conversation(chosen, "chosen")
        asked_too, rejected = _split_conversation(rejected, "rejected")
        if asked != asked_too:
            raise ValueError("chosen and rejected differ before their last turn")
    elif prompt is None:
        prompt, chosen, rejected = _split_transcripts(chosen, rejected)
    if prompt is not None:
        given = _spoken(prompt) if isinstance(prompt, str) else _conversation(prompt, "prompt")
        # Some sources repeat the prompt in both conversations.
        asked = asked if all(turn in asked for turn in given) else given + asked
    return asked, chosen, rejected


def _spoken(text: str) -> list[dialogue.Turn]:
    """The turns of a prompt given as text."""
    text = text.strip()
    text = "" if text == _ASSISTANT.strip() else text.removesuffix(_ASSISTANT).rstrip()
    return [turn._replace(content=turn.content.strip()) for turn in dialogue.turns(text)]


def _split_transcripts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Prompt and responses of two transcripts that begin alike, split at the last `Assistant:` in common."""
    at = chosen.rfind(_ASSISTANT)
    while at >= 0 and not rejected.startswith(chosen[: at + len(_ASSISTANT)]):
        at = chosen.rfind(_ASSISTANT, 0, at)
    if at < 0:
        raise ValueError("neither a prompt nor a common Assistant turn to split at")
    end = at + len(_ASSISTANT)
    return chosen[:at], chosen[end:], rejected[end:]


def _conversation(turns: Any, name: str) -> list[dialogue.Turn]:
    try:
        conversation = [dialogue.Turn(turn["role"], turn["content"].strip()) for turn in turns]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{name} is neither text nor a list of turns with role and content") from error
    if not all(isinstance(part, str) for turn in conversation for part in turn):
        raise ValueError(f"{name} has a turn whose role or content is no text")
    return conversation


def _split_conversation(turns: Any, name: str) -> tuple[list[dialogue.Turn], str]:
    conversation = _conversation(turns, name)
    if not conversation or conversation[-1].role != "assistant":
        raise ValueError(f"{name} does not end with an assistant turn")
    return conversation[:-1], conversation[-1].content
