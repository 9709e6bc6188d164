"""Rewrite the close pairs that have a budget (METHOD.md step 4)."""

from mars_core.rewriting import Rewrite, rewrite
from mars_core.semantics import Embedder
from tasks.generation import counted, open_generator
from tasks.progress import progress
from tasks.run_folder import ArtifactRef, RunFolder
from tasks.steps import step, tell


@step("rewriting", version=1, reads=("rewriting", "generation", "semantics"))
def rewrite_close_pairs(
    run: RunFolder, round: int, train: ArtifactRef, allocation: ArtifactRef, distances: ArtifactRef
) -> ArtifactRef:
    """Sharpen the pairs whose two responses say nearly the same."""
    config = run.config.rewriting
    measured, budget = run.table(distances), run.table(allocation)["budget"].to_numpy()
    rows = (measured["is_close"].to_numpy() & (budget > 0) & config.enabled).nonzero()[0]
    distance = measured["distance"].to_numpy()
    close = [
        Rewrite(pair["pair_id"], pair["prompt"], pair["chosen"], pair["rejected"], float(far), float(far))
        for pair, far in zip(run.dataset(train).select(rows), distance[rows], strict=True)
    ]
    embedder = Embedder(run.config.semantics)
    with (
        open_generator(run) as generator,
        progress(f"round {round} · rewriting", len(close), "requests") as advance,
    ):
        rewrites = rewrite(close, generator, embedder, config, lambda _: advance(1))
    count = rewrites["rewritten"].value_counts()
    figures = {f"rewriting/{side}": float(count.get(side, 0)) for side in ("rejected", "chosen", "none")}
    figures |= {"rewriting/close_pairs": float(len(rewrites)), **counted(generator, "rewriting")}
    tell(
        "Of %s close pairs with a budget, %.0f had their rejected and %.0f their chosen response rewritten.",
        f"{len(rewrites):,}", figures["rewriting/rejected"], figures["rewriting/chosen"],
    )  # fmt: skip
    return run.write_table(f"round-{round}/rewrites.parquet", rewrites, figures)
