"""What a policy is asked, and what it responds: the beginning of an alignment."""

import numpy as np
import pyarrow as pa

from mars_core.data.prompts import read_prompts
from mars_core.files import digest
from mars_core.generation import CUT_OFF, GenerationError, Generator, Request
from mars_core.generation.cleaning import without_tokens
from tasks.run.align_config import AlignConfig
from tasks.run.progress import progress
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import Made, step, tell


@step("prompts", version=1, reads=("seed", "prompts"))
def prepare_prompts(run: RunFolder[AlignConfig], round: int, content: str) -> Made[ArtifactRef]:
    """Read the prompts; `content` is the digest of their source."""
    wanted = run.config.prompts
    prompts = read_prompts(wanted.source, wanted.number, run.config.seed)
    ids = [digest(prompt)[:16] for prompt in prompts]
    table = run.write_table(run.of_round(round).prompts, pa.table({"prompt_id": ids, "prompt": prompts}))
    return Made(table, {"prompts/n": float(len(prompts))})


@step("responses", version=1, reads=("generation", "policy", "samples"), works_with=("generator",))
def sample_responses(
    run: RunFolder[AlignConfig],
    round: int,
    prompts: ArtifactRef,
    generator: Generator,
    trained: ArtifactRef | None = None,
) -> Made[ArtifactRef]:
    """Sample the policy: a row for each response, with whether it was cut off.

    A request that failed has no rows; so has a response without text.

    Args:
        run: the folder.
        round: 0, or that of the evaluation.
        prompts: what the policy is asked.
        generator: of the policy.
        trained: the policy, where it is a trained one.
    """
    asked = run.table(prompts)
    requests = [Request("respond", prompt, "", "", n=run.config.samples) for prompt in asked["prompt"]]
    sampler = generator.afresh()
    with progress(
        "responses", len(requests), "requests", lambda: sampler.counts.completion_tokens
    ) as advance:
        answers = sampler.generate(requests, lambda: advance(1))
    table = pa.Table.from_pylist(
        [
            {
                "prompt_id": prompt_id,
                "prompt": prompt,
                "sample": sample,
                "response": text,
                "is_cut_off": reason in CUT_OFF,
            }
            for prompt_id, prompt, answer in zip(asked["prompt_id"], asked["prompt"], answers, strict=True)
            for sample, (written, reason) in enumerate(zip(answer.texts, answer.finish_reasons, strict=True))
            if (text := without_tokens(written))
        ]
    )
    if not len(table):
        raise GenerationError(f"{sampler.backend.name} gave no response to {len(asked):,} prompts")
    cut_off = float(np.mean(table["is_cut_off"]))
    tell(
        "%s responses to %s prompts, %.0f%% of them cut off.",
        f"{len(table):,}", f"{len(asked):,}", 100 * cut_off,
    )  # fmt: skip
    metrics = {
        "responses/n": float(len(table)),
        "responses/cut_off": cut_off,
        "responses/characters": float(np.mean([len(text) for text in table["response"].to_pylist()])),
        **sampler.counts.metrics("responses"),
    }
    return Made(run.write_table(run.of_round(round).responses, table), metrics)
