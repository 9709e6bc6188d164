"""From a reward model to a better policy: sampled, scored, the best of n measured, and the policy trained."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import flow
from prefect.runtime import flow_run

from mars_core.alignment.methods.method import boundaries
from mars_core.alignment.policy import check_policy, check_trainable
from mars_core.alignment.policy_changes import Trained, best_by_gold, gold_fell
from mars_core.data.prompts import read_prompts
from mars_core.model.checkpoints import locate
from tasks.processes.open_generator import generator_of
from tasks.run.align_config import AlignConfig, load_alignment
from tasks.run.run_folder import ArtifactRef, RunFolder, open_run
from tasks.run.sources import source_digest
from tasks.run.step import Checkpoint
from tasks.steps.measure_best_of_n import measure_best_of_n
from tasks.steps.measure_policy import measure_policy
from tasks.steps.sample_responses import prepare_prompts, sample_responses
from tasks.steps.score_responses import GOLD, score_responses
from tasks.steps.train_policy import SNAPSHOTS, train_policy
from tasks.steps.write_alignment_report import SUMMARY, AlignmentReport, write_alignment_report
from tasks.tracking.alignment_tracking import track_alignment
from tasks.tracking.logged_models import fetched

POLICY = "policy"
"""In the run's folder: the policy that is kept."""


def _run_name() -> str:
    return load_alignment(**flow_run.parameters).name


@flow(name="align", flow_run_name=_run_name, persist_result=False)
def align(file: str, overrides: tuple[str, ...] = ()) -> AlignmentReport:
    """Sample a policy, measure what choosing the best of n by reward models does, and train the policy.

    Args:
        file: path of the configuration.
        overrides: `dotted.key=value` changes to it.

    Returns:
        What choosing, and training, does to the rewards and to gold. Started again, the flow continues after
        the last finished step, and no answered request is sent again.
    """
    config = load_alignment(file, overrides)
    if config.training:
        check_trainable(config.training.method)
    with open_run(config) as run, ExitStack() as stack:
        models = _models(config, stack)  # one that is not there is told before the work
        prompts = prepare_prompts(run, 0, source_digest(config.prompts.source, run.digests))
        if config.runs_the_policy:
            asked = run.table(prompts)["prompt"]
            check_policy(config.policy, asked, config.generation.respond.max_tokens)
        with generator_of(config.generation, run.path("vllm.log")) as generator:
            responses = sample_responses(run, 0, prompts, generator)
        rewards = score_responses(run, 0, responses, responses, models)
        best = measure_best_of_n(run, 0, responses, rewards)
        trained = _train(run, prompts, responses, rewards, models) if config.training else None
        report = write_alignment_report(run, 0, best, trained)
        track_alignment(run, report.metrics, trained, _files(run))
        return report


def _train(
    run: RunFolder[AlignConfig],
    prompts: ArtifactRef,
    responses: ArtifactRef,
    rewards: ArtifactRef,
    models: dict[str, Checkpoint],
) -> Trained:
    """Train the policy from one evaluation to the next; a round is an evaluation."""
    config, reference = run.config, Checkpoint(run.config.policy)
    training: Any = config.training
    policies, tables = dict[int, ArtifactRef](), dict[int, pd.DataFrame]()
    stops = boundaries(training.steps, training.evaluations)
    for number, until in enumerate(stops, start=1):
        policy = train_policy(run, number, until, reference, responses, rewards, models)
        found = run.metrics_of(number)
        reached, broken_at = int(found["training/steps"]), int(found.get("training/broken_at", 0))
        if reached not in policies:
            served = config.generation.model_copy(update={"model": str(run.path(policy))})
            with generator_of(served, run.path("vllm.log")) as generator:
                answers = sample_responses(run, number, prompts, generator, policy)
            scores = score_responses(run, number, answers, responses, models)
            after = {"responses": answers, "rewards": scores}
            before = {"responses": responses, "rewards": rewards}
            measured = measure_policy(run, number, before, after, reference, policy)
            policies[reached], tables[reached] = policy, run.table(measured)
        stopped = training.stop_on_gold and gold_fell([*tables.values()])
        if broken_at or stopped:
            break
    kept = best_by_gold(tables) if training.stop_on_gold else max(policies)
    if kept is not None:
        run.link(policies[kept], POLICY)
    shutil.rmtree(run.path(SNAPSHOTS), ignore_errors=True)
    return Trained(training.method, tables, kept, broken_at or None, stopped)


def estimate_alignment(config: AlignConfig) -> dict[str, str]:
    """What an alignment costs at most.

    Raises:
        PairsError: the prompts cannot be read.
        ModelError, TrainingError: as `check_policy`, of a policy on this machine; or `trl` is not installed.
    """
    asked = read_prompts(config.prompts.source, config.prompts.number, config.seed)
    training: Any = config.training
    if training:
        check_trainable(training.method)
    if config.runs_the_policy and locate(config.policy).revision is None:
        check_policy(config.policy, asked, config.generation.respond.max_tokens)
    rounds = 1 + (len(boundaries(training.steps, training.evaluations)) if training else 0)
    requests, responses = len(asked) * rounds, len(asked) * config.samples * rounds
    judges = len(config.rewards.models) + (config.rewards.gold is not None)
    estimate = {
        "prompts": f"{len(asked):,}",
        "requests": f"{requests:,} to {config.generation.generator}, {config.samples} samples each",
        "tokens": f"at most {responses * config.generation.respond.max_tokens:,} are written",
        "texts scored": f"at most {responses:,} by each of {judges} reward models",
    }
    if training:
        sampled = training.steps * training.open().responses_of_a_step()
        more = f", in which {sampled:,} responses are sampled and scored" if sampled else ""
        evaluated = f"the policy is sampled and compared {rounds - 1} times"
        estimate["training"] = f"{training.steps:,} optimizer steps of {training.method}{more}; {evaluated}"
    return estimate


def _models(config: AlignConfig, stack: ExitStack) -> dict[str, Checkpoint]:
    """Name of a column → checkpoint; registered models are fetched into folders that exist until the end."""
    named = {f"reward_{number}": model for number, model in enumerate(config.rewards.models)}
    if config.rewards.gold is not None:
        named[GOLD] = config.rewards.gold
    return {
        name: Checkpoint(stack.enter_context(fetched(config.tracking, model)))
        for name, model in named.items()
    }


def _files(run: RunFolder[AlignConfig]) -> list[Path]:
    """What MLflow gets: the page first."""
    return [run.path("report.md"), *sorted(run.root.glob("*.png")), run.path(SUMMARY)]
