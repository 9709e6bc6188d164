"""Margins of the originals under the current reward model (docs/method.md, step 1)."""

from functools import partial
from shutil import copyfile

from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder
from tasks.run.score_sets import score_pairs
from tasks.run.step import Made, step


@step("margins", version=5, reads=("model", "fit.objective", "selection"))
def measure_margins(run: RunFolder, round: int, model: ArtifactRef, train: ArtifactRef) -> Made[Outputs]:
    """Score every original with the previous round's model.

    Made are `margins` and, as far as the objective and the strategy ask for them, `moments` and `features`.
    """
    paths, reads = run.of_round(round), run.config.selection.open().reads
    with score_pairs(
        run, model, {"margins": train}, f"round {round} · margins", moments=True, features="features" in reads
    ) as scored:
        prompts_cut, responses_cut = scored.cut["margins"]
        places = {
            "margins": (scored.folder / "margins.parquet", paths.margins),
            "moments": (scored.folder / "margins_moments.npz", paths.margins_moments),
            "features": (scored.folder / "margins_features.npy", paths.margins_features),
        }
        made = {
            name: run.write(uri, partial(copyfile, file), rows=train.rows)
            for name, (file, uri) in places.items()
            if file.exists()
        }
    cut = {"margins/prompts_cut": float(prompts_cut), "margins/responses_cut": float(responses_cut)}
    return Made(made, cut)
