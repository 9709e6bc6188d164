"""From a reward model to better responses of a policy: sampled, scored, and the best of n measured."""

from contextlib import ExitStack
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from mars_core.data.prompts import read_prompts
from tasks.processes.open_generator import generator_of
from tasks.run.align_config import AlignConfig, load_alignment
from tasks.run.run_folder import RunFolder, open_run
from tasks.run.sources import source_digest
from tasks.run.step import Checkpoint
from tasks.steps.measure_best_of_n import measure_best_of_n
from tasks.steps.sample_responses import prepare_prompts, sample_responses
from tasks.steps.score_responses import GOLD, score_responses
from tasks.steps.write_alignment_report import SUMMARY, AlignmentReport, write_alignment_report
from tasks.tracking.alignment_tracking import track_alignment
from tasks.tracking.logged_models import fetched


def _run_name() -> str:
    return load_alignment(**flow_run.parameters).name


@flow(name="align", flow_run_name=_run_name, persist_result=False)
def align(file: str, overrides: tuple[str, ...] = ()) -> AlignmentReport:
    """Sample a policy, and measure what choosing the best of n by reward models does to its responses.

    Args:
        file: path of the configuration.
        overrides: `dotted.key=value` changes to it.

    Returns:
        What choosing does to the rewards and to gold. Started again, the flow continues after the last
        finished step, and no answered request is sent again.
    """
    config = load_alignment(file, overrides)
    with open_run(config) as run, ExitStack() as stack:
        models = _models(config, stack)  # one that is not there is told before the work
        prompts = prepare_prompts(run, 0, source_digest(config.prompts.source, run.digests))
        with generator_of(config.generation, run.path("vllm.log")) as generator:
            responses = sample_responses(run, 0, prompts, generator)
        rewards = score_responses(run, 0, responses, models)
        best = measure_best_of_n(run, 0, responses, rewards)
        report = write_alignment_report(run, 0, best)
        track_alignment(run, report.metrics, _files(run))
        return report


def estimate_alignment(config: AlignConfig) -> dict[str, str]:
    """What an alignment costs at most.

    Raises:
        PairsError: the prompts cannot be read.
    """
    prompts = len(read_prompts(config.prompts.source, config.prompts.number, config.seed))
    responses = prompts * config.samples
    judges = len(config.rewards.models) + (config.rewards.gold is not None)
    return {
        "prompts": f"{prompts:,}",
        "requests": f"{prompts:,} to {config.generation.generator}, {config.samples} samples each",
        "tokens": f"at most {responses * config.generation.respond.max_tokens:,} are written",
        "texts scored": f"at most {responses:,} by each of {judges} reward models",
    }


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
