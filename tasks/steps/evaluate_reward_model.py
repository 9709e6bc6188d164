"""Measure a round's reward model on pairs and benchmarks (docs/method.md, step 7)."""

import math
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from mars_core.evaluation import robustness
from mars_core.evaluation.evaluation_config import Suite
from mars_core.evaluation.measure import (
    Measured,
    measure_benchmark,
    measure_pairs,
    measure_robustness,
    texts_of_sets,
)
from mars_core.model.scoring import ScoreSpec
from mars_core.tables import Table
from tasks.compute.compute import Compute
from tasks.run.compute_rewards import scored, scratch, spec_of, write_texts
from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder
from tasks.run.step import Made, step, tell


@step("evaluation", version=9, reads=("model", "fit.objective", "evaluation"))
def evaluate_reward_model(
    run: RunFolder, round: int, model: ArtifactRef, sets: dict[str, ArtifactRef]
) -> Made[Outputs]:
    """Rewards and metrics of `sets`: validation and held-out pairs, rows of benchmarks, changed pairs."""
    config, paths = run.config, run.of_round(round)
    suite = {key: one for key, one in config.evaluation.suite.items() if key in sets}
    files = {name: run.verified(part) for name, part in sets.items()}
    measured = measure(config.compute.open(), spec_of(run, model), suite, files, f"round {round} · ")
    outputs, metrics = Outputs(), dict[str, float]()
    for name, part in measured.items():
        uri = paths.benchmark(name) if name in suite else paths.rewards(name)
        outputs[name] = run.write_table(uri, part.table)
        metrics |= part.metrics
    return Made(outputs, metrics)


def measure(
    compute: Compute, spec: ScoreSpec, suite: Suite, files: Mapping[str, Path], title: str = ""
) -> dict[str, Measured]:
    """Measure a model on benchmarks, on tables of pairs, and on pairs that are changed.

    The model is loaded once, and the distinct texts of all benchmarks and changed pairs are scored in one
    pass.

    Args:
        compute: where the texts are scored.
        spec: names the model.
        suite: the benchmarks.
        files: Parquet tables by name; metrics begin with that name, a benchmark's name is its key, and
            `robustness` are changed pairs.
        title: the beginning of the progress bars' titles.

    Raises:
        ModelError: a reward is NaN or infinite; names the rows.
    """
    rows = {
        name: Dataset(Table(file).read())
        for name, file in files.items()
        if name in suite or name == robustness.KEY
    }
    pairs = {name: file for name, file in files.items() if name not in rows}
    texts = texts_of_sets(suite, rows)
    with scratch(spec.output.with_name(".texts")) as place:
        written = {
            name: write_texts(
                own, place / f"{name}.parquet", paired=name not in suite or suite[name].pairwise
            )
            for name, own in texts.items()
        }
        total = sum(2 * len(Table(file)) for file in pairs.values())
        total += sum(len(own.rows) for own in texts.values())
        everything = spec.model_copy(update={"pairs": pairs, "texts": written})
        titles = ", ".join(suite[name].title if name in suite else name for name in [*pairs, *written])

        def measured_of(name: str) -> Measured:
            if name in pairs:
                return measure_pairs(name, Table(pairs[name]), results.pairs(name), results.cut[name])
            if name in suite:
                return measure_benchmark(
                    name, suite[name], rows[name], results.texts(name), results.cut[name]
                )
            return measure_robustness(rows[name], results.texts(name), results.cut[name])

        with scored(compute, everything, f"{title}{titles}", total) as results:
            measured = {name: measured_of(name) for name in files}
    for name, part in measured.items():
        if name not in pairs:
            key = f"{name}/{suite[name].headline}" if name in suite else robustness.HEADLINE
            ends = [part.metrics.get(f"{key}{end}", math.nan) for end in ("", "_low", "_high")]
            called = suite[name].title if name in suite else "Robust accuracy"
            if math.isnan(ends[0]):
                tell("%s has no score: what it needs is missing.", called)
            else:
                tell("%s %.3f [%.3f, %.3f].", called, *ends)
        else:
            _tell_accuracy(name, part)
        for note in part.notes:
            tell("%s", note)
    return measured


def _tell_accuracy(name: str, part: Measured) -> None:
    ends = ("accuracy", "accuracy_low", "accuracy_high")
    tell(
        "%s accuracy %.3f [%.3f, %.3f] on %s pairs; a coin would be within %.3f–%.3f.",
        name.capitalize(), *(part.metrics[f"{name}/{end}"] for end in ends),
        f"{len(part.table):,}", *(part.metrics[f"{name}/chance_{end}"] for end in ("low", "high")),
    )  # fmt: skip
