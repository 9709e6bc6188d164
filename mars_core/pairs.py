"""Preference pairs: where they come from, what makes one valid, and which of three sets it is in.

Everything downstream sees one table with the columns `COLUMNS`, memory-mapped by `datasets`. A prompt
is in the stored form of `mars_core.dialogue`; a response is plain text.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import datasets
import numpy as np
from datasets import Dataset
from pydantic import Field

from mars_core import dialogue, samples
from mars_core.configurable import Configuration

COLUMNS = ("pair_id", "prompt", "chosen", "rejected", "source")
READERS = {".jsonl": "json", ".jsonl.gz": "json", ".parquet": "parquet", ".csv": "csv"}
_ASSISTANT = "\n\nAssistant:"


class PairsError(ValueError):
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
    where: dict[str, str | int | float | bool] = {}
    """Keep only rows whose columns have these values."""
    subset: int | None = Field(None, ge=1)
    """Train on this many originals, drawn by the seed; by default on all."""
    invalid: Literal["error", "drop"] = "error"
    """What to do with an invalid row: stop and name it, or leave it out and count it."""


class ThreeSets(NamedTuple):
    """Train, validation and held-out pairs (columns `COLUMNS`), and how many rows were left out, by reason."""

    train: Dataset
    validation: Dataset
    heldout: Dataset
    dropped: dict[str, int]


def three_sets(config: DataConfig, seed: int) -> ThreeSets:
    """Read the sources of `config` and divide them so that no prompt is in two sets.

    Without a source of its own a set is a share of the training source, by the hash of the prompt: a
    pair stays in its set when data are added. A pair of a named training source whose prompt occurs
    in the held-out or the validation set is left out and counted.

    Raises:
        PairsError: a source cannot be read, a row is invalid, or a set ends up empty.
    """
    dropped: Counter[str] = Counter()

    def read_counted(source: str) -> Dataset:
        table, reasons = read(source, where=config.where, invalid=config.invalid)
        dropped.update(reasons)
        return table

    pool = read_counted(config.train)
    position = np.array([prompt_position(prompt) for prompt in pool["prompt"]])
    in_heldout = position < (0 if config.heldout else config.heldout_share)
    in_validation = (position >= 1 - (0 if config.validation else config.validation_share)) & ~in_heldout

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
    if config.subset is not None:
        train = fixed_subset(train, config.subset, seed)
    for name, table in (("train", train), ("validation", validation), ("heldout", heldout)):
        if len(table) == 0:
            raise PairsError(
                f"the {name} set is empty: data.train={config.train} has {len(pool)} pairs; "
                f"name data.{name} or change data.validation_share and data.heldout_share"
            )
    return ThreeSets(train, validation, heldout, dict(dropped))


def fixed_subset(table: Dataset, size: int, seed: int) -> Dataset:
    """Draw `size` rows by a hash of seed and pair id; mostly the same rows when data are added."""
    if size > len(table):
        raise PairsError(f"data.subset={size}, but there are only {len(table)} training pairs")
    rank = [hashlib.sha256(f"{seed}:{pair_id}".encode()).digest() for pair_id in table["pair_id"]]
    return table.select(sorted(sorted(range(len(table)), key=rank.__getitem__)[:size]))


def read(
    source: str, *, where: Mapping[str, Any] | None = None, invalid: Literal["error", "drop"] = "error"
) -> tuple[Dataset, Counter[str]]:
    """Read one source into the columns `COLUMNS`; the second value counts left-out rows by reason.

    Rows hold prompt, chosen and rejected as text or as conversations (lists of role and content).
    Without a prompt column the two dialogues are split at their last common `Assistant:`.

    Raises:
        PairsError: the source is not there or has a wrong form, or (`invalid="error"`) a row is.
    """
    parts = _load(source)
    tables, reasons, bad_rows = [], Counter[str](), list[str]()
    for name, part in parts:
        for column in ("chosen", "rejected"):
            if column not in part.column_names:
                raise PairsError(f"{name}: no column {column!r}; found {', '.join(part.column_names)}")
        for column, value in (where or {}).items():
            if column not in part.column_names:
                raise PairsError(f"{name}: data.where names {column!r}; found {', '.join(part.column_names)}")
            part = part.select(np.flatnonzero([found == value for found in part[column]]))
        table = part.map(
            _canonical_batch,
            batched=True,
            remove_columns=part.column_names,
            fn_kwargs={"origin": source},
            features=datasets.Features({key: datasets.Value("string") for key in (*COLUMNS, "problem")}),
        )
        problems = list(table["problem"])
        for row in np.flatnonzero([bool(problem) for problem in problems]):
            reasons[problems[row]] += 1
            if len(bad_rows) < 5:
                bad_rows.append(f"{name}: row {row + 1}: {problems[row]}")
        tables.append(table.select(np.flatnonzero([not problem for problem in problems])))
    merged = datasets.concatenate_datasets(tables).select_columns(list(COLUMNS))

    first_row: dict[str, int] = {}
    for row, pair_id in enumerate(merged["pair_id"]):
        if first_row.setdefault(pair_id, row) != row:
            reasons["duplicate id"] += 1
            if len(bad_rows) < 5:
                bad_rows.append(f"{source}: duplicate id {pair_id!r}")
    if bad_rows and invalid == "error":
        listed = "\n  ".join(bad_rows)
        raise PairsError(
            f"{reasons.total()} invalid rows:\n  {listed}\nRepair them, or set data.invalid=drop to leave them out."
        )
    if len(first_row) == 0:
        raise PairsError(f"{source}: no pairs" + (f" where {dict(where)}" if where else ""))
    return merged.select(list(first_row.values())), reasons


def prompt_position(prompt: str) -> float:
    """Where a prompt falls in [0, 1), by hash; the same for prompts that differ in case or spacing only."""
    return int.from_bytes(hashlib.sha256(_normalised(prompt).encode()).digest()[:8]) / 2**64


def _normalised(prompt: str) -> str:
    return " ".join(prompt.lower().split())


def _without_prompts(table: Dataset, other: Dataset, reason: str, dropped: Counter[str]) -> Dataset:
    taken = {_normalised(prompt) for prompt in other["prompt"]}
    keep = [row for row, prompt in enumerate(table["prompt"]) if _normalised(prompt) not in taken]
    if len(keep) < len(table):
        dropped[reason] += len(table) - len(keep)
    return table.select(keep)


def _load(source: str) -> list[tuple[str, Dataset]]:
    """The tables of a source with the name each has in messages: one a file, or one for a hub split."""
    if source == "sample://preferences":
        return [(source, Dataset.from_list(samples.preferences()))]
    if source.startswith("sample://"):
        raise PairsError(f"{source}: the built-in pairs are sample://preferences")
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if _suffix(file) in READERS)
        if not files:
            raise PairsError(f"{source}: no {', '.join(READERS)} file in this folder")
        return [(str(file), _load_file(file)) for file in files]
    if path.exists():
        if _suffix(path) not in READERS:
            raise PairsError(f"{source}: not a {', '.join(READERS)} file")
        return [(source, _load_file(path))]
    if _suffix(path) in READERS or source.startswith((".", "/", "~")):
        raise PairsError(f"{source}: no such file or folder")
    return [(source, load_hub(source))]


def load_hub(source: str, default_split: str = "train") -> Dataset:
    """Load NAME[/DIRECTORY]@REVISION[:SPLIT] from the hub; no dataset code is executed."""
    location, _, revision = source.partition("@")
    revision, _, split = revision.partition(":")
    name, directory = "/".join(location.split("/")[:2]), "/".join(location.split("/")[2:])
    try:
        return datasets.load_dataset(
            name, data_dir=directory or None, revision=revision or None, split=split or default_split
        )
    except Exception as error:  # the hub client raises many kinds; all mean the same to the reader
        raise PairsError(
            f"{source}: neither a local file nor a hub dataset that could be loaded ({error})"
        ) from error


def _suffix(path: Path) -> str:
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def _load_file(path: Path) -> Dataset:
    try:
        return datasets.load_dataset(READERS[_suffix(path)], data_files=str(path), split="train")
    except datasets.exceptions.DatasetGenerationError as error:
        raise PairsError(f"{path}: cannot be read: {error.__cause__ or error}") from error


def _canonical_batch(batch: dict[str, list[Any]], origin: str) -> dict[str, list[str]]:
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    canonical = [_canonical(row, origin) for row in rows]
    return {key: [row[key] for row in canonical] for key in (*COLUMNS, "problem")}


def _canonical(row: Mapping[str, Any], origin: str) -> dict[str, str]:
    """One row in the stored form; `problem` says why it is invalid, or is empty."""
    prompt = chosen = rejected = problem = ""
    try:
        prompt, chosen, rejected = _texts(row)
    except ValueError as error:
        problem = str(error)
    else:
        empty = [
            name
            for name, text in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected))
            if not text
        ]
        if empty:
            problem = f"{empty[0]} is empty"
        elif chosen == rejected:
            problem = "chosen equals rejected"
    given = row.get("pair_id") if row.get("pair_id") is not None else row.get("id")
    digest = hashlib.sha256("\0".join((prompt, chosen, rejected)).encode()).hexdigest()[:16]
    return {
        "pair_id": digest if given is None else str(given),
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "source": str(row.get("source") or origin),
        "problem": problem,
    }


def _texts(row: Mapping[str, Any]) -> tuple[str, str, str]:
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    for name in ("chosen", "rejected", *(("prompt",) if "prompt" in row else ())):
        if row[name] is None:
            raise ValueError(f"{name} is null")
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is None:
            prompt, chosen, rejected = _split_transcripts(chosen, rejected)
        if not isinstance(prompt, str):
            prompt = dialogue.transcript(_conversation(prompt, "prompt"))
        return stored_prompt(prompt), chosen.strip(), rejected.strip()
    asked, answer = _split_conversation(chosen, "chosen")
    asked_too, worse = _split_conversation(rejected, "rejected")
    if asked != asked_too:
        raise ValueError("the two conversations differ before their last turn")
    if isinstance(prompt, str):
        asked = asked or [dialogue.Turn("user", prompt.strip())]
    elif prompt is not None:
        asked = _conversation(prompt, "prompt") + asked
    return dialogue.transcript(asked), answer.strip(), worse.strip()


def stored_prompt(text: str) -> str:
    """A prompt given as text in the stored form: turns stripped, without the trailing `Assistant:` of HH data."""
    text = text.strip().removesuffix(_ASSISTANT.strip()).rstrip()
    return dialogue.transcript([turn._replace(content=turn.content.strip()) for turn in dialogue.turns(text)])


def _split_transcripts(chosen: str, rejected: str) -> tuple[str, str, str]:
    same = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b),
        min(len(chosen), len(rejected)),
    )
    at = chosen.rfind(_ASSISTANT, 0, same + 1)
    if at < 0:
        raise ValueError("no prompt column, and no common 'Assistant:' at which to split")
    end = at + len(_ASSISTANT)
    return chosen[:at], chosen[end:], rejected[end:]


def _conversation(turns: Any, name: str) -> list[dialogue.Turn]:
    try:
        return [dialogue.Turn(turn["role"], (turn["content"] or "").strip()) for turn in turns]
    except (TypeError, KeyError) as error:
        raise ValueError(f"{name} is neither text nor a list of role and content") from error


def _split_conversation(turns: Any, name: str) -> tuple[list[dialogue.Turn], str]:
    conversation = _conversation(turns, name)
    if not conversation or conversation[-1].role != "assistant":
        raise ValueError(f"{name} does not end with an assistant turn")
    return conversation[:-1], conversation[-1].content
