"""What a method makes its trainer of: the policy, scored responses, and what all trainers share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mars_core.errors import MarsError
from mars_core.generation.generation_config import ResponseSampling


class TrainingError(MarsError, RuntimeError):
    """A policy cannot be trained; the message says why and what to do."""


@dataclass(frozen=True)
class Setup:
    """What a method makes its trainer of."""

    policy: str
    """Folder or hub name of the policy, which the trainer loads itself, and its reference model too."""
    arguments: Mapping[str, Any]
    """Arguments of TRL's configuration classes that all methods share."""
    tokenizer: Any
    """The policy's, with a pad token; it pads on the left."""
    adapters: Any
    """A `peft.LoraConfig`, or None where all weights are trained."""
    responses: pd.DataFrame
    """Sampled responses: prompt_id, prompt, response, prompt_tokens and response_tokens (lists of token ids;
    the end token is there unless the response was cut off), reward, and reward_0, … of each reward model."""
    models: tuple[str, ...]
    """The columns of the reward models."""
    reward: Callable[[Sequence[str], Sequence[str]], Sequence[float]]
    """Rewards of aligned prompts and responses; the responses to a prompt are passed together."""
    sampling: ResponseSampling
    """How the policy is sampled."""


def passes(texts: int, most: int) -> tuple[int, int]:
    """How many texts share a forward pass, and over how many passes a step's gradient is accumulated.

    Args:
        texts: of one optimizer step.
        most: texts of a pass.
    """
    size = max(size for size in range(1, min(texts, most) + 1) if texts % size == 0)
    return size, texts // size
