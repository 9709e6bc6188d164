"""An alignment method: responses of a policy and their rewards → a trainer that changes the policy.

    training: {method: dpo, beta: 0.1, learning_rate: 1e-5, steps: 200}

The trainer is one of TRL's, or a class that derives from one. `mars_core.alignment.policy_trainer` runs it in
a process of its own: it takes snapshots, reports progress, and writes the policy. `trl` is imported where a
trainer is made, so that a configuration is read without it.
"""

import math
from abc import abstractmethod
from typing import Annotated, Any, Literal

from pydantic import Field

from mars_core.alignment.trainer_setup import Setup
from mars_core.config import Configuration, Operational
from mars_core.extensions import ExtensionPoint, Plugin, PluginSection


class Method(Plugin):
    """Responses and rewards → a trainer."""

    class Config(Configuration):
        """The keys of every method; a method's own class derives from this one."""

        steps: int = Field(100, ge=1)
        """Optimizer steps."""
        batch: int = Field(16, ge=1)
        """Prompts, or pairs where a method trains on pairs, of one optimizer step."""
        learning_rate: float = Field(1e-5, gt=0)
        """Peak learning rate of AdamW."""
        schedule: Literal["linear", "cosine", "constant"] = "linear"
        """How the learning rate falls to zero over all steps."""
        trainable: Literal["lora", "all"] = "lora"
        """Which weights change: low-rank adapters of all linear layers, which are merged into the policy at
        the end, or all."""
        lora_rank: int = Field(16, ge=1)
        """Rank of the adapters."""
        clip_norm: float = Field(1.0, gt=0)
        """Largest norm of a step's gradient."""
        evaluations: int = Field(1, ge=1)
        """How often the policy is sampled, scored and compared with the untrained one: after equal shares of
        the steps, the last time at their end."""
        stop_on_gold: bool = False
        """End training at an evaluation whose gold reward is shown to be lower than an earlier one's, and
        keep the policy with the highest; needs `rewards.gold`."""
        sequences: Annotated[int, Operational()] = Field(8, ge=1)
        """Most texts of one forward pass; a step's gradient is accumulated over several."""
        gradient_checkpointing: Annotated[bool, Operational()] = False
        """Compute activations twice, and hold those of one layer at a time."""
        snapshot_minutes: Annotated[float, Operational()] = Field(10.0, ge=0)
        """Time between two snapshots of unfinished training, from which the next start resumes."""
        deadline_hours: Annotated[float, Operational()] = Field(48.0, gt=0)
        """Training up to an evaluation that takes longer than this is ended and fails."""

    @abstractmethod
    def trainer(self, setup: Setup) -> Any:
        """A trainer of TRL, ready to train.

        Raises:
            TrainingError: the responses do not do for the method.
        """

    def responses_of_a_step(self) -> int:
        """Responses that are sampled and scored for one optimizer step, beside those there are."""
        return 0


class OnlineMethod(Method):
    """A method that samples a group of responses to each prompt of a step, and has them scored."""

    class Config(Method.Config):
        """The size of a group."""

        group_size: int = Field(8, ge=2)
        """Responses to a prompt, which are compared with each other: a group of one would tell nothing."""

    def responses_of_a_step(self) -> int:
        """See `Method.responses_of_a_step`."""
        responses: int = self.config.batch * self.config.group_size
        return responses


METHODS: ExtensionPoint[Method] = ExtensionPoint("alignment method", Method)  # type: ignore[type-abstract]


class TrainingConfig(PluginSection):
    """How the policy is trained; the method's own keys stand beside its name."""

    method: Annotated[str, METHODS] = "dpo"
    """`rejection_sampling` fine-tunes on the best response to each prompt, `dpo` prefers the best to the
    worst, `reward_distillation` fits differences of rewards; `grpo` and `rloo` sample the policy in training.
    Or a class of your own, as module:attribute."""

    def open(self) -> Method:
        """The method with its keys."""
        method: Method = super().open()
        return method


def boundaries(steps: int, evaluations: int) -> list[int]:
    """After how many optimizer steps the policy is evaluated; fewer times where there are fewer steps."""
    return sorted({math.ceil(steps * (number + 1) / evaluations) for number in range(evaluations)})
