"""What training did to the policy: rewards, gold, length, repetition and divergence, paired by prompt."""

from datasets import Dataset

from mars_core.alignment.policy import (
    divergences,
    policy_tokenizer,
    prompt_tokens,
    response_tokens,
)
from mars_core.alignment.policy_changes import by_prompt, measured, metrics_of_changes
from mars_core.model.reward_model import device_of
from tasks.run.align_config import AlignConfig
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import Checkpoint, Made, step


@step("policy", version=2)
def measure_policy(
    run: RunFolder[AlignConfig],
    round: int,
    before: dict[str, ArtifactRef],
    after: dict[str, ArtifactRef],
    reference: Checkpoint,
    policy: ArtifactRef,
) -> Made[ArtifactRef]:
    """Compare responses of a trained policy with those of the untrained one: a row for each prompt.

    Args:
        run: the folder.
        round: of the trained policy.
        before: `responses` and `rewards` of the untrained policy.
        after: those of the trained one.
        reference: the untrained policy.
        policy: the trained one.
    """
    responses = run.table(after["responses"])
    rewards = run.table(after["rewards"])
    tokenizer = policy_tokenizer(reference.reference)
    prompts = [prompt_tokens(tokenizer, prompt) for prompt in responses["prompt"]]
    written = [
        response_tokens(tokenizer, text, is_cut_off=bool(cut_off))
        for text, cut_off in zip(responses["response"], responses["is_cut_off"], strict=True)
    ]
    found = divergences(
        str(run.verified(policy)), reference.reference, prompts, written, device_of(run.config.reward_model)
    )
    table = by_prompt(
        measured(run.table(before["responses"]), run.table(before["rewards"])),
        measured(responses, rewards),
        list(found),
    )
    compared = run.write_table(run.of_round(round).policy_by_prompt, Dataset.from_pandas(table))
    return Made(compared, metrics_of_changes(table))
