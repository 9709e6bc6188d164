"""The pages of several models that were measured on the same sources."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset
from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from mars_core.evaluation.contamination import prompt_numbers
from mars_core.evaluation.evaluation_config import Suite
from mars_core.evaluation.league import Source, league, together
from mars_core.files import write_whole
from mars_core.report.evaluation_report import league_figure, league_page
from mars_core.report.wording import without_figures
from tasks.run.prefect_api import tolerate_outage
from tasks.steps.measure_checkpoint import results_file

FILES = ("league.md", "league.png", "league.json")


@task(name="league", task_run_name="league", cache_policy=NO_CACHE, persist_result=False)
def write_league(
    folder: Path,
    suite: Suite,
    tables: Mapping[str, Dataset],
    evaluated: Sequence[tuple[Path, Mapping[str, Any]]],
) -> list[Source]:
    """Compare models, and write `FILES` into a folder.

    Args:
        folder: gets the files.
        suite: the benchmarks.
        tables: the sets that all models were measured on.
        evaluated: the folder of each model with its tables of results, and its summary.
    """
    models = [summary["model"] for _, summary in evaluated]
    results = [
        {name: _results(results_file(place, name, suite), name, tables) for name in tables}
        for place, _ in evaluated
    ]
    sources = league(suite, results, [summary["metrics"] for _, summary in evaluated])
    as_one = together(suite, results)
    page = league_page(models, sources, as_one)
    numbers: dict[str, Any] = {
        source.key: {
            model: {"score": score._asdict(), "rank": rank}
            for model, score, rank in zip(models, source.scores, source.ranks, strict=True)
        }
        for source in sources
    }
    told = numbers | ({"together": as_one} if as_one else {})
    text = json.dumps(told, indent=2, ensure_ascii=False).replace("NaN", "null") + "\n"
    write_whole(folder / "league.md", lambda path: path.write_text(page, encoding="utf-8"))
    write_whole(folder / "league.json", lambda path: path.write_text(text, encoding="utf-8"))
    picture = league_figure(models, sources)
    write_whole(folder / "league.png", partial(picture.savefig, dpi=150, format="png"))
    with tolerate_outage():
        create_markdown_artifact(key="league", markdown=without_figures(page), description="Several models")
    return sources


def _results(file: Path, name: str, tables: Mapping[str, Dataset]) -> pd.DataFrame:
    """A table of results; that of pairs with a number for each prompt."""
    table = pd.read_parquet(file)
    return table.assign(prompt=prompt_numbers(tables[name]["prompt"][:])) if name == "pairs" else table
