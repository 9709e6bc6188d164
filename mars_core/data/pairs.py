"""Preference pairs: where they come from, what makes one valid, and which of three sets it is in.

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
from typing import Any, Literal, NamedTuple

import datasets
import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mars_core.config import Configuration
from mars_core.data import dialogue, samples
from mars_core.errors import MarsError

COLUMNS = ("pair_id", "prompt", "chosen", "rejected", "source")
READERS = {".jsonl": "json", ".jsonl.gz": "json", ".parquet": "parquet", ".csv": "csv"}
NAMED_ROWS = 5
"""How many invalid rows an error names; it counts the others."""
_ASSISTANT = "\n\nAssistant:"
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # which JSON can spell, and UTF-8 cannot

datasets.disable_progress_bars()
logging.getLogger("datasets.packaged_modules.json.json").setLevel(logging.CRITICAL)  # it also raises all


class PairsError(MarsError, ValueError):
    """The data cannot be used as they are; the message names file, row and field."""


class DataConfig(Configuration):
    """Where the preference pairs come from and how they are divided."""

    train: str = "sample://preferences"
    """Source of the originals: sample://preferences, a local .jsonl[.gz], .parquet or .csv file or
    folder, or a hub dataset NAME[/DIRECTORY]@REVISION[:SPLIT]."""
    validation: str | None = None
    """Source of the validation pairs; by default a share of `train`, by hash of the prompt."""
    heldout: str | None = None
    """Source of the held-out pairs; by default a share of `train`, by hash of the prompt."""
    validation_share: float = Field(0.1, ge=0, lt=1)
    """Share of prompts that belongs to the validation set when no source is named for it."""
    heldout_share: float = Field(0.1, ge=0, lt=1)
    """Share of prompts that belongs to the held-out set when no source is named for it."""
    where: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Keep only rows whose columns have these values; a number also stands for its text."""
    subset: int | None = Field(None, ge=1)
    """Train on this many originals, drawn by the seed; by default on all."""
    flipped: float = Field(0.0, ge=0, le=0.5)
    """Exchange chosen and rejected in this share of the originals, drawn by the seed: label noise, to study
    what a method makes of it."""
    invalid: Literal["error", "drop"] = "error"
    """What to do with an invalid row: stop and name it, or leave it out and count it."""

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> "DataConfig":
        shares = sum(_shares(self))
        if shares >= 1:
            raise ValueError(f"validation_share + heldout_share is {shares:g}: no pair is left to train on")
        return self


class ThreeSets(NamedTuple):
    """Train, validation and held-out pairs (columns `COLUMNS`), and how many rows were left out and why."""

    train: Dataset
    validation: Dataset
    heldout: Dataset
    dropped: dict[str, int]


def three_sets(config: DataConfig, seed: int) -> ThreeSets:
    """Read the sources of `config` and divide them so that no prompt is in two sets.

    Without a source of its own a set is a share of the training source, by the hash of the prompt: a
    pair stays in its set when data are added. A training pair whose prompt occurs in a named held-out
    or validation source is left out and counted, and so is a validation pair whose prompt is held out.

    Raises:
        PairsError: a source cannot be read, a row is invalid, or a set ends up empty.
    """
    dropped: Counter[str] = Counter()

    def read_counted(source: str) -> Dataset:
        table, reasons = read(source, where=config.where, invalid=config.invalid)
        dropped.update(reasons)
        return table

    pool = read_counted(config.train)
    position = np.array([prompt_position(prompt) for prompt in pool["prompt"][:]])
    validation_share, heldout_share = _shares(config)
    in_heldout = position < heldout_share
    in_validation = position >= 1 - validation_share

    heldout = read_counted(config.heldout) if config.heldout else pool.select(np.flatnonzero(in_heldout))
    validation = (
        read_counted(config.validation) if config.validation else pool.select(np.flatnonzero(in_validation))
    )
    train = pool.select(np.flatnonzero(~in_heldout & ~in_validation))

    train = _without_prompts(train, heldout, "train row whose prompt is in the held-out set", dropped)
    validation = _without_prompts(
        validation, heldout, "validation row whose prompt is in the held-out set", dropped
    )
    train = _without_prompts(train, validation, "train row whose prompt is in the validation set", dropped)
    for name, table in (("train", train), ("validation", validation), ("heldout", heldout)):
        if len(table) == 0:
            raise PairsError(
                f"the {name} set is empty: data.train={config.train} has {len(pool)} pairs, of which, by "
                f"prompt, {validation_share:g} are for validation and {heldout_share:g} held out; left out: "
                f"{_counted(dropped)}. Change data.validation_share or data.heldout_share, or name a source "
                f"in data.{name}."
            )
    if config.subset is not None:
        train = fixed_subset(train, config.subset, seed)
    if config.flipped:
        train = with_flipped_labels(train, config.flipped, seed)
    return ThreeSets(train, validation, heldout, dict(dropped))


def fixed_subset(table: Dataset, size: int, seed: int) -> Dataset:
    """Draw `size` rows by a hash of seed and pair id; mostly the same rows when data are added.

    Raises:
        PairsError: there are fewer rows.
    """
    if size > len(table):
        raise PairsError(f"data.subset={size}, but there are only {len(table)} training pairs")
    return table.select(_drawn(table, size, str(seed)))


def with_flipped_labels(table: Dataset, share: float, seed: int) -> Dataset:
    """Exchange chosen and rejected in a share of the rows, drawn as those of `fixed_subset` are."""
    flipped = set(_drawn(table, round(share * len(table)), f"flipped {seed}"))

    def exchanged(row: dict[str, str], number: int) -> dict[str, str]:
        return {"chosen": row["rejected"], "rejected": row["chosen"]} if number in flipped else {}

    return table.map(exchanged, with_indices=True, load_from_cache_file=False)


def _drawn(table: Dataset, size: int, salt: str) -> list[int]:
    """So many rows, those whose ids have the smallest hashes."""
    rank = [hashlib.sha256(f"{salt}:{pair_id}".encode()).digest() for pair_id in table["pair_id"][:]]
    return sorted(sorted(range(len(table)), key=rank.__getitem__)[:size])


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
        raise PairsError(f"{source}: no pairs{condition}; left out: {_counted(reasons)}")
    return datasets.concatenate_datasets(tables), reasons


def exchanged(table: Dataset) -> int:
    """How many pairs have a counterpart in the table that prefers the other of the same two responses."""
    pairs = set(zip(table["prompt"][:], table["chosen"][:], table["rejected"][:], strict=True))
    return sum((prompt, rejected, chosen) in pairs for prompt, chosen, rejected in pairs)


def prompt_position(prompt: str) -> float:
    """Where a prompt falls in [0, 1), by hash; the same for prompts that differ in case or spacing only."""
    return int.from_bytes(hashlib.sha256(_normalised(prompt).encode()).digest()[:6]) / 2**48


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


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(f"{count:,} × {reason}" for reason, count in reasons.items()) or "nothing"


def _shares(config: DataConfig) -> tuple[float, float]:
    """Shares of the training source that belong to the validation and to the held-out set."""
    return (
        0.0 if config.validation else config.validation_share,
        0.0 if config.heldout else config.heldout_share,
    )


def _normalised(prompt: str) -> str:
    return " ".join(prompt.lower().split())


def _without_prompts(table: Dataset, other: Dataset, reason: str, dropped: Counter[str]) -> Dataset:
    taken = {_normalised(prompt) for prompt in other["prompt"][:]}
    keep = [row for row, prompt in enumerate(table["prompt"][:]) if _normalised(prompt) not in taken]
    if len(keep) < len(table):
        dropped[reason] += len(table) - len(keep)
    return table.select(keep)


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
