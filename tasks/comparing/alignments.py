"""What the reward model of each cell does to one policy: an alignment for each cell, with the same prompts.

The untrained policy's responses are sampled in the first alignment; the others find them finished.
"""

import copy
from pathlib import Path
from typing import Any

from mars_core.alignment.policy_changes import KL, WIN_RATE, changes
from mars_core.alignment.trainer_setup import TrainingError
from mars_core.comparison import Cell, ComparisonConfig
from mars_core.config import ConfigError, flat, put, to_yaml, validated
from mars_core.evaluation.benchmarks import best_of_n
from mars_core.files import write_whole
from mars_core.report.comparison_report import BEST, POLICY
from tasks.run.align_config import AlignConfig
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import CELLS, RunFolder
from tasks.steps.write_alignment_report import AlignmentReport

OF_AN_ALIGNMENT = ("folder", "name", "rewards.models", "shared_steps", "tracking")
"""Keys and sections that a comparison gives to each alignment."""


def alignment_of(config: ComparisonConfig, cell: Cell[RunConfig], parent: str | None = None) -> AlignConfig:
    """The alignment of a cell's last reward model; in MLflow its parent is the comparison's run `parent`.

    Raises:
        ConfigError: a key is unknown, out of range, or the comparison's own; or the alignments would not be
            measured alike.
    """
    assert config.align is not None
    values: dict[str, Any] = copy.deepcopy(config.align)
    for key in flat(values):
        if any(key == own or key.startswith(f"{own}.") for own in OF_AN_ALIGNMENT):
            raise ConfigError(f"align: remove the key {key}: the comparison sets it")
    experiment = cell.experiment
    model = config.root / cell.name / RunFolder.of_round(experiment.rounds).model
    put(values, "rewards.models", [str(model)])
    tags = experiment.tracking.tags | {"mars.arm": cell.arm, "mars.seed": str(cell.seed)}
    tracking = experiment.tracking.model_copy(update={"parent": parent, "tags": tags})
    values |= {
        "name": f"{cell.name}-aligned",
        "folder": experiment.folder,
        "shared_steps": experiment.shared_steps,
        "tracking": tracking.model_dump(mode="json"),
        "reward_model": experiment.model.model_dump(mode="json") | (values.get("reward_model") or {}),
    }
    alignment = validated(AlignConfig, values, f"{config.name}, align")
    if alignment.rewards.gold is None:
        raise ConfigError("align: the arms' reward models are compared by a gold model: set rewards.gold")
    if alignment.training and alignment.training.stop_on_gold:  # type: ignore[attr-defined]
        raise ConfigError(
            "align: policies are compared after the same number of steps: set training.stop_on_gold to false"
        )
    return alignment


def alignment_file(config: ComparisonConfig, cell: Cell[RunConfig], parent: str | None) -> Path:
    """Write the configuration of a cell's alignment."""
    alignment = alignment_of(config, cell, parent)
    file = config.root / CELLS / f"{alignment.name}.yaml"
    write_whole(file, lambda path: path.write_text(to_yaml(alignment), encoding="utf-8"))
    return file


def metrics_of_alignment(report: AlignmentReport) -> dict[str, float]:
    """What is compared: gold of the best of all samples, and what training did to the policy.

    Raises:
        TrainingError: training broke off, so that the policy has fewer steps than others.
    """
    found = {BEST: report.metrics[f"{best_of_n.KEY}/gold-best-of-{report.found.most}"]}
    if report.trained is None:
        return found
    if report.trained.broken_at:
        raise TrainingError(
            f"the gradient of step {report.trained.broken_at:,} is NaN or infinite: lower "
            "align.training.learning_rate"
        )
    moved = changes(report.trained.evaluations[max(report.trained.evaluations)])
    return found | {f"{POLICY}/{name}": moved[name].value for name in ("gold", WIN_RATE, "characters", KL)}
