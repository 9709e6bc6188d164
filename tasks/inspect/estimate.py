"""An estimate of a run's costs before it starts: requests, tokens, optimizer steps, disk and hours.

Margins are not known yet, so the budget is assumed to be spread evenly, which needs the most texts. Hours are
computed from operations: 2 (scoring) or 6 (fitting) for each token and weight outside the embeddings, at
`UTILISATION` of this machine's current matrix-product rate; if only the head is trained, each text is scored
once. Disk is the space of checkpoints and features, without texts, their embeddings and tables.
"""

import math
import time

import torch

from mars_core.experiment import ExperimentConfig
from mars_core.method.augmentation import capacity, pairs_of, variants_for
from mars_core.model.checkpoints import locate
from mars_core.model.loading import has_trained_head
from mars_core.model.reward_model import RewardModel
from tasks.run.sources import read_sources

UTILISATION = 0.4
"""Share of the matrix-product rate that scoring and fitting are assumed to reach."""
SAMPLE = 200
"""Pairs whose tokens are counted for the estimate."""


def estimate(config: ExperimentConfig) -> dict[str, str]:
    """Read the data and the backbone without running a step; returns texts by name.

    Raises:
        PairsError, BenchmarkError, SelectionError, ModelError: as the run itself would. It does not check
            whether a generator answers.
    """
    suite = config.evaluation.suite
    with read_sources(config) as (sets, benchmarks):
        benchmark = sum(len(suite[key].texts(rows).rows) for key, rows in benchmarks.items()) // 2
        originals, validation, heldout = len(sets.train), len(sets.validation), len(sets.heldout)
        sample = sets.train.select(range(min(SAMPLE, originals)))
    budget, rounds = config.selection.budget, config.rounds
    locate(config.semantics.embedder)
    model = RewardModel.load(config.model.backbone, config.model, config.fit.objective)

    scheme = config.augmentation
    with_budget = min(originals, budget)
    each = math.ceil(budget / with_budget)
    if config.selection.budget_unit == "paraphrases":
        each = pairs_of(each, scheme)
        budget = each * with_budget
    requests, texts, ranked = 0, 0, 0  # the scheme `repeat` asks for nothing
    if scheme.scheme == "west_of_n":
        requests, texts = budget, budget * scheme.samples
        ranked = texts // 2
    elif scheme.scheme != "repeat":
        most = capacity(scheme, config.selection.budget_unit)
        ranked = with_budget * min(max(scheme.pool, each), most) if scheme.pool else 0
        requests, texts = 3 * with_budget, paraphrases_a_round(config, originals)
    rewritten = with_budget if config.rewriting.enabled and scheme.writes_variants else 0
    ids = model.renderer.render(list(sample["prompt"]) * 2, [*sample["chosen"], *sample["rejected"]]).ids
    text_tokens = sum(map(len, ids)) / len(ids)

    fits = rounds + (not has_trained_head(config.model.backbone, config.model, config.fit.objective))
    synthetic = [budget * (t if config.fit.synthetic == "all" else 1) for t in range(1, rounds + 1)]
    fitted = [originals] * (fits - rounds) + [originals + pairs for pairs in synthetic]
    trained_pairs = config.fit.epochs * sum(fitted)
    steps = config.fit.epochs * sum(math.ceil(pairs / config.fit.batch_pairs) for pairs in fitted)
    benchmarked = benchmark * (rounds + 1 if config.evaluation.benchmark_rounds == "all" else 1)
    changed = config.evaluation.robustness
    benchmark += min(changed.rows, heldout) * (1 + len(changed.by_key)) if changed.rows else 0
    evaluated = (validation + heldout) * (rounds + 1) + benchmarked
    scored_pairs = evaluated + rounds * (originals + 2 * budget + ranked)
    weights = sum(p.numel() for name, p in model.network.named_parameters() if "embeddings." not in name)
    disk = sum(p.numel() for p in model.network.parameters()) * 4 * (rounds + 1)
    passes = 6 * trained_pairs + 2 * scored_pairs
    if config.fit.trainable == "head":  # features of every text are computed once, and kept
        known = originals + validation + heldout + benchmark
        distinct = known + rounds * (budget + ranked)
        passes = 2 * distinct
        disk += 2 * distinct * model.scalar_layer.in_features * 4
    operations = weights * text_tokens * 2 * passes
    rate = UTILISATION * matrix_product_rate(model)

    left_out = "; left out: " + ", ".join(f"{n:,} {why}" for why, n in sets.dropped.items())
    return {
        "data": "; ".join(sets.remarks),
        "pairs": f"{originals:,} + {validation:,} validation + {heldout:,} held-out"
        + (left_out if sets.dropped else ""),
        "augmentation requests a round": f"at most {requests:,} for {texts:,} texts to be kept; "
        f"for what the guards drop, as many again, {scheme.draws} times in all",
        "rewriting requests a round": f"at most {4 * rewritten:,}, if every pair with a budget were close",
        "generated tokens a round": f"about {texts * text_tokens / 2:,.0f} if the guards drop nothing, "
        f"and for rewrites at most {config.rewriting.tries * rewritten * text_tokens:,.0f}"
        + (
            ""
            if config.generation.by_language_model
            else f" (none are paid for with {config.generation.backend})"
        ),
        "optimizer steps": f"{steps:,} on {trained_pairs:,} pairs of about {2 * text_tokens:,.0f} tokens",
        "pairs scored": f"{scored_pairs:,}, of which benchmarks {benchmarked:,}"
        + (" with changed pairs" if changed.rows else ""),
        "disk": f"about {disk / 1e9:,.1f} GB of checkpoints"
        + (" and features" if config.fit.trainable == "head" else ""),
        "hours": f"about {operations / rate / 3600:,.2f} on this {model.device.type} "
        f"({rate / 1e9:,.0f} GFLOP/s: {UTILISATION:.0%} of its matrix-product rate now), without embedding "
        "and generation, whose rate `mars preview` measures",
    }


def paraphrases_a_round(config: ExperimentConfig, originals: int) -> int:
    """Most paraphrases that a round asks for: those of an evenly spread budget."""
    scheme, unit = config.augmentation, config.selection.budget_unit
    with_budget = min(originals, config.selection.budget)
    each = math.ceil(config.selection.budget / with_budget)
    if unit == "paraphrases":
        each = pairs_of(each, scheme)
    each = min(max(scheme.pool or 0, each), capacity(scheme, "pairs"))
    return with_budget * (sum(variants_for(each, scheme, chosen_first=True)) - 3)


def matrix_product_rate(model: RewardModel) -> float:
    """Floating-point operations per second of this machine's matrix product, in the model's precision."""
    kind = torch.bfloat16 if model.bfloat16 else torch.float32
    a = torch.ones(2048, 2048, dtype=kind, device=model.device)
    best = math.inf
    for _ in range(4):
        started = time.perf_counter()
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best
