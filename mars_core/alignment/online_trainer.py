"""Trainers that sample the policy, of GRPO and RLOO; this project's scorer gives the rewards."""

from typing import Any

from datasets import Dataset

from mars_core.alignment.sampled_pairs import best
from mars_core.alignment.trainer_setup import Setup, passes
from mars_core.data.dialogue import turns
from mars_core.generation.cleaning import without_tokens


def online_trainer(trainer: Any, config: Any, setup: Setup, keys: Any) -> Any:
    """A trainer of TRL.

    Args:
        trainer: its class.
        config: the class of its configuration.
        setup: policy, prompts, rewards.
        keys: of the method.

    Raises:
        TrainingError: all rewards of what was sampled are equal.
    """
    best(setup.responses)  # where no rewards differ, nothing is to be learned of further samples
    prompts = setup.responses["prompt"].unique()
    batch = min(keys.batch, len(prompts))
    size, accumulated = passes(batch * keys.group_size, keys.sequences)
    arguments = config(
        **setup.arguments,
        beta=keys.beta,
        num_generations=keys.group_size,
        max_completion_length=setup.sampling.max_tokens,
        temperature=setup.sampling.temperature,
        top_p=setup.sampling.top_p,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulated,
    )

    def reward(completions: Any, stored: list[str], **_: Any) -> list[float]:
        """Rewards of responses; TRL passes further arguments."""
        texts = [without_tokens(completion[0]["content"]) for completion in completions]
        return list(map(float, setup.reward(stored, texts)))

    rows = [{"prompt": [turn._asdict() for turn in turns(prompt)], "stored": prompt} for prompt in prompts]
    return trainer(
        setup.policy,
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=setup.tokenizer,
        peft_config=setup.adapters,
    )
