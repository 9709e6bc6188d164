"""Measure a reward model on pairs and benchmarks: each round's (docs/method.md, step 7), or any other."""

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from datasets import Dataset
from numpy.typing import NDArray
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from mars_core.evaluation.calibration import brier_score, expected_calibration_error
from mars_core.evaluation.length_bias import length_bias, lengths
from mars_core.evaluation.statistics import pairwise_summary
from mars_core.evaluation.suite import BENCHMARKS, benchmark_results, constancy, length_rules, number_of_texts
from mars_core.files import write_whole
from mars_core.model.loading import has_trained_head
from mars_core.model.reward_model import ModelConfig, RewardModel, pair_rewards
from tasks.run.prefect_api import tolerated
from tasks.run.progress import progress
from tasks.run.round_models import load_reward_model
from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder
from tasks.run.step import step, tell

Figures = dict[str, float]


class Measured(NamedTuple):
    """A table of rewards, the figures that follow from it, and sentences that a reader of these must know."""

    table: pd.DataFrame
    figures: Figures
    notes: list[str]


@step("evaluation", version=6, reads=("model",))
def evaluate_reward_model(
    run: RunFolder, round: int, model: ArtifactRef, sets: dict[str, ArtifactRef]
) -> Outputs:
    """Rewards and figures of `sets`: validation and held-out pairs, and the rows of the benchmarks."""
    reward_model = load_reward_model(run, model)
    tables = {name: run.dataset(part) for name, part in sets.items()}
    measured = measure(reward_model, tables, f"round {round} · ")
    return {
        name: run.write_table(f"round-{round}/{file_of(name)}", part.table, part.figures)
        for name, part in measured.items()
    }


@task(name="measure", task_run_name="measure", cache_policy=NO_CACHE, persist_result=False)
def measure_checkpoint(
    reference: str, config: ModelConfig, tables: dict[str, Dataset], folder: Path
) -> tuple[list[Path], Figures, list[str]]:
    """Write the table of each set of `tables` into a folder: the files, all figures, and notes.

    Raises:
        ModelError: the model cannot be loaded, has other than one output, or a reward is NaN or infinite.
    """
    files, figures, notes = [], Figures(), list[str]()
    if not has_trained_head(reference):
        notes.append("the checkpoint has no trained head: it got a random one, whose rewards mean nothing")
    for name, part in measure(RewardModel.load(reference, config), tables).items():
        files.append(folder / file_of(name))
        write_whole(files[-1], partial(part.table.to_parquet, index=False))
        figures |= part.figures
        notes += part.notes
    return files, figures, notes


@task(name="summary", task_run_name="summary", cache_policy=NO_CACHE, persist_result=False)
def write_summary(file: Path, about: dict[str, Any], figures: Figures, notes: list[str]) -> dict[str, Any]:
    """Write notes and figures as JSON, where a nan is null, and show the main figures in Prefect."""
    finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    summary = {**about, "notes": notes, "figures": finite}
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    write_whole(file, lambda path: path.write_text(text, encoding="utf-8"))
    table = [dict(zip(("", "score", "95% interval"), row, strict=True)) for row in headlines(finite)]
    with tolerated():
        create_table_artifact(key="evaluation", table=table, description=f"Evaluation of {about['model']}")
    return summary


def headlines(figures: Mapping[str, float | None]) -> list[tuple[str, str, str]]:
    """Name, value and 95% interval of every figure that has one; a figure may be unknown."""
    return [
        (name, "–" if value is None else f"{value:.3f}", "–" if low is None else f"{low:.3f}–{high:.3f}")
        for name, value in figures.items()
        if f"{name}_low" in figures
        for low, high in [(figures[f"{name}_low"], figures[f"{name}_high"])]
    ]


def file_of(name: str) -> str:
    """The file of a table of results (benchmarks) or rewards (pairs)."""
    return f"{name}.parquet" if name in BENCHMARKS else f"{name}_rewards.parquet"


def measure(model: RewardModel, tables: dict[str, Dataset], title: str = "") -> dict[str, Measured]:
    """Measure a model on the rows of benchmarks, in one pass, and on any other tables, which hold pairs.

    The names of the tables begin the names of their figures; `title` begins what progress is called.
    """
    measured = {
        name: _on_pairs(model, name, pairs, title) for name, pairs in tables.items() if name not in BENCHMARKS
    }
    measured |= _on_benchmarks(model, {name: tables[name] for name in BENCHMARKS if name in tables}, title)
    for part in measured.values():
        for note in part.notes:
            tell("%s", note)
    return measured


def _on_pairs(model: RewardModel, name: str, pairs: Dataset, title: str) -> Measured:
    cut = _cut(model)
    with progress(f"{title}{name}", 2 * len(pairs), "texts") as advance:
        rewards = pair_rewards(model, pairs, advance)
    summary = pairs_summary(rewards) | length_bias(rewards["margin"], *_lengths(pairs))
    tell(
        "%s accuracy %.3f [%.3f, %.3f] on %s pairs; a coin would be within %.3f–%.3f.",
        name.capitalize(), summary["accuracy"], summary["accuracy_low"], summary["accuracy_high"],
        f"{len(pairs):,}", summary["chance_low"], summary["chance_high"],
    )  # fmt: skip
    return _measured(name, rewards, summary | _cut(model, since=cut))


def _on_benchmarks(model: RewardModel, benchmarks: dict[str, Dataset], title: str) -> dict[str, Measured]:
    if not benchmarks:
        return {}
    titles = " and ".join(BENCHMARKS[name].ORIGIN.title for name in benchmarks)
    measured, cut = {}, _cut(model)
    with progress(f"{title}{titles}", number_of_texts(benchmarks), "texts") as advance:
        for name, table in benchmark_results(model, benchmarks, advance):
            scores = BENCHMARKS[name].score(table) | _bias(name, table, benchmarks[name])
            scores["subsets_of_other_size"] = float(len(BENCHMARKS[name].count_warnings(benchmarks[name])))
            measured[name] = _measured(name, table, scores | _cut(model, since=cut))
            cut = _cut(model)
    for name, part in measured.items():
        ends = (part.figures[f"{name}/total{end}"] for end in ("", "_low", "_high"))
        tell("%s %.3f [%.3f, %.3f].", BENCHMARKS[name].ORIGIN.title, *ends)
    return measured


def _cut(model: RewardModel, since: Figures | None = None) -> Figures:
    """How many scored texts lost part of their prompt, or of their response, to the limit of tokens."""
    so_far = {"prompts_cut": float(model.prompts_cut), "responses_cut": float(model.responses_cut)}
    return {name: count - (since or {}).get(name, 0.0) for name, count in so_far.items()}


def _measured(name: str, table: pd.DataFrame, summary: Figures) -> Measured:
    notes = constancy(table)
    figures = {f"{name}/{figure}": value for figure, value in summary.items()}
    figures[f"{name}/constant"] = float(bool(notes))
    return Measured(table, figures, [f"{name}: {note}" for note in notes])


def _bias(name: str, table: pd.DataFrame, rows: Dataset) -> Figures:
    """What length explains of a benchmark, and calibration where its rows are pairs, which have margins."""
    rules = length_rules(name, rows)
    if name != "rewardbench":
        return rules
    margins = (table["reward_chosen"] - table["reward_rejected"]).to_numpy()
    return length_bias(margins, *_lengths(rows)) | _calibration(margins) | rules


def _lengths(rows: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return lengths(rows["chosen"][:]), lengths(rows["rejected"][:])


def pairs_summary(rewards: pd.DataFrame) -> Figures:
    """The figures of scored preference pairs (columns as of `pair_rewards`)."""
    margins = rewards["margin"].to_numpy()
    return pairwise_summary(margins) | _calibration(margins)


def _calibration(margins: NDArray[np.float32]) -> Figures:
    return {"brier": brier_score(margins), "calibration_error": expected_calibration_error(margins)}
