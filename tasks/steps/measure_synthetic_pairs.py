"""Measure the synthetic pairs' margins before and after the fit."""

from functools import partial
from shutil import copyfile

import pyarrow as pa
import pyarrow.parquet

from mars_core.method.augmentation import PARTS
from mars_core.method.synthetic_margins import summarise
from tasks.run.compute_rewards import score_pairs
from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder
from tasks.run.step import Made, step


@step("synthetic", version=4, reads=("model", "fit.objective"))
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

    `originals` are the originals' margins. If the objective's margins are linear in the features, `moments`
    are those of the features under the previous round's model.
    """
    paths, made = run.of_round(round), Outputs()
    table = pyarrow.parquet.read_table(run.verified(augmented))
    for moment, model in (("before", before), ("after", after)):
        title = f"round {round} · synthetic margins {moment} the fit"
        with score_pairs(run, model, {"synthetic": augmented}, title, moments=moment == "before") as scored:
            margins = scored.pairs("synthetic")["margin"].to_numpy()
            table = table.append_column(f"margin_{moment}", pa.array(margins))
            moments = scored.folder / "synthetic_moments.npz"
            if moments.exists():
                made["moments"] = run.write(paths.synthetic_moments, partial(copyfile, moments))
    numbers = table.drop_columns(list(PARTS)).to_pandas()
    rewritten = run.table(rewrites).query("rewritten != 'none'")["pair_id"]
    summary = summarise(numbers, run.table(originals), rewritten)
    write = partial(pyarrow.parquet.write_table, table)
    made["synthetic"] = run.write(paths.synthetic, write, rows=len(table))
    return Made(made, {f"synthetic/{name}": value for name, value in summary.items()})
