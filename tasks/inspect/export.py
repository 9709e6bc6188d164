"""Export for use elsewhere: a run's synthetic pairs in the formats of other trainers, or a model as a whole
checkpoint; each with its card."""

import math
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Literal

import pandas as pd

from mars_core.data import dialogue
from mars_core.files import write_whole
from mars_core.model.reward_model import ModelConfig
from mars_core.report.cards import pairs_card
from mars_core.tables import Table, write
from tasks.run.run_config import TrackingConfig
from tasks.run.run_folder import RunFolderError, existing_run
from tasks.using.describe import about_pairs, hub, licences, synthetic_tables
from tasks.using.publish import staged_model

Format = Literal["hh", "trl", "parquet"]
Row = dict[str, object]


def export_pairs(root: Path, form: Format, output: Path | None = None) -> tuple[Path, int]:
    """Write the synthetic pairs of all rounds into one file; returns the file and its number of rows.

    `hh` has two transcripts in each row, `trl` explicit conversations (prompt, chosen, rejected as lists of
    role and content), both as JSON lines with the ids of the pair and its original; `parquet` keeps all
    columns. The card, which tells sources and licences, stands beside the file as NAME.card.md.

    Raises:
        RunFolderError: there is no run, no round of it has synthetic pairs yet, or `output` is a folder.
    """
    run = existing_run(root)
    tables = synthetic_tables(run)
    file = output or run.path("synthetic.parquet" if form == "parquet" else f"synthetic-{form}.jsonl")
    if file.is_dir():
        raise RunFolderError(f"{file} is a folder: name a file")
    if file.is_symlink():  # it stays one
        file = file.resolve()
    if form == "parquet":
        rows = chain.from_iterable(table.batches() for table in tables)
        write_whole(file, lambda path: write(path, rows, part_bytes=math.inf))
    else:
        render: Callable[[Row], Row] = _hh if form == "hh" else _trl
        write_whole(file, lambda path: _write_lines(path, tables, render))
    card = pairs_card(about_pairs(run, tables, licences(hub())))
    write_whole(file.with_suffix(".card.md"), lambda path: path.write_text(card, encoding="utf-8"))
    return file, sum(map(len, tables))


def export_model(reference: str, output: Path) -> Path:
    """Write a run's best model, or any model, as a whole checkpoint with its card, into a folder of its own.

    Raises:
        ModelError, RunFolderError, PublishError: as of `mars_core.model.plain_checkpoint` and
            `tasks.using.publish.staged_model`.
    """
    if output.exists():
        raise RunFolderError(f"{output} is there already: name a folder that is not")
    output.parent.mkdir(parents=True, exist_ok=True)
    with staged_model(
        reference,
        ModelConfig(),
        tracking=TrackingConfig(),
        licence_of=licences(hub()),
        place=output.parent,
    ) as staged:
        staged.folder.rename(output)
    return output


def _write_lines(file: Path, tables: Iterable[Table], render: Callable[[Row], Row]) -> None:
    with file.open("w") as lines:
        for batch in chain.from_iterable(table.batches() for table in tables):
            rows = pd.DataFrame(map(render, batch.to_pylist()))
            rows.to_json(lines, orient="records", lines=True)


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
