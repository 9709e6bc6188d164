"""Rewrite the close pairs that have a budget (docs/method.md, step 4)."""

from collections.abc import Sequence
from typing import Any

from mars_core.generation import Generator
from mars_core.method.guards import Guards
from mars_core.method.rewriting import Rewrite, rewrite
from mars_core.method.semantics import Embedder
from mars_core.model.reward_model import readouts_of
from tasks.run.progress import progress
from tasks.run.round_models import load_reward_model
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import Made, step, tell


@step(
    "rewriting",
    version=9,
    reads=("rewriting", "augmentation", "generation", "guards", "semantics", "model", "fit.objective"),
    works_with=("generator",),
)
def rewrite_close_pairs(
    run: RunFolder,
    round: int,
    train: ArtifactRef,
    allocation: ArtifactRef,
    distances: ArtifactRef,
    margins: ArtifactRef,
    model: ArtifactRef,
    generator: Generator,
) -> Made[ArtifactRef]:
    """Rewrite the pairs whose two responses say nearly the same; `model` is the model that gave `margins`.

    A scheme that does not use an original's texts needs no rewrites.
    """
    config, writer = run.config, generator.afresh()
    measured = run.open(distances).read("is_close", "distance")
    budget = run.open(allocation).numbers("budget")
    wanted = config.rewriting.enabled and config.augmentation.writes_variants
    rows = (measured["is_close"].to_numpy() & (budget > 0) & wanted).nonzero()[0]
    pairs = run.open(train).select(rows)
    scored = run.open(margins).select(rows).to_pandas()
    distance = measured["distance"].to_numpy()[rows].tolist()
    readouts: Sequence[Any] = readouts_of(scored) if len(rows) else ([], [])
    close = [
        Rewrite(*of_a_pair)
        for of_a_pair in zip(
            *(pairs[name][:] for name in ("pair_id", "prompt", "chosen", "rejected")), distance, distance,
            *readouts,
            strict=True,
        )
    ]  # fmt: skip
    guards = Guards(
        config.guards,
        Embedder(config.semantics, run.vectors),
        load_reward_model(run, model) if close else None,
        config.generation.told,
    )
    with progress(
        f"round {round} · rewriting", len(close), "requests", lambda: writer.counts.completion_tokens
    ) as advance:
        rewrites = rewrite(close, writer, guards, config.rewriting, lambda: advance(1))
    count = rewrites["rewritten"].value_counts()
    metrics = {f"rewriting/{side}": float(count.get(side, 0)) for side in ("rejected", "chosen", "none")}
    metrics |= {
        "rewriting/close_pairs": float(len(rewrites)),
        "rewriting/samples": float(rewrites["attempts"].sum()),
        "rewriting/tokens": float(rewrites["tokens"].sum()),
        **guards.metrics("rewriting"),
        **writer.counts.metrics("rewriting"),
    }
    tell(
        "Of %s close pairs with a budget, %.0f had their rejected and %.0f their chosen response rewritten; "
        "dropped: %s.",
        f"{len(rewrites):,}", metrics["rewriting/rejected"], metrics["rewriting/chosen"],
        guards.reasons() or "nothing",
    )  # fmt: skip
    paths = run.of_round(round)
    dropped = run.write_table(paths.dropped_rewrites, guards.shown())
    return Made(run.write_table(paths.rewrites, rewrites), metrics, also={"dropped": dropped})
