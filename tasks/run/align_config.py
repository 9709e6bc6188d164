"""The configuration of `mars align`: a policy, prompts, and the reward models that its responses are for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, model_validator

from mars_core.alignment.methods.method import TrainingConfig
from mars_core.alignment.rewards import OptimisedReward
from mars_core.config import Configuration, Operational, origin, read, validated
from mars_core.experiment import FolderConfig
from mars_core.generation import GenerationConfig
from mars_core.model.reward_model import ModelConfig
from tasks.compute.compute import ComputeConfig
from tasks.run.run_config import TrackingConfig


class PromptsConfig(Configuration):
    """What the policy is asked."""

    source: str
    """A file, a folder, an address or a hub data set, of prompts alone or of pairs."""
    number: int | None = Field(None, ge=1)
    """Draw so many of its distinct prompts; by default all."""


class RewardsConfig(OptimisedReward):
    """Who judges the policy's responses."""

    models: tuple[str, ...] = Field(min_length=1)
    """The reward models that are optimised for: folders, hub/name@revision, or models:/NAME@ALIAS in
    MLflow."""
    gold: str | None = None
    """A reward model that is not optimised for, of other data, size or seed: it tells whether the responses
    get better, or only please `models`."""

    @model_validator(mode="after")
    def _models_can_differ(self) -> "RewardsConfig":
        if self.spread_penalty and (len(self.models) == 1 or self.combine != "mean"):
            raise ValueError("spread_penalty is of the mean of several models: name them, with combine=mean")
        return self


class AlignConfig(FolderConfig):
    """Everything that `mars align` needs to know."""

    seed: int = 0
    """Seed of the draw of prompts."""
    policy: str
    """The chat model that is to be aligned: a folder, package://NAME, or hub/name@revision."""
    prompts: PromptsConfig
    """What it is asked."""
    samples: int = Field(16, ge=2)
    """Responses that are sampled for each prompt."""
    rewards: RewardsConfig
    """Who judges them."""
    reward_model: ModelConfig = ModelConfig()
    """How texts go through the reward models; its `backbone` is each one's own."""
    generation: SerializeAsAny[GenerationConfig] = Field(default_factory=GenerationConfig)
    """How the policy is sampled; `generation.respond` has temperature and length."""
    training: SerializeAsAny[TrainingConfig | None] = None
    """How the policy is trained on its scored responses; by default it is not, and the best of n is measured
    alone."""
    compute: Annotated[SerializeAsAny[ComputeConfig], Operational()] = Field(default_factory=ComputeConfig)
    """Where responses are scored."""
    tracking: TrackingConfig = TrackingConfig()
    """Where the metrics are logged."""

    @model_validator(mode="before")
    @classmethod
    def _the_policy_responds(cls, values: Any) -> Any:
        """What generates is the policy."""
        if isinstance(values, Mapping) and isinstance(values.get("generation"), Mapping):
            generation = {"model": values.get("policy")} | values["generation"]
            return {**values, "generation": generation}
        return values

    @model_validator(mode="after")
    def _it_can_respond(self) -> "AlignConfig":
        if "chat" not in self.generation.capabilities:
            raise ValueError(
                f"generation.backend={self.generation.backend} cannot respond to prompts: set "
                "generation.backend to vllm or transformers"
            )
        return self

    @model_validator(mode="after")
    def _it_can_be_trained(self) -> "AlignConfig":
        if self.training is None:
            return self
        if not self.runs_the_policy:
            raise ValueError(
                f"training.method={self.training.method} changes the policy, and the server at "
                "generation.options.base_url serves another one: set generation.launch={}, or "
                "generation.backend to transformers"
            )
        if self.training.stop_on_gold and self.rewards.gold is None:  # type: ignore[attr-defined]
            raise ValueError("training.stop_on_gold needs a gold model: set rewards.gold")
        return self

    @property
    def runs_the_policy(self) -> bool:
        """Whether the policy runs here, and not on a server of someone else's."""
        return "server" not in self.generation.capabilities or self.generation.launch is not None


def load_alignment(file: str | Path, overrides: Sequence[str] = ()) -> AlignConfig:
    """Read an alignment from a YAML file, apply `dotted.key=value` overrides, validate.

    Raises:
        ConfigError: no such file, not a mapping, an unknown key, a value out of range.
    """
    return validated(AlignConfig, read(file, overrides), origin(file, overrides))
