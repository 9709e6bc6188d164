"""Scores of a folder of files by a schedule; each run scores what is new there."""

from pathlib import Path
from typing import Any

from prefect import flow

from mars_core.files import digest
from mars_core.model.checkpoints import content_of_checkpoint
from tasks.run.step import tell
from tasks.tracking.logged_models import fetched
from tasks.using.score_files import ScoreConfig, score_files


@flow(name="score", flow_run_name="score by {config.model.backbone}", persist_result=False)
def score(config: ScoreConfig) -> dict[str, Any]:
    """Score the files that have no scores yet, into a folder of the model's own below `output`.

    A registered model may be another one at the next run, whose scores do not mix with this one's.

    Returns:
        What summary.json holds.
    """
    with fetched(config.tracking, config.model.backbone) as checkpoint:
        model = digest(content_of_checkpoint(checkpoint))[:12]
    folder = Path(config.output or "scores", model)
    summary = score_files(config.model_copy(update={"output": str(folder)}))
    tell("%s scores are in %s.", f"{summary['scores']:,}", folder)
    return summary
