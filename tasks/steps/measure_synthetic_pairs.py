"""Measure the synthetic pairs' margins before and after the fit."""

from collections.abc import Iterator
from functools import partial
from shutil import copyfile

import pandas as pd
import pyarrow as pa

from mars_core.method.augmentation import PARTS
from mars_core.method.synthetic_margins import summarise
from mars_core.tables import Table
from tasks.run.compute_rewards import score_pairs
from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder
from tasks.run.step import Made, step


@step("synthetic", version=5, reads=("model", "fit.objective"))
def measure_synthetic_pairs(
    run: RunFolder,
    round: int,
    augmented: ArtifactRef,
    rewrites: ArtifactRef,
    originals: ArtifactRef,
    before: ArtifactRef,
    after: ArtifactRef,
) -> Made[Outputs]:
    """Margins of the `synthetic` pairs under the previous round's model, and after the fit on them.

    `originals` are the originals' margins. If the objective defines a curvature, `moments` are
    those of the features under the previous round's model.
    """
    paths, made = run.of_round(round), Outputs()
    table = run.open(augmented)
    numbers = table.read(*(name for name in table.columns if name not in PARTS)).to_pandas()
    for moment, model in (("before", before), ("after", after)):
        title = f"round {round} · synthetic margins {moment} the fit"
        with score_pairs(run, model, {"synthetic": augmented}, title, moments=moment == "before") as scored:
            numbers[f"margin_{moment}"] = scored.table("synthetic").numbers("margin")
            moments = scored.folder / "synthetic_moments.npz"
            if moments.exists():
                made["moments"] = run.write(paths.synthetic_moments, partial(copyfile, moments))
    rewritten = run.table(rewrites, "pair_id", "rewritten").query("rewritten != 'none'")["pair_id"]
    summary = summarise(numbers, run.table(originals, "pair_id", "margin"), rewritten)
    margins = numbers[["margin_before", "margin_after"]]
    made["synthetic"] = run.write_table(paths.synthetic, _with_columns(table, margins))
    return Made(made, {f"synthetic/{name}": value for name, value in summary.items()})


def _with_columns(table: Table, more: pd.DataFrame) -> Iterator[pa.RecordBatch]:
    """The batches of a table with further columns, which have its rows."""
    start = 0
    for batch in table.batches():
        rows = slice(start, start + len(batch))
        for name, values in more.items():
            batch = batch.append_column(str(name), pa.array(values.iloc[rows].to_numpy()))
        start += len(batch)
        yield batch
