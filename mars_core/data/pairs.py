"""Preference pairs: which of three sets each is in, subsets of them, and label noise."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mars_core.config import PairsSource
from mars_core.data.formats.format import FORMATS
from mars_core.data.pool import Pool, prompt_key
from mars_core.data.reading import counted
from mars_core.data.source_rows import PairsError
from mars_core.extensions import PluginSection
from mars_core.files import remove
from mars_core.tables import Table, write


class DataConfig(PluginSection):
    """Where the preference pairs come from and how they are divided."""

    train: PairsSource = "sample://preferences"
    """Source of the originals: sample://preferences, a local .jsonl[.gz], .json[.gz], .parquet or .csv file
    or folder, an address such as s3://bucket/prefs/*.parquet, whose credentials are in the environment, or a
    hub dataset OWNER/NAME[/DIRECTORY]@REVISION[:SPLIT]."""
    format: Annotated[str, FORMATS] = "by_columns"
    """How rows become pairs: by default the columns of each file say; or a format by name, or a class of your
    own as module:attribute (docs/data_and_models.md)."""
    validation: PairsSource | None = None
    """Source of the validation pairs; by default a share of `train`, by hash of the prompt."""
    heldout: PairsSource | None = None
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
    """Train, validation and held-out pairs, in the columns of `mars_core.data.reading`."""

    train: Table
    validation: Table
    heldout: Table
    dropped: dict[str, int]
    """How many rows were left out, by reason."""
    remarks: list[str]
    """How each source was read."""
    exchanged: int
    """Originals with a counterpart that prefers the other of the same two responses."""


def three_sets(
    config: DataConfig,
    seed: int,
    folder: Path,
    refusal: Callable[[str], str | None] | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> ThreeSets:
    """Read the sources of `config` and divide them so that no prompt is in two sets.

    Without a source of its own a set is a share of the training source, by the hash of the prompt: a
    pair stays in its set when data are added. A training pair whose prompt occurs in a named held-out
    or validation source is left out and counted, and so is a validation pair whose prompt is held out.

    Args:
        config: the sources.
        seed: of the subset and the label noise.
        folder: gets the tables; a call that was killed goes on in it at the part that it was at.
        refusal: why a stored prompt cannot be used, if so; its rows are invalid.
        on_rows: called with the number of pairs that were read since its last call.

    Raises:
        PairsError: a source cannot be read, a row is invalid, or a set ends up empty.
    """
    dropped: Counter[str] = Counter()
    sources = {"train": config.train, "heldout": config.heldout, "validation": config.validation}
    pools = {name: Pool(source, folder / "pools" / name) for name, source in sources.items() if source}
    for pool in pools.values():
        pool.read(config.open(), where=config.where, invalid=config.invalid, refusal=refusal, on_rows=on_rows)
        dropped.update(pool.left_out)

    sets = _divided(config, pools, dropped)
    for name, part in sets.items():
        if not part.keep.any():
            validation_share, heldout_share = _shares(config)
            raise PairsError(
                f"the {name} set is empty: data.train={config.train} has {len(pools['train'])} pairs, of "
                f"which, by prompt, {validation_share:g} are for validation and {heldout_share:g} held out; "
                f"left out: {counted(dropped)}. Change data.validation_share or data.heldout_share, or name "
                f"a source in data.{name}."
            )
    train = sets["train"]
    if config.subset is not None:
        train.keep = fixed_subset(train, config.subset, seed)
    if config.flipped:
        train.flipped = flipped_labels(train, config.flipped, seed)
    for name, part in sets.items():
        remove(folder / f"{name}.parquet")
        write(folder / f"{name}.parquet", part.batches())
    remarks = [remark for pool in pools.values() for remark in pool.remarks]
    names = ("train", "validation", "heldout")
    train_pairs, validation, heldout = (Table(folder / f"{name}.parquet") for name in names)
    return ThreeSets(train_pairs, validation, heldout, dict(dropped), remarks, exchanged(train.texts_keys()))


@dataclass
class Share:
    """Some pairs of a pool."""

    pool: Pool
    keep: NDArray[np.bool_]
    """[n] which pairs of the pool."""
    flipped: NDArray[np.bool_] | None = None
    """[n] those whose chosen and rejected are exchanged, if any."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The pairs, at least one batch."""
        yield pa.RecordBatch.from_pylist([], schema=self.pool.schema)
        start = 0
        for batch in self.pool.batches():
            rows = slice(start, start + len(batch))
            start += len(batch)
            if self.flipped is not None and self.flipped[rows].any():
                batch = _exchange(batch, pa.array(self.flipped[rows]))
            if self.keep[rows].any():
                yield batch.filter(pa.array(self.keep[rows]))

    def texts_keys(self) -> NDArray[np.uint64]:
        """What the pairs' texts are known by, [m], with the chosen response as it is here."""
        keys = self.pool.keys("texts_key")
        if self.flipped is not None:
            keys = keys ^ self.flipped
        return keys[self.keep]


def _divided(config: DataConfig, pools: Mapping[str, Pool], dropped: Counter[str]) -> dict[str, Share]:
    """Which pairs each set has; counts those that no set may have."""
    keys = {name: pool.keys("prompt_key") for name, pool in pools.items()}
    position = _positions(keys["train"])
    validation_share, heldout_share = _shares(config)
    shared = {"heldout": position < heldout_share, "validation": position >= 1 - validation_share}
    of_train = ~shared["heldout"] & ~shared["validation"]
    del position

    def mine(name: str) -> tuple[Share, NDArray[np.uint64]]:
        if name in pools:
            return Share(pools[name], np.ones(len(keys[name]), dtype=bool)), keys[name]
        return Share(pools["train"], shared[name]), keys["train"]

    heldout, heldout_keys = mine("heldout")
    validation, validation_keys = mine("validation")
    train = Share(pools["train"], of_train)

    def leave_out(part: Share, own: NDArray[np.uint64], other: NDArray[np.uint64], reason: str) -> None:
        taken = np.unique(other)
        if not len(taken):
            return
        at = np.minimum(np.searchsorted(taken, own), len(taken) - 1)
        bad = part.keep & (taken[at] == own)
        part.keep = part.keep & ~bad
        if bad.any():
            dropped[reason] += int(bad.sum())

    # Sets that share a source share no prompt.
    if "heldout" in pools:
        leave_out(train, keys["train"], heldout_keys, "train row whose prompt is in the held-out set")
    if "heldout" in pools or "validation" in pools:
        leave_out(
            validation, validation_keys, heldout_keys[heldout.keep],
            "validation row whose prompt is in the held-out set",
        )  # fmt: skip
    if "validation" in pools:
        leave_out(
            train, keys["train"], validation_keys[validation.keep],
            "train row whose prompt is in the validation set",
        )  # fmt: skip
    return {"train": train, "validation": validation, "heldout": heldout}


def fixed_subset(share: Share, size: int, seed: int) -> NDArray[np.bool_]:
    """Draw `size` rows by a hash of seed and pair id; mostly the same rows when data are added.

    Raises:
        PairsError: there are fewer rows.
    """
    there = int(share.keep.sum())
    if size > there:
        raise PairsError(f"data.subset={size}, but there are only {there} training pairs")
    return _drawn(share, size, str(seed))


_FLIPPED = "flipped {}"
"""The salt of the hashes that draw the flipped labels, by the seed."""


def flipped_labels(share: Share, part: float, seed: int) -> NDArray[np.bool_]:
    """Which rows have chosen and rejected exchanged: a part of them, drawn as those of `fixed_subset` are."""
    return _drawn(share, round(part * int(share.keep.sum())), _FLIPPED.format(seed))


def flipped_of(pair_ids: Sequence[str], part: float, seed: int) -> NDArray[np.bool_]:
    """Which originals of a run had chosen and rejected exchanged by `flipped_labels`, [n], from all ids."""
    ranks = np.array([_rank(_FLIPPED.format(seed), pair_id) for pair_id in pair_ids], dtype=np.uint64)
    flipped = np.zeros(len(ranks), dtype=bool)
    flipped[np.argsort(ranks, kind="stable")[: round(part * len(ranks))]] = True
    return flipped


def _drawn(share: Share, size: int, salt: str) -> NDArray[np.bool_]:
    """So many rows of a share, [n of the pool], those whose ids have the smallest hashes."""
    ranks, start = np.zeros(len(share.keep), dtype=np.uint64), 0
    for batch in share.pool.batches("pair_id"):
        for row, pair_id in enumerate(batch["pair_id"].to_pylist(), start):
            if share.keep[row]:
                ranks[row] = _rank(salt, pair_id)
        start += len(batch)
    rows = np.flatnonzero(share.keep)
    drawn = np.zeros(len(share.keep), dtype=bool)
    drawn[rows[np.argsort(ranks[rows], kind="stable")[:size]]] = True
    return drawn


def _rank(salt: str, pair_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{salt}:{pair_id}".encode()).digest()[:8])


def _exchange(batch: pa.RecordBatch, flipped: pa.Array) -> pa.RecordBatch:
    """A batch with chosen and rejected exchanged in some rows."""
    sides = {"chosen": batch["rejected"], "rejected": batch["chosen"]}
    for name, other in sides.items():
        at = batch.schema.get_field_index(name)
        batch = batch.set_column(at, name, pc.if_else(flipped, other, batch[name]))
    return batch


def exchanged(texts_keys: NDArray[np.uint64]) -> int:
    """How many distinct pairs have a counterpart that prefers the other of the same two responses.

    Args:
        texts_keys: [n] of each pair, as of `mars_core.data.pool.texts_key`: those of counterparts differ in
            the last bit alone.
    """
    keys = np.unique(texts_keys)
    even = keys[:-1] % 2 == 0
    return 2 * int((even & (keys[1:] - keys[:-1] == 1)).sum())


def prompt_position(prompt: str) -> float:
    """Where a prompt falls in [0, 1), by hash; the same for prompts that differ in case or spacing only."""
    return (prompt_key(prompt) >> 16) / 2**48


def _positions(prompt_keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The same of many, by their keys, [n]; held-out and validation are the two ends."""
    return (prompt_keys >> np.uint64(16)).astype(np.float64) / 2**48


def _shares(config: DataConfig) -> tuple[float, float]:
    """Shares of the training source that belong to the validation and to the held-out set."""
    return (
        0.0 if config.validation else config.validation_share,
        0.0 if config.heldout else config.heldout_share,
    )
