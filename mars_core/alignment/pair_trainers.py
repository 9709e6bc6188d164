"""TRL's trainer of preference pairs, on token ids that are known.

TRL would render and tokenise texts itself, and end every response: one that was cut off has no end to learn.
This module imports `trl`, and is imported by the methods that use it.
"""

from typing import Any, Self

import pandas as pd
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from mars_core.alignment.distillation import distillation_loss
from mars_core.alignment.trainer_setup import Setup, passes

COLUMNS = ["prompt_ids", "chosen_ids", "rejected_ids"]


class DpoOnTokens(DPOTrainer):  # type: ignore[misc]
    """DPO of pairs whose tokens are known."""

    @classmethod
    def of(cls, setup: Setup, config: Any, pairs: pd.DataFrame, **options: Any) -> Self:
        """A trainer.

        Args:
            setup: policy, tokenizer and arguments.
            config: the keys of the method.
            pairs: tokens of the prompt, of the chosen and of the rejected response, and further columns that
                the loss reads.
            options: further arguments of TRL.
        """
        size, accumulated = passes(min(config.batch, len(pairs)), max(1, config.sequences // 2))
        arguments = DPOConfig(
            **setup.arguments,
            **options,
            beta=config.beta,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
            max_length=None,
        )
        named = pairs.set_axis([*COLUMNS, *pairs.columns[len(COLUMNS) :]], axis=1)
        return cls(
            setup.policy,
            args=arguments,
            train_dataset=Dataset.from_list(named.to_dict("records")),
            data_collator=_Collator(pad_token_id=setup.tokenizer.pad_token_id),
            processing_class=setup.tokenizer,
            peft_config=setup.adapters,
        )

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [*COLUMNS, "reward_differences"]


class DistillationOnTokens(DpoOnTokens):
    """The squared loss of reward distillation on the same pairs."""

    pessimism = 0.0

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The loss of a batch; `reward_differences` are [pairs, models]."""
        differences = inputs.pop("reward_differences")
        reference = torch.cat(self.compute_ref_log_probs(self.ref_model or model, inputs))
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        asked = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        outputs = model(**asked, labels=labels, use_cache=False, fused_lm_head=True)
        log_ratios = outputs.log_probs.sum(dim=1) - reference
        return distillation_loss(log_ratios, differences.to(log_ratios), self.beta, self.pessimism)


class _Collator(DataCollatorForPreference):  # type: ignore[misc]
    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        if "reward_differences" in examples[0]:
            batch["reward_differences"] = torch.tensor([one["reward_differences"] for one in examples])
        return batch
