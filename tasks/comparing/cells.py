"""The folder of a comparison: its finished cells and their metrics."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from mars_core.comparison import Cell, ComparisonConfig, arm_means
from mars_core.comparison import cells as cells_as
from mars_core.comparison import tuning_cells as tuning_cells_as
from mars_core.config import scientific, to_yaml
from mars_core.errors import MarsError
from mars_core.files import digest, write_whole
from mars_core.model.checkpoints import content_of_checkpoint
from mars_core.report.comparison_report import (
    ComparisonReport,
    markdown,
    means_table,
    packages,
    write,
)
from mars_core.report.wording import without_figures
from mars_core.tuning import Tuning, pooled
from tasks.comparing.alignments import alignment_of
from tasks.run.prefect_api import tolerate_outage
from tasks.run.round_metrics import read_metrics
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import CELLS, RunFolder, existing_run
from tasks.run.sources import benchmark_contents, contents
from tasks.run.step import VERSIONS, tell


class ComparisonError(MarsError, RuntimeError):
    """There is nothing to compare; the message has the first error."""


RunCell = Cell[RunConfig]
DEFAULTS = {"tracking": {"models": "none"}}
"""Models of cells are not logged to MLflow unless the experiment says so."""


def cells_of(config: ComparisonConfig, chosen: Mapping[str, int] | None = None) -> list[RunCell]:
    """The cells of a comparison, whose arms have the settings that they chose.

    Raises:
        ConfigError: an arm's keys are unknown or out of range, or arms differ in a key that must be the same;
            or as `alignment_of`.
    """
    found = cells_as(config, RunConfig, DEFAULTS, chosen)
    if config.align is not None:
        alignment_of(config, found[0])  # a wrong key is told before the work
    return found


def tuning_cells_of(config: ComparisonConfig) -> list[RunCell]:
    """The cells that try every setting in every arm; none where nothing is tuned.

    Raises:
        ConfigError: a setting's keys are unknown or out of range.
    """
    return tuning_cells_as(config, RunConfig, DEFAULTS)


def tuned(root: Path, config: ComparisonConfig, found: Sequence[RunCell], failed: dict[str, str]) -> Tuning:
    """What the finished cells of a tuning say.

    Raises:
        ComparisonError: a cell failed, or settings took different numbers of steps.
    """
    if failed:
        name, why = next(iter(failed.items()))
        raise ComparisonError(
            f"{len(failed)} cells of the tuning failed, so no arm can choose; {name}: {why}"
        )
    assert config.tune
    rows = []
    for cell in found:
        record = json.loads(_record(root, cell).read_text())
        last = record["rounds"][-1]
        right = last["validation/accuracy"] * last["validation/n"]
        named = {"arm": cell.arm, "setting": cell.setting, "right": right, "pairs": last["validation/n"]}
        rows.append(named | record["trained"])
    results = pd.DataFrame(rows)
    if len(steps := results["optimizer_steps"].unique()) > 1:
        raise ComparisonError(
            f"settings took different numbers of optimizer steps: {sorted(map(int, steps))}"
        )
    return pooled(config.tune.tried, results)


def finished(root: Path, cell: RunCell) -> bool:
    """Whether a cell with a folder is finished, with its current configuration and data."""
    end = root / cell.name / RunFolder.of_round(cell.experiment.rounds).metrics
    file = _record(root, cell)
    return file.exists() and end.exists() and json.loads(file.read_text())["key"] == cell_key(cell)


def cell_key(cell: RunCell) -> str:
    """A digest of all that a cell's result depends on: its configuration, its data, the steps' versions."""
    config = cell.experiment
    keys = scientific(config, content_of_checkpoint)
    return digest(keys, config.rounds, contents(config), benchmark_contents(config), VERSIONS)


def experiment_file(root: Path, cell: RunCell, parent: str | None) -> Path:
    """Write the configuration of a cell's run; in MLflow its parent is the comparison's run `parent`."""
    tracking = cell.experiment.tracking
    shown = tracking.model_copy(
        update={
            "parent": parent,
            "tags": tracking.tags | _tags(cell),
        }
    )
    experiment = cell.experiment.model_copy(update={"tracking": shown})
    file = root / CELLS / f"{cell.name}.yaml"
    write_whole(file, lambda path: path.write_text(to_yaml(experiment), encoding="utf-8"))
    return file


def _tags(cell: RunCell) -> dict[str, str]:
    """What MLflow knows a cell by."""
    tags = {"mars.arm": cell.arm, "mars.seed": str(cell.seed)}
    return tags if cell.setting is None else tags | {"mars.setting": str(cell.setting)}


def keep(root: Path, cell: RunCell, key: str) -> None:
    """Record that a cell with this `cell_key` is finished, with its packages and metrics."""
    run = existing_run(root / cell.name)
    rounds = read_metrics(run)
    record = {"key": key, "packages": packages(), "trained": trained(run), "rounds": rounds}
    write_whole(_record(root, cell), lambda path: path.write_text(json.dumps(record, indent=2) + "\n"))


def drop_models_between(root: Path, cells_of_a_seed: Sequence[RunCell]) -> None:
    """Remove the models between round 0 and the last one from the finished cells of a seed.

    They take most of a comparison's disk space. Other arms start from round 0's model. A comparison that gets
    another round, or whose steps have a new version, fits the removed ones again. A run whose
    `tracking.models` is all keeps all of them. Of a cell that tried a setting the last one goes, too.
    """
    for cell in cells_of_a_seed:
        run = existing_run(root / cell.name)
        end = run.config.rounds + (cell.setting is not None)
        models = [run.path(run.of_round(t).model) for t in range(1, end)]
        there = [model for model in models if model.exists()]
        if there and run.config.tracking.models != "all":
            tell("%s: removed the models of %d rounds.", cell.name, len(there))
            for model in there:
                shutil.rmtree(model)


def gather(
    root: Path,
    config: ComparisonConfig,
    command: str,
    found: Sequence[RunCell],
    failed: dict[str, str],
    tuning: Tuning | None = None,
    aligned: Mapping[str, dict[str, float]] | None = None,
) -> ComparisonReport:
    """The report of all finished cells; `aligned` has the metrics of their alignments.

    Raises:
        ComparisonError: there is none.
    """
    results, curves = [], []
    for cell in found:
        if not finished(root, cell):
            continue
        record = json.loads(_record(root, cell).read_text())
        rounds = record["rounds"]
        ran_with = record.get("packages", "versions that were not noted")
        named = {"arm": cell.arm, "seed": cell.seed, "packages": ran_with}
        of_alignment = (aligned or {}).get(cell.name, {})
        results.append(named | record["trained"] | _of_the_whole_run(rounds) | of_alignment)
        curves += [
            {"arm": cell.arm, "seed": cell.seed, "round": t, "heldout/accuracy": figures["heldout/accuracy"]}
            for t, figures in enumerate(rounds)
        ]
    if not results:
        name, why = next(iter(failed.items()))
        raise ComparisonError(f"no cell of {config.name} came to its end; {name}: {why}")
    tables = pd.DataFrame(results), pd.DataFrame(curves)
    return ComparisonReport(config, command, found, *tables, failed, tuning)


@task(name="report", task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def write_comparison(root: Path, report: ComparisonReport) -> None:
    """Write results.md, results.json and figures, and show the means and the page in Prefect."""
    write(report, root)
    headers, rows = means_table(report)
    table = [dict(zip(headers, row, strict=True)) for row in rows]
    name = report.config.name
    page = without_figures(markdown(report))
    with tolerate_outage():
        create_table_artifact(key="arms", table=table, description=f"Means over seeds of {name}")
        create_markdown_artifact(key="comparison", markdown=page, description=f"Comparison {name}")


def means(report: ComparisonReport) -> dict[str, float]:
    """Mean over seeds of each metric in the report's table, by `arm/metric`."""
    return {
        f"{arm}/{figure}": mean.value
        for figure in report.columns
        for arm, mean in arm_means(report.results, figure).items()
    }


def trained(run: RunFolder) -> dict[str, int]:
    """Optimizer steps and pairs seen over all rounds of a run."""
    rounds = read_metrics(run)
    epochs = run.config.fit.epochs
    return {
        "optimizer_steps": int(_over_rounds(rounds, "fit/steps")),
        "pairs_seen": int(epochs * _over_rounds(rounds, "fit/pairs")),
    }


def _of_the_whole_run(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """The metrics of the last round, with topped-up pairs, tokens and seconds summed over all rounds."""
    return rounds[-1] | {
        "topped_up": _over_rounds(rounds, "augmentation/topped_up"),
        "llm_tokens": _over_rounds(rounds, "rewriting/tokens") + _over_rounds(rounds, "augmentation/tokens"),
        "seconds": _over_rounds(rounds, "seconds"),
    }


def _over_rounds(rounds: list[dict[str, float]], figure: str) -> float:
    return sum(figures.get(figure, 0.0) for figures in rounds)


def _record(root: Path, cell: RunCell) -> Path:
    return root / CELLS / f"{cell.name}.json"
