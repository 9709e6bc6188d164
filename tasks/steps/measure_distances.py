"""Semantic distances of the originals (docs/method.md, step 3)."""

from mars_core.method.semantics import Embedder, measure_distances
from tasks.run.progress import progress
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import step, tell


@step("distances", version=2, reads=("semantics",))
def measure_semantic_distances(run: RunFolder, round: int, train: ArtifactRef) -> ArtifactRef:
    """Measure how far apart the two responses of every original are.

    The originals do not change, so the first round's distances serve all rounds.
    """
    originals = run.dataset(train)
    embedder = Embedder(run.config.semantics, run.vectors)
    with progress(f"round {round} · distances", len(originals), "pairs") as advance:
        distances = measure_distances(originals, embedder, run.config.semantics.threshold, advance)
    figures = {
        "semantics/threshold": float(distances["threshold"].iloc[0]),
        "semantics/close_share": float(distances["is_close"].mean()),
    }
    tell(
        "%s of %s pairs are close: their responses are nearer than %.3f.",
        f"{distances['is_close'].sum():,}", f"{len(distances):,}", figures["semantics/threshold"],
    )  # fmt: skip
    return run.write_table(f"round-{round}/distances.parquet", distances, figures)
