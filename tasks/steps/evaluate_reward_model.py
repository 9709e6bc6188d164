"""Measure a round's reward model on pairs and benchmarks (docs/method.md, step 7)."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet
from datasets import Dataset

from mars_core.evaluation.measure import Measured, measure_benchmark, measure_pairs
from mars_core.evaluation.suite import Suite
from mars_core.model.scoring import ScoreSpec
from tasks.compute.compute import Compute
from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder
from tasks.run.score_sets import scored, scratch, spec_of, write_texts
from tasks.run.step import Made, step, tell


@step("evaluation", version=7, reads=("model", "fit.objective", "evaluation"))
def evaluate_reward_model(
    run: RunFolder, round: int, model: ArtifactRef, sets: dict[str, ArtifactRef]
) -> Made[Outputs]:
    """Rewards and metrics of `sets`: validation and held-out pairs, and the rows of the benchmarks."""
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
    """Measure a model on the rows of benchmarks, in one pass, and on any other tables, which hold pairs.

    Args:
        compute: where the texts are scored.
        spec: names the model.
        suite: the benchmarks.
        files: Parquet tables by name, which begins the names of their metrics; a benchmark's is its key.
        title: begins what progress is called.

    Raises:
        ModelError: a reward is NaN or infinite; names the rows.
    """
    tables = {
        name: Dataset(pyarrow.parquet.read_table(file, memory_map=True)) for name, file in files.items()
    }
    measured = {}
    for name in (name for name in tables if name not in suite):
        of_pairs = spec.model_copy(update={"pairs": {name: files[name]}})
        with scored(compute, of_pairs, f"{title}{name}", 2 * len(tables[name])) as results:
            measured[name] = measure_pairs(name, tables[name], results.pairs(name), results.cut[name])
        _tell_accuracy(name, measured[name])
    if suite:
        measured |= _measure_benchmarks(compute, spec, suite, tables, title)
    in_order = {name: measured[name] for name in tables}
    for part in in_order.values():
        for note in part.notes:
            tell("%s", note)
    return in_order


def _measure_benchmarks(
    compute: Compute, spec: ScoreSpec, suite: Suite, tables: Mapping[str, Dataset], title: str
) -> dict[str, Measured]:
    """All benchmarks in one pass over their distinct texts."""
    titles = " and ".join(one.title for one in suite.values())
    with scratch(spec.output.with_name(".texts")) as place:
        texts = {key: write_texts(one, tables[key], place / f"{key}.parquet") for key, one in suite.items()}
        of_texts = spec.model_copy(update={"texts": {key: written for key, (written, _) in texts.items()}})
        with scored(compute, of_texts, f"{title}{titles}", sum(n for _, n in texts.values())) as results:
            measured = {
                key: measure_benchmark(key, one, tables[key], results.texts(key), results.cut[key])
                for key, one in suite.items()
            }
    for key, one in suite.items():
        ends = (measured[key].metrics[f"{key}/{one.headline}{end}"] for end in ("", "_low", "_high"))
        tell("%s %.3f [%.3f, %.3f].", one.title, *ends)
    return measured


def _tell_accuracy(name: str, part: Measured) -> None:
    ends = ("accuracy", "accuracy_low", "accuracy_high")
    tell(
        "%s accuracy %.3f [%.3f, %.3f] on %s pairs; a coin would be within %.3f–%.3f.",
        name.capitalize(), *(part.metrics[f"{name}/{end}"] for end in ends),
        f"{len(part.table):,}", *(part.metrics[f"{name}/chance_{end}"] for end in ("low", "high")),
    )  # fmt: skip
