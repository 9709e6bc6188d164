"""Semantic distances of the originals (docs/method.md, step 3)."""

from mars_core.method.semantics import Embedder, EmbedSpec, measure_distances
from tasks.run.progress import progress
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import Made, step, tell


@step("distances", version=3, reads=("semantics",))
def measure_semantic_distances(run: RunFolder, round: None, train: ArtifactRef) -> Made[ArtifactRef]:
    """Measure how far apart the two responses of every original are.

    The originals do not change, so this is done once for all rounds.
    """
    originals = run.open(train)
    semantics = run.config.semantics
    embedder = Embedder(semantics, run.vectors)
    with progress("embeddings", len(originals), "pairs") as advance:
        spec = EmbedSpec(semantics=semantics, pairs=run.path(train), vectors=run.vectors)
        run.config.compute.open().embed(spec, advance)
    with progress("distances", len(originals), "pairs") as advance:
        pairs = originals.batches("pair_id", "chosen", "rejected")
        distances = measure_distances(pairs, embedder, semantics.threshold, advance)
    metrics = {
        "semantics/threshold": float(distances["threshold"].iloc[0]),
        "semantics/close_share": float(distances["is_close"].mean()),
    }
    tell(
        "%s of %s pairs are close: their responses are nearer than %.3f.",
        f"{distances['is_close'].sum():,}", f"{len(distances):,}", metrics["semantics/threshold"],
    )  # fmt: skip
    return Made(run.write_table("distances.parquet", distances), metrics)
