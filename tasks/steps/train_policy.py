"""Train the policy on its scored responses, in a child process."""

import sys

from mars_core.alignment.policy_trainer import TrainingSpec
from mars_core.alignment.rewards import OptimisedReward
from mars_core.files import digest
from mars_core.model.reward_model import device_of
from tasks.processes.trainer import run_trainer
from tasks.run.align_config import AlignConfig
from tasks.run.progress import progress
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import Checkpoint, Made, content_of, step, tell
from tasks.steps.score_responses import GOLD

TRAINER = "mars_core.alignment.policy_trainer"
SNAPSHOTS = ".training"
"""Folder of unfinished training; it may be removed, and training then begins anew."""


@step(
    "training",
    version=1,
    reads=(
        "seed",
        "training",
        "reward_model",
        "generation.respond",
        "rewards.combine",
        "rewards.spread_penalty",
        "rewards.length_penalty",
        "rewards.outlier_penalty",
    ),
)
def train_policy(
    run: RunFolder[AlignConfig],
    round: int,
    until: int,
    policy: Checkpoint,
    responses: ArtifactRef,
    rewards: ArtifactRef,
    models: dict[str, Checkpoint],
) -> Made[ArtifactRef]:
    """Train from `policy` up to the optimizer step `until`, and write the policy; training goes on from the
    last snapshot, of an earlier round or of a start that was killed.

    The output `curve` is the training curve.

    Raises:
        ChildError: the process crashed, was killed, or took too long, or there was nothing to learn.
    """
    config, paths = run.config, run.of_round(round)
    assert config.training
    both = run.table(responses).merge(run.table(rewards), on=["prompt_id", "sample"])
    name = digest(content_of(policy), responses.sha256, rewards.sha256)[:16]
    optimised = {column: model for column, model in models.items() if column != GOLD}
    spec = TrainingSpec(
        policy=policy.reference,
        responses=run.path(run.write(paths.scored_responses, both.to_parquet)),
        models=tuple(model.reference for model in optimised.values()),
        rewards=OptimisedReward(**config.rewards.model_dump(include=set(OptimisedReward.model_fields))),
        reward_model=config.reward_model,
        sampling=config.generation.respond,
        training=config.training,
        seed=config.seed,
        until=until,
        snapshots=run.path(f"{SNAPSHOTS}/{name}"),
        output=run.path(paths.policy),
        log=run.path(paths.training),
    )
    file = run.path(
        run.write(paths.policy_spec, lambda path: path.write_text(spec.model_dump_json(indent=2)))
    )
    with progress(config.training.method, until, "steps") as advance:
        result = run_trainer(
            TRAINER,
            file,
            [] if device_of(config.reward_model) == "cpu" else [sys.executable],
            log=run.path(paths.policy_log),
            deadline_hours=config.training.deadline_hours,  # type: ignore[attr-defined]
            counts="step",
            advance=advance,
        )
    if "broken_at" in result:
        tell(
            "The gradient of step %.0f is NaN or infinite: training ends, and the policy is that of step "
            "%.0f. Lower training.learning_rate.",
            result["broken_at"], result["steps"],
        )  # fmt: skip
    tell(
        "Trained from step %.0f to %.0f, the loss of the last is %.4f.",
        result["resumed_at"], result["steps"], result["loss"],
    )  # fmt: skip
    metrics = {f"training/{key}": value for key, value in result.items()}
    return Made(run.adopt(paths.policy), metrics, also={"curve": run.adopt(paths.training)})
