"""Measure any checkpoint on pairs and benchmarks, as `mars evaluate` does."""

import json
import math
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from mars_core.evaluation import robustness
from mars_core.evaluation.evaluation_config import Suite
from mars_core.evaluation.measure import Metrics, texts_of_sets
from mars_core.files import write_whole
from mars_core.model.loading import has_trained_head
from mars_core.model.rendering import Renderer
from mars_core.model.reward_model import renderer_of
from mars_core.model.scoring import ScoreSpec
from mars_core.report.evaluation_report import curves_figure, evaluation_page
from mars_core.tables import write
from tasks.compute.compute import Compute
from tasks.run.compute_rewards import scratch
from tasks.run.prefect_api import tolerate_outage
from tasks.run.step import tell
from tasks.steps.evaluate_reward_model import measure

COUNTED = 200
"""Texts whose tokens are counted to estimate those of all."""
ROBUSTNESS = {
    robustness.HEADLINE: "share of changed pairs ranked right before and after",
    f"{robustness.KEY}/sign_kept": "share of margins with the sign that they had; one of zero is broken",
    f"{robustness.KEY}/change": "accuracy after minus accuracy before",
}
"""Measures over all transforms, and what they are."""
HEADERS = ("", "score", "95% interval", "definition")
"""Columns of `headlines`."""
COUNTS = ("_cut", "/same_tokens")
"""Ends of the names of numbers that are counts."""


@task(name="measure", task_run_name="measure", cache_policy=NO_CACHE, persist_result=False)
def measure_checkpoint(
    compute: Compute, spec: ScoreSpec, suite: Suite, tables: dict[str, Dataset], folder: Path
) -> tuple[list[Path], Metrics, list[str]]:
    """Write the table of results of each set of `tables` into a folder: the files, all metrics, and notes.

    What is computed of a text is kept there: started again after an interruption, scoring goes on.

    Raises:
        ModelError: the model cannot be loaded, has other outputs than its objective, or a reward is NaN or
        infinite.
    """
    files, metrics, notes = [], Metrics(), list[str]()
    if not has_trained_head(spec.model, spec.reward_model, spec.objective):
        notes.append("the checkpoint has no trained head: it got a random one, whose rewards mean nothing")
    renderer = renderer_of(spec.model, spec.reward_model)
    notes.append(f"texts are rendered {renderer.description}")
    tell("%s", amount_of_work(renderer, suite, tables))
    with scratch(folder / ".rows") as place:
        rows = {name: place / f"{name}.parquet" for name in tables}
        for name, table in tables.items():
            write(rows[name], table)
        places = {"output": folder / ".scores", "readouts": folder / ".vectors.sqlite"}
        measured = measure(compute, spec.model_copy(update=places), suite, rows)
    for name, part in measured.items():
        files.append(results_file(folder, name, suite))
        write_whole(files[-1], partial(part.table.to_parquet, index=False))
        metrics |= part.metrics
        notes += part.notes
    return files, metrics, notes


def results_file(folder: Path, name: str, suite: Suite) -> Path:
    """Where the table of results of a set is."""
    return folder / (f"{name}.parquet" if name in suite else f"{name}_rewards.parquet")


def amount_of_work(renderer: Renderer, suite: Suite, tables: Mapping[str, Dataset]) -> str:
    """How many texts are scored, how many of them are distinct, and about how many tokens these have."""
    texts, distinct, tokens = counted_texts(renderer, suite, tables)
    return f"{texts:,} texts, {distinct:,} of them distinct, with about {tokens:,.0f} tokens"


def counted_texts(renderer: Renderer, suite: Suite, tables: Mapping[str, Dataset]) -> tuple[int, int, float]:
    """The number of texts, of distinct ones, and of tokens in these, by a sample of `COUNTED` texts."""
    sets = texts_of_sets(suite, tables).values()
    every = [text for own in sets for text in zip(own.prompts, own.responses, strict=True)]
    distinct = list(dict.fromkeys(every))
    some = distinct[:: max(1, len(distinct) // COUNTED)]
    ids = renderer.render([prompt for prompt, _ in some], [response for _, response in some]).ids
    return len(every), len(distinct), len(distinct) * sum(map(len, ids)) / len(ids)


@task(name="summary", task_run_name="summary", cache_policy=NO_CACHE, persist_result=False)
def write_summary(
    file: Path, about: dict[str, Any], suite: Suite, metrics: Metrics, notes: list[str]
) -> tuple[dict[str, Any], list[Path]]:
    """Write notes and metrics as JSON, where a nan is null, and a page beside it; show both in Prefect.

    Args:
        file: where the JSON goes.
        about: what was measured; its `definitions` stand beside the numbers.
        suite: the benchmarks, whose curves are drawn.
        metrics: all numbers.
        notes: sentences.

    Returns:
        What was written as JSON, and the files.
    """
    finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    summary = {**about, "notes": notes, "metrics": finite}
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    rows = headlines(finite, about["definitions"])
    written = [file, file.with_name("evaluation.md")]
    curves = curves_figure(suite, metrics)
    if curves:
        written.append(file.with_name("curves.png"))
        write_whole(written[-1], partial(curves.savefig, dpi=150, format="png"))
    page = evaluation_page(summary, HEADERS, rows, written[-1].name if curves else None)
    write_whole(written[0], lambda path: path.write_text(text, encoding="utf-8"))
    write_whole(written[1], lambda path: path.write_text(page, encoding="utf-8"))
    table = [dict(zip(HEADERS, row, strict=True)) for row in rows]
    with tolerate_outage():
        create_table_artifact(key="evaluation", table=table, description=f"Evaluation of {about['model']}")
        create_markdown_artifact(key="evaluation-page", markdown=page)
    return summary, written


def definitions(suite: Suite, tables: Collection[str]) -> dict[str, str]:
    """What the numbers of `headlines` mean, by metric."""
    said = {
        f"{key}/{name}": definition
        for key, one in suite.items()
        for name, definition in {**one.definitions, "ties": f"equal rewards, {one.equal_rewards}"}.items()
    }
    if robustness.KEY in tables:
        said |= ROBUSTNESS
    said |= {f"{name}/prompts_cut": "texts whose prompt was cut at model.max_length" for name in tables}
    alike = "pairs whose responses are the same tokens: equal rewards, which count as wrong"
    return said | {f"{name}/same_tokens": alike for name in tables}


def headlines(
    metrics: Mapping[str, float | None], defined: Mapping[str, str]
) -> list[tuple[str, str, str, str]]:
    """Name, value, 95% interval and definition of every metric that has an interval or a definition.

    A metric may be unknown, as the total of a benchmark is of which a part is missing. Of a transform only
    robust accuracy is shown.
    """
    rows = []
    for name, value in metrics.items():
        low, high = (metrics.get(f"{name}_{end}") for end in ("low", "high"))
        part_of_a_transform = name.startswith(f"{robustness.KEY}/") and name.count("/") > 1
        if part_of_a_transform and not name.endswith("/robust_accuracy"):
            continue
        if f"{name}_low" in metrics or name in defined:
            shown = "–" if value is None else f"{value:.0f}" if name.endswith(COUNTS) else f"{value:.3f}"
            interval = "–" if low is None or high is None else f"{low:.3f}–{high:.3f}"
            rows.append((name, shown, interval, defined.get(name, "")))
    return rows
