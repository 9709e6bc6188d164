"""An experiment's configuration: the sections that live beside what they configure, from YAML and overrides.

config = load("deployments/experiments/quickstart.yaml", ["selection.tau=0.1", "rounds=3"])
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, SerializeAsAny, model_validator

from mars_core.config import Configuration, Operational, origin, read, validated
from mars_core.data.pairs import DataConfig
from mars_core.evaluation.evaluation_config import EvaluationConfig
from mars_core.fit.specification import FitConfig
from mars_core.generation import GenerationConfig
from mars_core.method.augmentation import AugmentationConfig
from mars_core.method.guards import GuardsConfig
from mars_core.method.rewriting import RewritingConfig
from mars_core.method.selection import SelectionConfig
from mars_core.method.semantics import SemanticsConfig
from mars_core.model.reward_model import ModelConfig


class FolderConfig(Configuration):
    """What a run is called, and where its folder is."""

    name: Annotated[str, Operational()] = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run and of its folder."""
    folder: Annotated[str, Operational()] = "runs"
    """Folder that holds the run's folder."""
    shared_steps: Annotated[str | None, Operational()] = None
    """Folder where runs share finished steps that have equal inputs, such as round 0 of one seed."""

    @property
    def run_folder(self) -> Path:
        """Folder of the run's artifacts."""
        return Path(self.folder) / self.name


class ExperimentConfig(FolderConfig):
    """What shapes a run of self-refinement, and where its folder is."""

    seed: int = 0
    """Seed of the subset of originals, the head and the shuffling."""
    rounds: Annotated[int, Operational()] = Field(3, ge=1)
    """Rounds of self-refinement, T; may grow between starts."""
    data: SerializeAsAny[DataConfig] = Field(default_factory=DataConfig)
    """Where the preference pairs come from."""
    model: ModelConfig = ModelConfig()
    """The reward model's backbone."""
    selection: SerializeAsAny[SelectionConfig] = Field(default_factory=SelectionConfig)
    """Which pairs get synthetic variants."""
    semantics: SemanticsConfig = SemanticsConfig()
    """How the meaning of responses is compared."""
    rewriting: RewritingConfig = RewritingConfig()
    """How close pairs are rewritten."""
    generation: SerializeAsAny[GenerationConfig] = Field(default_factory=GenerationConfig)
    """Who writes paraphrases and rewrites."""
    guards: GuardsConfig = GuardsConfig()
    """Which texts are dropped."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """How paraphrases become synthetic pairs."""
    fit: FitConfig = FitConfig()
    """How the reward model is trained."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What it is measured on."""

    @model_validator(mode="after")
    def _somebody_can_respond(self) -> "ExperimentConfig":
        if self.augmentation.scheme == "west_of_n" and "chat" not in self.generation.capabilities:
            raise ValueError(
                f"augmentation.scheme=west_of_n samples responses, which {self.generation.backend} cannot "
                "write: name a chat model with generation.backend and generation.model"
            )
        return self

    @model_validator(mode="after")
    def _somebody_can_transform(self) -> "ExperimentConfig":
        self.evaluation.robustness.check(self.generation.capabilities)
        return self

    @model_validator(mode="after")
    def _budget_is_counted_in_one_unit(self) -> "ExperimentConfig":
        augmentation = self.augmentation
        keys = {
            "augmentation.top_up=true": augmentation.top_up,
            "augmentation.pool": augmentation.pool,
            f"augmentation.scheme={augmentation.scheme}": not augmentation.writes_variants,
        }
        if self.selection.budget_unit == "paraphrases" and (set_keys := [key for key in keys if keys[key]]):
            raise ValueError(
                f"{' and '.join(set_keys)} counts synthetic pairs, but selection.budget_unit=paraphrases "
                "counts paraphrases: remove one of the two"
            )
        return self


Experiment = TypeVar("Experiment", bound=ExperimentConfig)


def load(
    file: str | Path,
    overrides: Sequence[str] = (),
    kind: type[Experiment] = ExperimentConfig,  # type: ignore[assignment]
) -> Experiment:
    """Read an experiment from a YAML file, apply `dotted.key=value` overrides, validate.

    Args:
        file: the YAML file.
        overrides: changes to it.
        kind: the class to read, which may have further sections.

    Raises:
        ConfigError: no such file, not a mapping, an unknown key, a value out of range.
    """
    return validated(kind, read(file, overrides), origin(file, overrides))
