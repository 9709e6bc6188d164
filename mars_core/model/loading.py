"""A checkpoint as a network, its tokenizer and its objective; adapters are merged into their base.

Besides what plain `transformers` reads, a checkpoint names the objective that it was trained with in
`objective.json`, and holds that objective's own weights in `objective.safetensors`. Without the first file
the objective is Bradley–Terry.

Code from a checkpoint is never executed, and only safetensors are read unless `allow_bin` says otherwise.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
import transformers
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from mars_core.errors import ModelError
from mars_core.model.checkpoints import Location, locate
from mars_core.objectives.objective import OBJECTIVES, Objective, ObjectiveConfig

ADAPTER = "adapter_model.safetensors"
OBJECTIVE, OBJECTIVE_WEIGHTS = "objective.json", "objective.safetensors"
HEADS = ("score", "classifier")
"""Names under which a network may keep its head."""

# Otherwise a checkpoint without safetensors is taken from another revision, or converted by a service.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()


class Loaded(NamedTuple):
    """A loaded checkpoint, and what it lacked."""

    network: Any
    tokenizer: Any
    drawn: list[str]
    """Modules that the checkpoint lacked and that were newly initialised, those of the head among them."""


def has_trained_head(reference: str, objective: ObjectiveConfig | None = None) -> bool:
    """Whether the checkpoint is a reward model: sequence classification with the objective's outputs,
    trained.

    Args:
        reference: the checkpoint.
        objective: the configured one; by default that of the checkpoint.

    Raises:
        ModelError: the checkpoint is not there, its trained head has another number of outputs, or it was
            trained with another objective.
    """
    outputs = objective_of(reference, objective).open().outputs
    location = locate(reference)
    if _is_adapter(location):
        return _has_head(location) or has_trained_head(_base_of(_adapter(reference, location)), objective)
    return _is_reward_model(reference, _settings(reference, location), outputs)


def objective_of(reference: str, configured: ObjectiveConfig | None) -> ObjectiveConfig:
    """The objective of a checkpoint: the configured one where there is one, else the one that it names.

    Raises:
        ModelError: the checkpoint was trained with another objective, or names one that is not known here:
            only a configuration can name a user's own objective.
    """
    location = locate(reference)
    named = _file_of(reference, location, OBJECTIVE)
    if named is None and not _is_trained(reference, location):
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


def load_own_weights(reference: str, objective: Objective) -> None:
    """Read the objective's own weights; for a backbone without a trained head they stay newly initialised.

    Raises:
        ModelError: a trained checkpoint lacks them, or has weights of other modules.
    """
    location = locate(reference)
    if not objective.modules or not _is_trained(reference, location):
        return
    file = _file_of(reference, location, OBJECTIVE_WEIGHTS)
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
    """A file of a checkpoint; adapters that lack it have their base's."""
    found = _file(location, name)
    if found is None and _is_adapter(location):
        base = _base_of(_adapter(reference, location))
        return _file_of(base, locate(base), name)
    return found


def _file(location: Location, name: str) -> Path | None:
    """A file of a checkpoint in a folder or on the hub, or None if it has none."""
    found = transformers.utils.cached_file(
        location.path,
        name,
        revision=location.revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return Path(found) if found else None


def load_checkpoint(
    reference: str, outputs: int, allow_bin: bool, *, seed: int, dropout: float | None
) -> Loaded:
    """As `RewardModel.load`, but the network stays as loaded; its head has `outputs` outputs."""
    location = locate(reference)
    if _is_adapter(location):
        import peft

        adapter = _adapter(reference, location)
        base = load_checkpoint(_base_of(adapter), outputs, allow_bin, seed=seed, dropout=dropout)
        adapted = peft.PeftModel.from_pretrained(base.network, location.path)
        return base._replace(network=adapted.merge_and_unload())
    settings = _settings(reference, location)
    trained = _is_reward_model(reference, settings, outputs)
    settings.num_labels = outputs
    if dropout is not None:
        for part in (settings, settings.get_text_config()):
            for name, rate in part.to_dict().items():
                if ("dropout" in name or name.endswith("pdrop")) and isinstance(rate, int | float):
                    setattr(part, name, dropout)
    torch.manual_seed(seed)
    network, tokenizer, missing = _from_pretrained(reference, location, settings, allow_bin)
    body = f"{network.base_model_prefix}."
    lost = [name for name in missing if trained or (name.startswith(body) and "pooler" not in name)]
    if lost:
        raise ModelError(f"{reference}: the checkpoint lacks {len(lost)} of its weights, such as {min(lost)}")
    _ensure_pad_token(network, tokenizer)
    return Loaded(network, tokenizer, sorted({name.rpartition(".")[0] for name in missing}))


def _settings(reference: str, location: Location) -> Any:
    """The checkpoint's configuration, as `transformers` knows it."""
    try:
        return transformers.AutoConfig.from_pretrained(
            location.path, revision=location.revision, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{reference}: no model can be read from it: {error}") from error


def _from_pretrained(
    reference: str, location: Location, settings: Any, allow_bin: bool
) -> tuple[Any, Any, Sequence[str]]:
    """Network, tokenizer, and the names of the weights that the checkpoint lacks."""
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
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            location.path, revision=location.revision, trust_remote_code=False
        )
    except UnpicklingError as error:
        raise ModelError(f"{reference}: its .bin is damaged or holds more than tensors") from error
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        hint = ""
        if "safetensors" in str(error) and not allow_bin:
            hint = " Only safetensors are read; model.allow_bin=true also reads the tensors of a .bin."
        raise ModelError(f"{reference}: cannot be loaded: {error}{hint}") from error
    return network, tokenizer, report["missing_keys"]


def _is_adapter(location: Location) -> bool:
    return Path(location.path, ADAPTER).is_file()


def _adapter(reference: str, location: Location) -> Any:
    """The settings of low-rank adapters."""
    import peft

    settings = peft.PeftConfig.from_pretrained(location.path)
    if settings.task_type not in (peft.TaskType.SEQ_CLS, None):
        raise ModelError(
            f"{reference}: adapters for {settings.task_type}; those of a reward model are for SEQ_CLS"
        )
    return settings


def _base_of(adapter: Any) -> str:
    """The reference of the model that adapters were trained on."""
    return str(adapter.base_model_name_or_path) + (f"@{adapter.revision}" if adapter.revision else "")


def _has_head(location: Location) -> bool:
    """Whether adapters bring a head of their own, besides low-rank changes of their base."""
    with safe_open(Path(location.path, ADAPTER), "pt") as weights:
        names = list(weights.keys())
    return any(not {*HEADS}.isdisjoint(name.split(".")) and "lora_" not in name for name in names)


def _is_trained(reference: str, location: Location) -> bool:
    """Whether the checkpoint has a trained head, with any number of outputs."""
    if _is_adapter(location):
        base = _base_of(_adapter(reference, location))
        return _has_head(location) or _is_trained(base, locate(base))
    return _has_classifier(_settings(reference, location))


def _has_classifier(settings: Any) -> bool:
    return any(name.endswith("ForSequenceClassification") for name in settings.architectures or ())


def _is_reward_model(reference: str, settings: Any, outputs: int) -> bool:
    trained = _has_classifier(settings)
    if trained and settings.num_labels != outputs:
        raise ModelError(
            f"{reference}: its head has {settings.num_labels} outputs; a reward model has "
            f"{'one' if outputs == 1 else f'{outputs} under this objective'}. "
            f"Name a checkpoint with num_labels = {outputs}, or a backbone without a head."
        )
    return trained


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
