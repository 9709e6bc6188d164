"""The specification of a fit: how a reward model is trained, on what, and where the result goes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from mars_core.config import Configuration, Later, Operational
from mars_core.errors import MarsError
from mars_core.fit.trainable import Trainable
from mars_core.model.reward_model import ModelConfig
from mars_core.objectives.objective import ObjectiveConfig


class FitError(MarsError, RuntimeError):
    """Training cannot go on; the message names the pairs of the batch."""


class OnRay(Configuration):
    """The processes of a fit on the nodes of a Ray cluster; nothing here changes a result beyond its last
    digits."""

    workers: Annotated[int | None, Operational()] = Field(None, ge=1)
    """Most processes, each of which has the whole model; by default as many as the cluster has room for."""
    gpus: Annotated[float | None, Operational()] = Field(None, ge=0)
    """GPUs of a process; by default 1 where the cluster has some, else 0."""
    cpus: Annotated[int | None, Operational()] = Field(None, ge=1)
    """CPUs of a process; by default 1 beside a GPU, else all of the smallest node."""


class FitConfig(Configuration):
    """How the reward model is trained in each round."""

    renamed: ClassVar[Mapping[str, str]] = {"loss": "fit.objective"}

    trainable: Trainable = "all"
    """Which weights change: all; low-rank adapters and the head; or the last layer of the head alone, on
    features that are computed once a text, without dropout."""
    weights: Literal["carry", "restart"] = "carry"
    """Start a round from the previous round's weights, or from the backbone again."""
    synthetic: Literal["round", "all"] = "round"
    """Train on the originals and this round's synthetic pairs, or on all synthetic pairs so far."""
    synthetic_weight: Annotated[float, Later()] = Field(1.0, ge=0)
    """How much a synthetic pair counts in the loss, where an original counts 1; with 0 it takes its place in
    a batch and changes nothing."""
    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate of AdamW; if the last layer alone is trained, 1e-2 to 1e-1 suits."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls to zero over a fit."""
    objective: SerializeAsAny[ObjectiveConfig] = Field(default_factory=ObjectiveConfig)
    """What is minimised."""
    batch_pairs: int = Field(64, ge=1)
    """Pairs of one optimizer step."""
    epochs: int = Field(1, ge=1)
    """Passes over the training pairs in each round."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay of AdamW."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest norm of a step's gradient."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout during fitting; by default the checkpoint's own."""
    lora_rank: int = Field(16, ge=1)
    """Rank of the adapters when `trainable` is lora."""
    group_tokens: Annotated[int | None, Operational()] = Field(None, ge=1)
    """Most padded tokens whose activations are held at once; halved automatically when memory runs out. By
    default 8192, or 2048 for a large network on a CPU, where small groups are as fast."""
    gradient_checkpointing: Annotated[bool, Operational()] = False
    """Compute activations twice, and hold those of one layer at a time (gradient checkpointing)."""
    patience: int | None = Field(None, ge=1)
    """Early stopping: a fit ends after so many evaluations in a row without a lower −log σ(Δ) on the
    validation pairs, and keeps the weights of the lowest. By default a fit runs to its end without
    evaluations."""
    evaluations_per_epoch: int = Field(4, ge=1)
    """How often the validation pairs are scored if `patience` is set."""
    snapshot_minutes: Annotated[float, Operational()] = Field(10.0, ge=0)
    """Time between two snapshots of an unfinished fit, from which the next start resumes."""
    launch: Annotated[OnRay | tuple[str, ...], Operational()] = ()
    """Command that starts the fit in several processes, such as [accelerate, launch, --config_file,
    deployments/accelerate/gpus.yaml] or, on a CPU, [torchrun, --standalone, --nproc_per_node, "2"]; by
    default it runs in one. `ray`, or keys such as {workers: 8}, starts them on the nodes of a Ray cluster."""
    deadline_hours: Annotated[float, Operational()] = Field(48.0, gt=0)
    """A fit that takes longer than this is ended and fails."""

    @field_validator("launch", mode="before")
    @classmethod
    def _named(cls, launch: Any) -> Any:
        return {} if launch == "ray" else launch


class FitSpec(Configuration):
    """The specification of one fit, which the training process reads from a file."""

    model: str
    """Reference of the checkpoint to start from."""
    pairs: list[Path]
    """Parquet files with the columns prompt, chosen, rejected, pair_id or for synthetic pairs synthetic_id,
    and optionally weight (1 by default) and margin (the objective's by default)."""
    validation: Path | None = None
    """A file of pairs for early stopping."""
    output: Annotated[Path, Operational()]
    """Folder of the trained checkpoint. All processes of a fit must be able to write beside it."""
    vectors: Annotated[Path | None, Operational()] = None
    """File of features that scoring and a fit of the head in one process share: a `FeatureStore`."""
    log: Annotated[Path, Operational()]
    """File of the training curve, one JSON line a step."""
    seed: int
    """Seed of the head and, together with the round, of the shuffling and of dropout."""
    round: int = 0
    """Round of self-refinement: all have the same initial head, but their own order and dropout."""
    reward_model: ModelConfig = ModelConfig()
    """How texts go through the model."""
    fit: FitConfig = FitConfig()
    """How it is trained."""

    @model_validator(mode="after")
    def _stops_by_something(self) -> "FitSpec":
        if self.fit.patience and not self.validation:
            raise ValueError("fit.patience needs validation pairs")
        return self
