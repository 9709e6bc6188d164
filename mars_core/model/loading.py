"""A checkpoint as a network with one output and its tokenizer; adapters are merged into their base.

Code from a checkpoint is never executed, and only safetensors are read unless `allow_bin` says otherwise.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
import transformers
from safetensors import SafetensorError, safe_open

from mars_core.model.checkpoints import Location, ModelError, locate

ADAPTER = "adapter_model.safetensors"
HEADS = ("score", "classifier")
"""What a network may call its head."""

# Else a checkpoint without safetensors would be taken from another revision, or converted by a service.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()


class Loaded(NamedTuple):
    """What a checkpoint holds, and what it lacked."""

    network: Any
    tokenizer: Any
    drawn: list[str]
    """Modules that the checkpoint lacked and that were drawn, the head's among them."""


def has_trained_head(reference: str) -> bool:
    """Whether the checkpoint is a reward model: sequence classification with one trained output.

    Raises:
        ModelError: it is not there, or its trained head has another number of outputs.
    """
    location = locate(reference)
    if _is_adapter(location):
        return _has_head(location) or has_trained_head(_base_of(_adapter(reference, location)))
    return _is_reward_model(reference, _settings(reference, location))


def load_checkpoint(reference: str, allow_bin: bool, *, seed: int, dropout: float | None) -> Loaded:
    """As `RewardModel.load`, before anything is done with the network."""
    location = locate(reference)
    if _is_adapter(location):
        import peft

        adapter = _adapter(reference, location)
        base = load_checkpoint(_base_of(adapter), allow_bin, seed=seed, dropout=dropout)
        adapted = peft.PeftModel.from_pretrained(base.network, location.path)
        return base._replace(network=adapted.merge_and_unload())
    settings = _settings(reference, location)
    trained = _is_reward_model(reference, settings)
    settings.num_labels = 1
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
    """Network, tokenizer, and the names of the weights that the checkpoint did not hold."""
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
    """Whether adapters come with a head of their own, and not with low-rank changes of another alone."""
    with safe_open(Path(location.path, ADAPTER), "pt") as weights:
        names = list(weights.keys())
    return any(not {*HEADS}.isdisjoint(name.split(".")) and "lora_" not in name for name in names)


def _is_reward_model(reference: str, settings: Any) -> bool:
    trained = any(name.endswith("ForSequenceClassification") for name in settings.architectures or ())
    if trained and settings.num_labels != 1:
        raise ModelError(
            f"{reference}: its head has {settings.num_labels} outputs; a reward model has one. "
            "Name a checkpoint with num_labels = 1, or a backbone without a head."
        )
    return trained


def _ensure_pad_token(network: Any, tokenizer: Any) -> None:
    """Give a decoder a pad token of its own: where padding is the end token, the wrong position is scored."""
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
        if len(tokenizer) > network.get_input_embeddings().num_embeddings:
            network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        if len(tokenizer) > network.get_input_embeddings().num_embeddings:
            raise ModelError(
                f"{type(network).__name__} takes no further token for padding: give its tokenizer a pad "
                "token that is not its end token"
            )
    # A model of text and pictures has a configuration for each, and pools by that of text.
    for settings in (network.config, network.config.get_text_config()):
        settings.pad_token_id = tokenizer.pad_token_id
