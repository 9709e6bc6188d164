"""Compare ways to spend a budget: arms × seeds, everything else held equal."""

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows.align import align, estimate_alignment
from flows.refine import refine
from mars_core.comparison import ComparisonConfig, load_comparison
from mars_core.report.comparison_report import ComparisonReport
from tasks.comparing.alignments import alignment_file, alignment_of, metrics_of_alignment
from tasks.comparing.cells import (
    RunCell,
    cell_key,
    cells_of,
    drop_models_between,
    experiment_file,
    finished,
    gather,
    keep,
    means,
    trained,
    tuned,
    tuning_cells_of,
    write_comparison,
)
from tasks.comparing.cells_on_ray import CellsOnRay
from tasks.run.run_folder import RunFolderError, existing_run, owned
from tasks.run.step import tell
from tasks.tracking.comparison_tracking import track_comparison_result, tracked_comparison


def _comparison_name() -> str:
    return load_comparison(**flow_run.parameters).name


@flow(name="compare", flow_run_name=_comparison_name, persist_result=False)
def compare(file: str, overrides: tuple[str, ...] = ()) -> ComparisonReport:
    """Run every arm under every seed, and say what the arms differ by.

    A cell is a run of self-refinement. One that fails is tried again, then reported as failed; the others
    go on. Where there is something to tune, cells that try the settings come first, and each arm then has the
    one that it chose. With `align`, the last reward model of each cell then aligns the same policy. Started
    again, the flow runs what is not finished.

    Args:
        file: path of the comparison's configuration.
        overrides: `dotted.key=value` changes to it.

    Raises:
        RunFolderError: another process owns the comparison's folder, or it is a run's.
        ComparisonError: no cell came to its end, or one of the tuning's did not.
        ModelError, PairsError, TrainingError: the policy or its prompts are not fit for an alignment.
        ComputeError: cells are to run on a Ray cluster, which cannot be used; says why.
    """
    config = load_comparison(file, overrides)
    first = cells_of(config)[0]
    if config.align is not None:
        estimate_alignment(alignment_of(config, first))  # what is wrong with it is told before the work
    tracking = first.experiment.tracking
    with owned(config.root) as identity:
        if (config.root / "config.yaml").exists():
            raise RunFolderError(f"{config.root} is the folder of a run: give this comparison another name")
        with tracked_comparison(config.name, identity, tracking, config.root) as tracked:
            tuning = None
            if trials := tuning_cells_of(config):
                failed = _run_missing(trials, config, tracked.parent)
                tuning = tuned(config.root, config, trials, failed)
                for arm, number in tuning.chosen.items():
                    tell("%s takes %s.", arm, tuning.settings[number])
            found = cells_of(config, tuning.chosen if tuning else None)
            failed = _run_missing(found, config, tracked.parent)
            aligned = _align_all(found, config, tracked.parent, failed) if config.align is not None else None
            command = shlex.join(["mars", "compare", file, *overrides])
            report = gather(config.root, config, command, found, failed, tuning, aligned)
            write_comparison(config.root, report)
            runs = [existing_run(config.root / cell.name) for cell in found if finished(config.root, cell)]
            cells_trained = [(run, trained(run)) for run in runs]
            track_comparison_result(tracked, cells_trained, means(report), bool(failed))
        return report


@task(name="cell", task_run_name="{cell.name}", cache_policy=NO_CACHE, persist_result=False)
def run_cell(root: Path, cell: RunCell, parent: str | None, on_ray: CellsOnRay | None) -> None:
    """Run one arm under one seed to its end, here or on a node of a Ray cluster."""
    key = cell_key(cell)  # what is delivered while it runs is not what it was made of
    file = experiment_file(root, cell, parent)
    if on_ray:
        on_ray.run(cell.name, partial(_refine_without_prefect, str(file)))
    else:
        refine(str(file))
    keep(root, cell, key)


def _refine_without_prefect(file: str) -> None:
    """Run a cell where Prefect's API may be out of reach."""
    refine.fn(file)


def _run_missing(found: Sequence[RunCell], config: ComparisonConfig, parent: str | None) -> dict[str, str]:
    """Run what is not finished, one cell after the other or some at once; the names of those that failed, and
    why."""
    missing = [cell for cell in found if not finished(config.root, cell)]
    tell("%d of %d cells are to be run.", len(missing), len(found))
    on_ray = CellsOnRay(config.root, config.ray) if config.ray and missing else None
    at_once = config.parallel or (len(missing) if on_ray else 1)
    attempt = run_cell.with_options(retries=config.attempts - 1)
    failed: dict[str, str] = {}
    unfinished = {cell.name for cell in missing}

    def make_room(seed: int) -> None:
        of_the_seed = [cell for cell in found if cell.seed == seed]
        if unfinished.isdisjoint(cell.name for cell in of_the_seed):
            drop_models_between(config.root, of_the_seed)

    def note(cell: RunCell, outcome: object) -> None:
        if isinstance(outcome, BaseException):
            failed[cell.name] = f"{type(outcome).__name__}: {outcome}".splitlines()[0]
            tell("%s failed: %s", cell.name, failed[cell.name])
        else:
            unfinished.discard(cell.name)
            tell("%s is finished; %d of %d cells are.", cell.name, len(found) - len(unfinished), len(found))
            make_room(cell.seed)

    for seed in {cell.seed: None for cell in found}:  # an earlier start may have been killed before it did
        make_room(seed)
    if at_once == 1 and not on_ray:  # in this thread, where Ctrl-C and progress bars work
        for cell in missing:
            state = attempt(config.root, cell, parent, None, return_state=True)
            note(cell, state.result(raise_on_failure=False))
        return failed
    runner: ThreadPoolTaskRunner[None] = ThreadPoolTaskRunner(max_workers=max(1, at_once))
    with ExitStack() as waiting:
        waiting.enter_context(runner)
        try:
            shared = {"root": config.root, "parent": parent, "on_ray": on_ray}
            parameters = [{"cell": cell, **shared} for cell in missing]
            futures = [runner.submit(attempt, parameters=of_a_cell) for of_a_cell in parameters]
            for cell, future in zip(missing, futures, strict=True):
                note(cell, future.result(raise_on_failure=False))
        except (KeyboardInterrupt, TerminationSignal):
            waiting.pop_all()  # cells are threads, which nothing can interrupt: they end with the process
            raise
    return failed


@task(name="alignment", task_run_name="{cell.name} · alignment", cache_policy=NO_CACHE, persist_result=False)
def align_cell(config: ComparisonConfig, cell: RunCell, parent: str | None) -> dict[str, float]:
    """Align the policy by the last reward model of a finished cell; the metrics that are compared."""
    return metrics_of_alignment(align(str(alignment_file(config, cell, parent))))


def _align_all(
    found: Sequence[RunCell], config: ComparisonConfig, parent: str | None, failed: dict[str, str]
) -> dict[str, dict[str, float]]:
    """Name of each finished cell → the metrics of its alignment; adds to `failed` those that failed.

    One after the other, so that all find the responses that the first has sampled.
    """
    attempt = align_cell.with_options(retries=config.attempts - 1)
    aligned = {}
    for cell in found:
        if not finished(config.root, cell):
            continue
        state = attempt(config, cell, parent, return_state=True)
        outcome = state.result(raise_on_failure=False)
        if isinstance(outcome, BaseException):
            failed[f"{cell.name}, alignment"] = f"{type(outcome).__name__}: {outcome}".splitlines()[0]
        else:
            aligned[cell.name] = outcome
    return aligned
