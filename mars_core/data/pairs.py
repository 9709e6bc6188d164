"""Preference pairs: which of three sets each is in, subsets of them, and label noise."""

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import numpy as np
from datasets import Dataset
from pydantic import Field, model_validator

from mars_core.data.formats.format import FORMATS
from mars_core.data.reading import counted, read
from mars_core.data.source_rows import PairsError
from mars_core.extensions import PluginSection


class DataConfig(PluginSection):
    """Where the preference pairs come from and how they are divided."""

    train: str = "sample://preferences"
    """Source of the originals: sample://preferences, a local .jsonl[.gz], .json[.gz], .parquet or .csv file
    or folder, or a hub dataset OWNER/NAME[/DIRECTORY]@REVISION[:SPLIT]."""
    format: Annotated[str, FORMATS] = "by_columns"
    """How rows become pairs: by default the columns of each file say; or a format by name, or a class of your
    own as module:attribute (docs/data_and_models.md)."""
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
    """Train, validation and held-out pairs, as `mars_core.data.reading` has them."""

    train: Dataset
    validation: Dataset
    heldout: Dataset
    dropped: dict[str, int]
    """How many rows were left out, by reason."""
    remarks: list[str]
    """How each source was read."""


def three_sets(
    config: DataConfig, seed: int, refusal: Callable[[str], str | None] | None = None
) -> ThreeSets:
    """Read the sources of `config` and divide them so that no prompt is in two sets.

    Without a source of its own a set is a share of the training source, by the hash of the prompt: a
    pair stays in its set when data are added. A training pair whose prompt occurs in a named held-out
    or validation source is left out and counted, and so is a validation pair whose prompt is held out.

    Args:
        config: the sources.
        seed: of the subset and the label noise.
        refusal: why a stored prompt cannot be used, if so; its rows are invalid.

    Raises:
        PairsError: a source cannot be read, a row is invalid, or a set ends up empty.
    """
    dropped: Counter[str] = Counter()
    remarks = list[str]()
    reads = config.open()

    def read_counted(source: str) -> Dataset:
        found = read(source, reads, where=config.where, invalid=config.invalid, refusal=refusal)
        dropped.update(found.left_out)
        remarks.extend(found.remarks)
        return found.table

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
                f"{counted(dropped)}. Change data.validation_share or data.heldout_share, or name a source "
                f"in data.{name}."
            )
    if config.subset is not None:
        train = fixed_subset(train, config.subset, seed)
    if config.flipped:
        train = with_flipped_labels(train, config.flipped, seed)
    return ThreeSets(train, validation, heldout, dict(dropped), remarks)


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


def exchanged(table: Dataset) -> int:
    """How many pairs have a counterpart in the table that prefers the other of the same two responses."""
    pairs = set(zip(table["prompt"][:], table["chosen"][:], table["rejected"][:], strict=True))
    return sum((prompt, rejected, chosen) in pairs for prompt, chosen, rejected in pairs)


def prompt_position(prompt: str) -> float:
    """Where a prompt falls in [0, 1), by hash; the same for prompts that differ in case or spacing only."""
    return int.from_bytes(hashlib.sha256(_normalised(prompt).encode()).digest()[:6]) / 2**48


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
