"""Read, check and divide the pairs, and read the benchmarks: all errors in the data are found here."""

import logging

from mars_core.data.source_rows import PairsError
from mars_core.evaluation.evaluation_config import read_benchmarks
from mars_core.files import remove
from tasks.run.run_folder import Outputs, RunFolder
from tasks.run.sources import (
    LEFT_OUT,
    UNFINISHED,
    benchmark_contents,
    check_originals,
    three_sets,
    unfinished,
)
from tasks.run.sources import contents as contents_of
from tasks.run.step import Made, step, tell


@step("prepare", version=3, reads=("seed", "data", "model"))
def _prepare(run: RunFolder, round: None, contents: dict[str, str]) -> Made[Outputs]:
    """Write the train, validation and held-out pairs of a run, and how many rows were left out and why."""
    config = run.config
    folder = unfinished(run, contents)
    sets = three_sets(config, folder)
    if contents_of(config, run.digests) != contents:
        remove(folder)
        raise PairsError("a source of pairs changed while it was read: start again once it is complete")
    for remark in sets.remarks:
        tell("%s.", remark)
    for reason, count in sets.dropped.items():
        tell("Left out %s rows: %s.", f"{count:,}", reason)
    if sets.exchanged:
        tell(
            "%s originals contradict another one: chosen and rejected are exchanged. Both are trained on.",
            f"{sets.exchanged:,}", level=logging.WARNING,
        )  # fmt: skip
    outputs = Outputs()
    for name, table in (("train", sets.train), ("validation", sets.validation), ("heldout", sets.heldout)):
        outputs[name] = run.take_over(f"{name}.parquet", table.path, rows=len(table))
    return Made(outputs, also={LEFT_OUT: run.write_json("left_out.json", sets.dropped)})


@step("benchmarks", version=2, reads=("evaluation",))
def _prepare_benchmarks(run: RunFolder, round: None, contents: dict[str, str], strict: bool) -> Made[Outputs]:
    """Write the rows of a run's benchmarks; warn if their numbers are not the official ones."""
    tables, warnings = read_benchmarks(run.config.evaluation)
    for warning in warnings:
        tell("%s", warning)
    return Made({name: run.write_table(f"{name}_rows.parquet", table) for name, table in tables.items()})


def prepare(run: RunFolder) -> Outputs:
    """References to the three sets `train`, `validation`, `heldout`, and to the rows of each benchmark.

    Sources are read when a run is new and when their content has changed.

    Raises:
        PairsError: the data cannot be used.
        BenchmarkError: a benchmark cannot be used.
        SelectionError: the budget exceeds what the originals can take.
    """
    config = run.config
    prepared = _prepare(run, None, contents_of(config, run.digests))
    remove(run.path(UNFINISHED))
    sets = {name: part for name, part in prepared.items() if name != LEFT_OUT}
    tell(
        "%s originals, %s validation and %s held-out pairs.",
        *(f"{sets[name].rows:,}" for name in ("train", "validation", "heldout")),
    )
    check_originals(sets["train"].rows or 0, config)
    benchmarks = benchmark_contents(config, run.digests)
    if benchmarks:
        sets = sets | _prepare_benchmarks(run, None, benchmarks, config.evaluation.strict)
    return sets
