"""Spend the budget: paraphrase and recombine (docs/method.md, step 5), and measure the result."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import Dataset

from mars_core.data.reading import NUMBERS
from mars_core.experiment import ExperimentConfig
from mars_core.generation import Generator
from mars_core.method.augmentation import PARTS, Augmentation, Parent, augment, capacity
from mars_core.method.baselines import easiest, repeated, topped_up, west_of_n
from mars_core.method.guards import Guards
from mars_core.method.selection import effective_cap
from mars_core.method.semantics import Embedder
from mars_core.model.reward_model import pair_rewards
from tasks.run.progress import progress
from tasks.run.round_models import load_reward_model
from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder
from tasks.run.step import Made, step, tell


@step(
    "augmentation",
    version=12,
    reads=("selection", "augmentation", "generation", "guards", "semantics", "model", "fit.objective"),
    works_with=("generator",),
)
def augment_hard_pairs(
    run: RunFolder,
    round: int,
    train: ArtifactRef,
    allocation: ArtifactRef,
    rewrites: ArtifactRef,
    model: ArtifactRef,
    generator: Generator,
) -> Made[Outputs]:
    """Make the synthetic pairs, `augmented`, from generated texts, `variants`.

    `model` is the current reward model; some baselines choose their pairs by its rewards.
    """
    config, writer, paths = run.config, generator.afresh(), run.of_round(round)
    with_budget = run.open(allocation).numbers("budget").nonzero()[0]
    budgets = run.open(allocation).select(with_budget).to_pandas()
    pairs = run.open(train).select(with_budget)
    parents = _parents(pairs, budgets, Dataset(run.open(rewrites).read()))
    reward_model = None
    if config.augmentation.pool or config.augmentation.scheme == "west_of_n":
        reward_model = load_reward_model(run, model)
    guards = Guards(
        config.guards,
        Embedder(config.semantics, run.vectors),
        reward_model,
        config.generation.told,
    )
    with progress(
        f"round {round} · augmentation",
        3 * len(parents),
        "requests",
        lambda: writer.counts.completion_tokens,
    ) as advance:
        augmentation = _spend(config, parents, writer, guards, f"r{round}-", lambda: advance(1))
    if config.augmentation.pool and reward_model:
        pool = augmentation.pairs
        margins = pair_rewards(reward_model, pool.rename_column("synthetic_id", "pair_id")).table["margin"]
        kept = easiest(pool, margins, dict(zip(budgets["pair_id"], budgets["budget"], strict=True)))
        # Counted from the budget, not from the pool: with a pool, unused budget goes to no other original.
        missing = int(budgets["budget"].sum()) - len(kept)
        augmentation = augmentation._replace(pairs=kept, moved=0, shortfall=missing)
    made, sources = len(augmentation.pairs), len(set(augmentation.pairs["parent_id"]))
    if config.augmentation.top_up:
        originals = _parents(pairs, budgets)
        augmentation = augmentation._replace(
            pairs=topped_up(augmentation.pairs, originals, int(budgets["budget"].sum()), f"r{round}-")
        )
    made_pairs = _with_numbers(augmentation.pairs, pairs)
    objective = config.fit.objective.open()
    if config.augmentation.writes_variants and "paraphrase" in objective.reads | objective.losses_read:
        made_pairs = _with_paraphrases(made_pairs, augmentation.variants, parents)
    augmentation = augmentation._replace(pairs=made_pairs)
    tokens = augmentation.tokens + int(run.open(rewrites).numbers("tokens").sum())
    metrics = {
        "augmentation/pairs": float(made),
        "augmentation/topped_up": float(len(augmentation.pairs) - made),
        "augmentation/texts": float(len(augmentation.variants)),
        "augmentation/largest": float(max(Counter(augmentation.pairs["parent_id"]).values())),
        "augmentation/moved": float(augmentation.moved),
        "augmentation/shortfall": float(augmentation.shortfall),
        "augmentation/tokens": float(augmentation.tokens),
        "augmentation/surplus_tokens": augmentation.surplus_tokens,
        "augmentation/tokens_per_pair": tokens / made,
        **guards.metrics("augmentation"),
        **writer.counts.metrics("augmentation"),
    }
    tell(
        "%s synthetic pairs of %s originals from %s new texts; %d moved to others, %d could not be made; "
        "dropped: %s.",
        f"{made:,}", f"{sources:,}", f"{len(augmentation.variants):,}",
        augmentation.moved, augmentation.shortfall, guards.reasons() or "nothing",
    )  # fmt: skip
    dropped = run.write_table(paths.dropped_paraphrases, guards.shown())
    made_of_it = {
        "augmented": run.write_table(paths.augmented, augmentation.pairs),
        "variants": run.write_table(paths.variants, augmentation.variants),
    }
    return Made(made_of_it, metrics, also={"dropped": dropped})


def _with_numbers(made: Dataset, originals: Dataset) -> Dataset:
    """Synthetic pairs with the margin and the weight that the data ask for their originals, if any."""
    for name in (number for number in NUMBERS if number in originals.column_names):
        asked = pd.Series(originals[name][:], index=originals["pair_id"][:], dtype="float32")
        made = made.add_column(name, asked.loc[made["parent_id"][:]].to_numpy())
    return made


def _with_paraphrases(made: Dataset, variants: Dataset, parents: list[Parent]) -> Dataset:
    """Synthetic pairs with a column paraphrase: the text of which a chosen response is a variant, and that
    text's first variant where it is the chosen response itself; null where there is none."""
    texts = {parent.pair_id: parent.chosen for parent in parents}
    of_chosen = variants.to_pandas().query("part == 'chosen'").sort_values("variant", kind="stable")
    first = of_chosen.groupby("parent_id")["text"].first().to_dict()

    def paraphrase(parent: str, chosen: str, variant: int) -> str | None:
        if variant:
            return texts[parent]
        return first.get(parent) if chosen == texts[parent] else None  # an original that was rewritten else

    columns = (made[name][:] for name in ("parent_id", "chosen", "chosen_variant"))
    found = [paraphrase(*row) for row in zip(*columns, strict=True)]
    return made.add_column("paraphrase", pa.array(found, pa.string()))


def _parents(pairs: Dataset, budgets: pd.DataFrame, rewrites: Dataset | None = None) -> list[Parent]:
    """Originals with their budgets, and with the responses that rewriting gave them."""
    ids, prompts, chosen, rejected = (pairs[name][:] for name in ("pair_id", *PARTS))
    responses: dict[str, tuple[str, str]] = dict(zip(ids, zip(chosen, rejected, strict=True), strict=True))
    if rewrites is not None:
        new = zip(rewrites["chosen"][:], rewrites["rejected"][:], strict=True)
        responses |= zip(rewrites["pair_id"][:], new, strict=True)
    log_q = np.log(np.maximum(budgets["probability"], np.finfo(np.float64).tiny))
    return [
        Parent(pair_id, prompt, *responses[pair_id], budget, share)
        for pair_id, prompt, budget, share in zip(
            ids, prompts, budgets["budget"].tolist(), log_q.tolist(), strict=True
        )
    ]


def _spend(
    config: ExperimentConfig,
    parents: list[Parent],
    generator: Generator,
    guards: Guards,
    label: str,
    on_answer: Callable[[], object],
) -> Augmentation:
    """Spend the budgets as the configured scheme does."""
    scheme, most = config.augmentation, capacity(config.augmentation, config.selection.budget_unit)
    if scheme.scheme == "repeat":
        return repeated(parents, label)  # their originals are not rewritten
    if scheme.scheme == "west_of_n":
        return west_of_n(parents, generator, guards, scheme.samples, label, on_answer)
    if scheme.pool:
        for parent in parents:
            parent.budget = min(max(scheme.pool, parent.budget), most)
    return augment(
        parents,
        generator,
        guards,
        scheme,
        unit=config.selection.budget_unit,
        cap=effective_cap(config.selection, most),
        label=label,
        on_answer=on_answer,
    )
