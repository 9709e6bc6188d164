"""The pairs that a fit trains on, checked: several Parquet files as one table."""

from collections.abc import Mapping
from pathlib import Path

import datasets
import numpy as np
import pyarrow
from datasets import Dataset

from mars_core.fit.specification import FitError
from mars_core.tables import Table, TableError

PAIR = datasets.Features(
    {name: datasets.Value("string") for name in ("pair_id", "prompt", "chosen", "rejected")}
    | {name: datasets.Value("float32") for name in ("weight", "margin")}
)

PARAPHRASE = {"paraphrase": datasets.Value("string")}


def training_pairs(
    files: list[Path],
    *,
    synthetic_weight: float = 1.0,
    paraphrases: bool = False,
    labels: Mapping[str, tuple[str, ...]] | None = None,
) -> Dataset:
    """The rows of several artifacts as one table: pair_id, prompt, chosen, rejected, weight, margin.

    If a file has no such column, the weight is 1 and the margin nan (none); a margin may also be null.
    Weights of pairs with a synthetic_id are multiplied by `synthetic_weight`. With `paraphrases` there is a
    column paraphrase: a paraphrase of chosen, or null. The columns of `labels`, each with the labels that it
    may hold, become places in these, −1 for null.

    Raises:
        FitError: a file is no such table, there are no rows with a weight, a row's weight is not positive, or
            a label is not known; the message names the file and the row.
    """
    tables = []
    for file in files:
        table, is_synthetic = _table(file)
        for name, default in (("weight", 1.0), ("margin", np.nan)):
            if name not in table.column_names:
                table = table.add_column(name, np.full(len(table), default, dtype=np.float32))
        if paraphrases and "paraphrase" not in table.column_names:
            table = table.add_column("paraphrase", [None] * len(table))
        for name, known in (labels or {}).items():
            table = _with_places(file, table, name, known)
        places = {name: datasets.Value("int64") for name in labels or {}}
        columns = PAIR | (PARAPHRASE if paraphrases else {}) | places
        table = table.select_columns(list(columns))
        table = table if table.features == columns else table.cast(datasets.Features(columns))
        numbers = table.with_format("numpy").select_columns(["weight", "margin"])[:]
        weight, asked = numbers["weight"], numbers["margin"]
        for row in np.flatnonzero(~((weight > 0) & np.isfinite(weight)) | np.isinf(asked))[:1]:
            raise FitError(
                f"{file}: row {row} has the weight {weight[row]:g} and the margin {asked[row]:g}; a weight "
                "is positive, and both are finite"
            )
        if is_synthetic and synthetic_weight != 1:
            weight = weight * np.float32(synthetic_weight)
            table = table.remove_columns("weight").add_column("weight", weight).select_columns(list(columns))
        tables.append(table)
    pairs = datasets.concatenate_datasets(tables)
    if not any(pairs["weight"]):
        raise FitError(f"no pairs to fit to in {', '.join(map(str, files))}")
    return pairs


def _with_places(file: Path, table: Dataset, name: str, known: tuple[str, ...]) -> Dataset:
    """A table whose labels in a column, if it has one, are places among the known ones."""
    place = {label: number for number, label in enumerate(known)} | {None: -1}
    labels = table[name][:] if name in table.column_names else [None] * len(table)
    for row, label in enumerate(labels):
        if label not in place:
            raise FitError(f"{file}: row {row} has the {name} {label!r}; it is {', '.join(known)} or null")
    kept = table.remove_columns(name) if name in table.column_names else table
    return kept.add_column(name, np.array([place[label] for label in labels]))


def _table(file: Path) -> tuple[Dataset, bool]:
    """The rows of a file, and whether they are synthetic pairs."""
    if not file.exists():
        raise FitError(f"{file}: no such file of pairs")
    try:
        arrow = Table(file).read()
    except (OSError, TableError, pyarrow.ArrowInvalid) as error:
        raise FitError(f"{file}: no Parquet file of pairs can be read from it: {error}") from error
    if "margin" in arrow.column_names:
        place = arrow.column_names.index("margin")
        arrow = arrow.set_column(place, "margin", arrow["margin"].cast(pyarrow.float32()).fill_null(np.nan))
    table = Dataset(arrow)
    is_synthetic = "synthetic_id" in table.column_names
    if is_synthetic:
        table = table.rename_column("synthetic_id", "pair_id")
    for name in ("pair_id", "prompt", "chosen", "rejected"):
        column = table.data.column(name) if name in table.column_names else None
        if column is None or column.null_count or not _is_text(column.type):
            raise FitError(f"{file}: needs a column {name} of texts, without gaps")
    return table, is_synthetic


def _is_text(kind: pyarrow.DataType) -> bool:
    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind))
