"""Margins of the originals under the current reward model (docs/method.md, step 1)."""

from tasks.run.compute_rewards import score_pairs
from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder
from tasks.run.step import Made, step


def measure_margins(run: RunFolder, round: int, model: ArtifactRef, train: ArtifactRef) -> Outputs:
    """Score every original with the previous round's model.

    The outputs are `margins` and, if the objective or the strategy needs them, `moments` and `features`.
    """
    return _measure(run, round, model, train, features="features" in run.config.selection.open().reads)


@step("margins", version=6, reads=("model", "fit.objective"))
def _measure(
    run: RunFolder, round: int, model: ArtifactRef, train: ArtifactRef, features: bool
) -> Made[Outputs]:
    """Score every original with the previous round's model."""
    paths = run.of_round(round)
    with score_pairs(
        run, model, {"margins": train}, f"round {round} · margins", moments=True, features=features
    ) as scored:
        counts = scored.cut["margins"]
        places = {
            "margins": (scored.folder / "margins.parquet", paths.margins),
            "moments": (scored.folder / "margins_moments.npz", paths.margins_moments),
            "features": (scored.folder / "margins_features.npy", paths.margins_features),
        }
        made = {
            name: run.take_over(uri, file, rows=train.rows)
            for name, (file, uri) in places.items()
            if file.exists()
        }
    cut = {"margins/prompts_cut": float(counts.prompts), "margins/responses_cut": float(counts.responses)}
    return Made(made, cut)
