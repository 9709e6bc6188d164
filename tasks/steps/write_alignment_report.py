"""The report of an alignment: a page and a picture in its folder, the page in Prefect."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from mars_core.alignment.over_optimisation import OverOptimisation, over_optimisation
from mars_core.alignment.policy_changes import Trained, metrics_of_changes
from mars_core.evaluation.benchmarks.best_of_n import KEY
from mars_core.files import write_whole
from mars_core.report import training_section
from mars_core.report.alignment_report import markdown, sentence, write
from mars_core.report.wording import without_figures
from tasks.run.align_config import AlignConfig
from tasks.run.prefect_api import tolerate_outage
from tasks.run.run_folder import ArtifactRef, RunFolder

EXAMPLES = 5
SUMMARY = "summary.json"


class AlignmentReport(NamedTuple):
    """What came out."""

    name: str
    found: OverOptimisation
    metrics: dict[str, float]
    trained: Trained | None

    @property
    def sentence(self) -> str:
        """What to take from it."""
        of_training = [training_section.sentence(self.trained)] if self.trained else []
        return " ".join([sentence(self.found), *of_training])


@task(name="report", task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def write_alignment_report(
    run: RunFolder[AlignConfig], round: int, best: ArtifactRef, trained: Trained | None
) -> AlignmentReport:
    """Write report.md, summary.json and pictures, and show the page in Prefect."""
    table, config = run.table(best), run.config
    found = over_optimisation(table)
    metrics = run.metrics_of(round)
    metrics |= {f"kl_bound/{n}": math.log(n) - (n - 1) / n for n in found.proxy}
    for name, gains in (("reward", found.proxy), ("gold", found.gold)):
        for n, gain in gains.items():
            ends = zip(("", "_low", "_high"), gain, strict=True)
            metrics |= {f"{name}_gain_of_best_of_{n}{end}": value for end, value in ends}
    about: dict[str, Any] = {
        "policy": f"`{config.policy}`, sampled at temperature {config.generation.respond.temperature:g}",
        "prompts": f"`{config.prompts.source}`",
        "reward models": ", ".join(f"`{model}`" for model in config.rewards.models)
        + (f", their {config.rewards.combine}" if len(config.rewards.models) > 1 else ""),
        "gold": f"`{config.rewards.gold}`" if config.rewards.gold else "none",
    }
    section = list[str]()
    if trained:
        respond = config.generation.respond
        section = training_section.section(trained, respond.temperature, respond.top_p)
        figure = training_section.picture(trained)
        put = partial(figure.savefig, dpi=150, format="png")
        write_whole(run.path(training_section.PICTURE), put)
    examples = _examples(table.head(EXAMPLES).to_dict("records"))
    page = markdown(config.name, about, found, metrics, examples, section)
    write(page, metrics, KEY, run.root)
    summary = about | {"metrics": _finite(metrics)}
    if trained:
        measured = trained.evaluations.items()
        summary |= {"training": {steps: _finite(metrics_of_changes(table)) for steps, table in measured}}
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    write_whole(run.path(SUMMARY), lambda path: path.write_text(text, encoding="utf-8"))
    with tolerate_outage():
        create_markdown_artifact(
            key="alignment", markdown=without_figures(page), description=f"Report of {config.name}"
        )
    return AlignmentReport(config.name, found, metrics, trained)


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """What JSON can hold."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _examples(rows: Sequence[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    examples = []
    for row in rows:
        best, least = int(np.argmax(row["rewards"])), int(np.argmin(row["rewards"]))
        difference = row["rewards"][best] - row["rewards"][least]
        texts = {"prompt": row["prompt"], "chosen": row["responses"][best], "other": row["responses"][least]}
        examples.append(texts | {"difference": difference})
    return examples
