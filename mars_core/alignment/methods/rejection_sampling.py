"""Rejection sampling: maximum likelihood on the best of the n sampled responses to each prompt.

The loss is −ln π(y* | x), the mean over tokens of y* = argmax r(x, y). Also called best-of-n fine-tuning, or
RAFT (arXiv 2304.06767).
"""

from typing import Any

from datasets import Dataset

from mars_core.alignment.methods.method import Method
from mars_core.alignment.sampled_pairs import best
from mars_core.alignment.trainer_setup import Setup, passes


class RejectionSampling(Method):
    """Fine-tune on the best."""

    def trainer(self, setup: Setup) -> Any:
        """See `Method.trainer`."""
        from trl import SFTConfig, SFTTrainer

        rows = [
            {"input_ids": prompt + response, "labels": [-100] * len(prompt) + response}
            for prompt, response in best(setup.responses)[["prompt_tokens", "response_tokens"]].to_numpy()
        ]
        size, accumulated = passes(min(self.config.batch, len(rows)), self.config.sequences)
        arguments = SFTConfig(
            **setup.arguments,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
            max_length=None,
        )
        return SFTTrainer(
            setup.policy,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=setup.tokenizer,
            peft_config=setup.adapters,
        )
