"""Measure any checkpoint on pairs and benchmarks, as `mars evaluate` does."""

import json
import math
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from mars_core.data.reading import write_table
from mars_core.evaluation.evaluation_config import Suite
from mars_core.evaluation.measure import Metrics
from mars_core.files import write_whole
from mars_core.model.loading import has_trained_head
from mars_core.model.reward_model import renderer_of
from mars_core.model.scoring import ScoreSpec
from tasks.compute.compute import Compute
from tasks.run.compute_rewards import scratch
from tasks.run.prefect_api import tolerate_outage
from tasks.steps.evaluate_reward_model import measure

HEADERS = ("", "score", "95% interval", "definition")
"""Columns of `headlines`."""
COUNTS = ("_cut", "/same_tokens")
"""Ends of the names of numbers that are counts."""


@task(name="measure", task_run_name="measure", cache_policy=NO_CACHE, persist_result=False)
def measure_checkpoint(
    compute: Compute, spec: ScoreSpec, suite: Suite, tables: dict[str, Dataset], folder: Path
) -> tuple[list[Path], Metrics, list[str]]:
    """Write the table of results of each set of `tables` into a folder: the files, all metrics, and notes.

    Raises:
        ModelError: the model cannot be loaded, has other outputs than its objective, or a reward is NaN or
        infinite.
    """
    files, metrics, notes = [], Metrics(), list[str]()
    if not has_trained_head(spec.model, spec.reward_model, spec.objective):
        notes.append("the checkpoint has no trained head: it got a random one, whose rewards mean nothing")
    notes.append(f"texts are rendered {renderer_of(spec.model, spec.reward_model).description}")
    with scratch(folder / ".rows") as place:
        rows = {name: place / f"{name}.parquet" for name in tables}
        for name, table in tables.items():
            write_table(table, rows[name])
        measured = measure(compute, spec.model_copy(update={"output": folder / ".scores"}), suite, rows)
    for name, part in measured.items():
        files.append(folder / (f"{name}.parquet" if name in suite else f"{name}_rewards.parquet"))
        write_whole(files[-1], partial(part.table.to_parquet, index=False))
        metrics |= part.metrics
        notes += part.notes
    return files, metrics, notes


@task(name="summary", task_run_name="summary", cache_policy=NO_CACHE, persist_result=False)
def write_summary(file: Path, about: dict[str, Any], metrics: Metrics, notes: list[str]) -> dict[str, Any]:
    """Write notes and metrics as JSON, where a nan is null, and show the main ones in Prefect.

    `about` says what was measured; its `definitions` stand beside the numbers.
    """
    finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    summary = {**about, "notes": notes, "metrics": finite}
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    write_whole(file, lambda path: path.write_text(text, encoding="utf-8"))
    rows = headlines(finite, about["definitions"])
    table = [dict(zip(HEADERS, row, strict=True)) for row in rows]
    with tolerate_outage():
        create_table_artifact(key="evaluation", table=table, description=f"Evaluation of {about['model']}")
    return summary


def definitions(suite: Suite, tables: Iterable[str]) -> dict[str, str]:
    """What the numbers of `headlines` mean, by metric."""
    said = {
        f"{key}/{name}": definition
        for key, one in suite.items()
        for name, definition in {**one.definitions, "ties": f"equal rewards, {one.equal_rewards}"}.items()
    }
    tables = list(tables)
    said |= {f"{name}/prompts_cut": "texts whose prompt was cut at model.max_length" for name in tables}
    alike = "pairs whose responses are the same tokens: equal rewards, which count as wrong"
    return said | {f"{name}/same_tokens": alike for name in tables}


def headlines(
    metrics: Mapping[str, float | None], defined: Mapping[str, str]
) -> list[tuple[str, str, str, str]]:
    """Name, value, 95% interval and definition of every metric that has an interval or a definition.

    A metric may be unknown, as the total of a benchmark is of which a part is missing.
    """
    rows = []
    for name, value in metrics.items():
        low, high = (metrics.get(f"{name}_{end}") for end in ("low", "high"))
        if f"{name}_low" in metrics or name in defined:
            shown = "–" if value is None else f"{value:.0f}" if name.endswith(COUNTS) else f"{value:.3f}"
            interval = "–" if low is None or high is None else f"{low:.3f}–{high:.3f}"
            rows.append((name, shown, interval, defined.get(name, "")))
    return rows
