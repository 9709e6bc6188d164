"""The report of a run: a page and figures in its folder, a table and the page in Prefect."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from mars_core.evaluation import robustness
from mars_core.evaluation.contamination import prompt_numbers
from mars_core.evaluation.statistics import PairedDifference, paired_difference
from mars_core.model.reward_model import renderer_of
from mars_core.report.run_report import RunReport, rounds_table, write
from mars_core.report.text_sections import RoundTexts, hardest
from mars_core.report.wording import without_figures
from mars_core.tables import Table
from tasks.run import prefect_api
from tasks.run.prefect_api import task_of_flow, tolerate_outage
from tasks.run.round_metrics import best_round, read_metrics
from tasks.run.run_folder import ArtifactRef, RunFolder, RunFolderError
from tasks.run.sources import LEFT_OUT


def run_report(run: RunFolder) -> RunReport:
    """Collect the report of a run, finished or not, from its folder.

    Raises:
        RunFolderError: no round is finished.
    """
    metrics = read_metrics(run)
    if not metrics:
        raise RunFolderError(f"{run.root}: no round is finished yet; mars refine continues the run")
    best = best_round(metrics)
    compared = best or len(metrics) - 1
    heldout = {
        t: Table(run.path(run.of_round(t).rewards("heldout"))).numbers("margin")
        for t in sorted({0, compared})
    }
    allocations = {t: Table(run.path(run.of_round(t).allocation)) for t in range(1, len(metrics))}
    margins = ["margin_before", "margin_after"]
    synthetic = {
        t: Table(run.path(run.of_round(t).synthetic)).read(*margins).to_pandas().to_numpy().T
        for t in allocations
        if "synthetic/low_limit" in metrics[t]
    }
    left_out = run.json(run.outputs("prepare")[LEFT_OUT])
    return RunReport(
        name=run.config.name,
        rounds=metrics,
        best=best,
        difference=_heldout_difference(run, heldout[compared], heldout[0]) if compared else None,
        suite=run.config.evaluation.suite,
        benchmarks=_benchmark_differences(run, compared),
        robustness=_robustness_difference(run, compared),
        generator=run.config.generation.generator,
        by_language_model=run.config.generation.by_language_model,
        margins={t: table.numbers("margin") for t, table in allocations.items()},
        budgets={t: table.numbers("budget") for t, table in allocations.items()},
        heldout=heldout,
        synthetic=synthetic,
        data_notes=[
            *(f"Left out {count:,.0f} rows: {why}." for why, count in left_out.items()),
            *_rendering(run),
        ],
        texts=_texts(run, max(synthetic)) if synthetic else None,
        is_drawn=run.config.shared_steps is None,
    )


def _rendering(run: RunFolder) -> list[str]:
    """A sentence on how the run's models render texts, where the first of them is still there."""
    model = run.path(run.of_round(0).model)
    if not model.is_dir():
        return []
    return [f"Texts are rendered {renderer_of(str(model), run.config.model).description}."]


def _heldout_difference(
    run: RunFolder, later: NDArray[np.float32], first: NDArray[np.float32]
) -> PairedDifference:
    prompts = Table(run.path(run.outputs("prepare")["heldout"])).texts("prompt")
    return paired_difference(later > 0, first > 0, clusters=prompt_numbers(prompts))


def _texts(run: RunFolder, t: int) -> RoundTexts:
    """The texts to show of a round; only those of its hardest originals are read, because tables may be
    large."""
    paths = run.of_round(t)
    margins, synthetic = (Table(run.path(table)) for table in (paths.margins, paths.synthetic))
    shown = hardest(
        (batch.to_pandas() for batch in margins.batches("pair_id", "margin")),
        (batch["parent_id"].to_pylist() for batch in synthetic.batches("parent_id")),
    )

    def about(artifact: ArtifactRef | str, key: str, *columns: str) -> pd.DataFrame:
        return Table(run.path(artifact)).where(key, shown, *columns).to_pandas()

    originals = about(run.outputs("prepare")["train"], "pair_id").merge(
        about(paths.margins, "pair_id", "pair_id", "margin"), on="pair_id"
    )
    dropped = [
        pd.read_parquet(place)
        for place in map(run.path, (paths.dropped_rewrites, paths.dropped_paraphrases))
        if place.exists()
    ]
    return RoundTexts(
        round=t,
        originals=originals.set_index("pair_id").loc[shown].reset_index(),
        rewrites=about(paths.rewrites, "pair_id"),
        variants=about(paths.variants, "parent_id"),
        synthetic=about(paths.synthetic, "parent_id"),
        dropped=pd.concat(dropped, ignore_index=True) if dropped else None,
    )


def _benchmark_differences(run: RunFolder, compared: int) -> dict[str, PairedDifference]:
    """By benchmark and score, the difference between a round and round 0, if both were measured."""
    found = {}
    for key, benchmark in run.config.evaluation.suite.items():
        first, later = (run.path(run.of_round(t).benchmark(key)) for t in (0, compared))
        if compared and first.exists() and later.exists():
            compared_scores = benchmark.differences(pd.read_parquet(later), pd.read_parquet(first))
            for score, difference in compared_scores.items():
                found[f"{benchmark.title} {score.rpartition('/')[2]}"] = difference
    return found


def _robustness_difference(run: RunFolder, compared: int) -> PairedDifference | None:
    """Robust accuracy of a round minus that of round 0, if both were measured."""
    first, later = (run.path(run.of_round(t).rewards(robustness.KEY)) for t in (0, compared))
    if not (compared and first.exists() and later.exists()):
        return None
    tables = pd.read_parquet(later), pd.read_parquet(first)
    return robustness.robustness_difference(*tables) if len(tables[0]) else None


@task_of_flow("report")
def write_report(run: RunFolder) -> RunReport:
    """Write report.md and its figures, and show the table of rounds and the page in Prefect."""
    report = run_report(run)
    page = without_figures(write(report, run.root))
    if not prefect_api.has_flow_run():
        return report
    headers, rows = rounds_table(report)
    table = [dict(zip(headers, row, strict=True)) for row in rows]
    with tolerate_outage():
        create_table_artifact(key="rounds", table=table, description=f"Rounds of {report.name}")
        create_markdown_artifact(key="report", markdown=page, description=f"Report of {report.name}")
    return report
