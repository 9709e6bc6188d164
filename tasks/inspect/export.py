"""Export of a run's synthetic pairs in the formats of other trainers."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pyarrow.parquet
from datasets import Dataset

from mars_core.data import dialogue
from mars_core.data.reading import write_table
from tasks.run.run_folder import RunFolderError, existing_run

Format = Literal["hh", "trl", "parquet"]
Row = dict[str, object]


def export_pairs(root: Path, form: Format, output: Path | None = None) -> tuple[Path, int]:
    """Write the synthetic pairs of all rounds into one file; returns the file and its number of rows.

    `hh` has two transcripts in each row, `trl` explicit conversations (prompt, chosen, rejected as lists of
    role and content), both as JSON lines with the ids of the pair and its original; `parquet` keeps all
    columns.

    Raises:
        RunFolderError: there is no run, or no round of it has synthetic pairs yet.
    """
    run = existing_run(root)
    files = [file for t in run.rounds() if (file := run.path(run.of_round(t).synthetic)).exists()]
    if not files:
        raise RunFolderError(f"{root}: no round has synthetic pairs yet")
    pairs = Dataset(pyarrow.concat_tables(map(pyarrow.parquet.read_table, files)))
    file = output or run.path("synthetic.parquet" if form == "parquet" else f"synthetic-{form}.jsonl")
    if form == "parquet":
        write_table(pairs, file)
    else:
        render: Callable[[Row], Row] = _hh if form == "hh" else _trl
        rendered = pairs.map(render, remove_columns=pairs.column_names)
        with file.open("wb") as lines:
            rendered.to_json(lines)
    return file, len(pairs)


def _hh(pair: Row) -> Row:
    turns = dialogue.turns(str(pair["prompt"]))
    asked = "".join(f"\n\n{dialogue.SPEAKERS[turn.role]}: {turn.content}" for turn in turns)
    return _ids(pair) | {side: f"{asked}\n\nAssistant: {pair[side]}" for side in ("chosen", "rejected")}


def _trl(pair: Row) -> Row:
    asked = [turn._asdict() for turn in dialogue.turns(str(pair["prompt"]))]
    answers = {side: [{"role": "assistant", "content": pair[side]}] for side in ("chosen", "rejected")}
    return _ids(pair) | {"prompt": asked, **answers}


def _ids(pair: Row) -> Row:
    return {name: pair[name] for name in ("synthetic_id", "parent_id")}
