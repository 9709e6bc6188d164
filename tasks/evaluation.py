"""Measure a round's reward model (METHOD.md step 7)."""

from mars_core import rewardbench
from mars_core.calibration import brier_score, expected_calibration_error
from mars_core.evaluation import rewardbench_rewards
from mars_core.reward_model import RewardModel, pair_rewards
from mars_core.statistics import pairwise_summary
from tasks.progress import progress
from tasks.run_folder import ArtifactRef, Outputs, RunFolder
from tasks.steps import step, tell


@step("evaluation", version=1, reads=("model", "evaluation"))
def evaluate_reward_model(
    run: RunFolder,
    round: int,
    model: ArtifactRef,
    validation: ArtifactRef,
    heldout: ArtifactRef,
    benchmark: str,
) -> Outputs:
    """Rewards of the validation, held-out and RewardBench pairs; `benchmark` digests the latter's content."""
    reward_model = RewardModel.load(str(run.path(model)), run.config.model)
    outputs = {}
    for name, reference in (("validation", validation), ("heldout", heldout)):
        pairs = run.dataset(reference)
        with progress(f"round {round} · {name}", 2 * len(pairs), "texts") as advance:
            rewards = pair_rewards(reward_model, pairs, advance)
        margins = rewards["margin"].to_numpy()
        summary = pairwise_summary(margins) | {
            "brier": brier_score(margins),
            "calibration_error": expected_calibration_error(margins),
        }
        outputs[name] = run.write_table(
            f"round-{round}/{name}_rewards.parquet",
            rewards,
            {f"{name}/{figure}": value for figure, value in summary.items()},
        )
        tell(
            "%s accuracy %.3f [%.3f, %.3f] on %s pairs; a coin would be within %.3f–%.3f.",
            name.capitalize(), summary["accuracy"], summary["accuracy_low"], summary["accuracy_high"],
            f"{len(pairs):,}", summary["chance_low"], summary["chance_high"],
        )  # fmt: skip
    if run.config.evaluation.rewardbench:
        rows = rewardbench.read(run.config.evaluation.rewardbench)
        with progress(f"round {round} · RewardBench", 2 * len(rows), "texts") as advance:
            results = rewardbench_rewards(reward_model, rows, advance)
        scores = rewardbench.score(results)
        outputs["rewardbench"] = run.write_table(
            f"round-{round}/rewardbench.parquet",
            results,
            {f"rewardbench/{figure}": value for figure, value in scores.items()},
        )
        tell("RewardBench %.3f [%.3f, %.3f].", scores["total"], scores["total_low"], scores["total_high"])
    return outputs
