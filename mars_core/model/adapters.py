"""Low-rank adapters: what they are of, which head they bring, and how they are merged into their base."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import huggingface_hub
import torch
from safetensors import SafetensorError

from mars_core.errors import ModelError
from mars_core.model.checkpoints import Location, locate
from mars_core.model.heads import HEADS, Head, name_in
from mars_core.model.weight_files import BIN_HINT, file_of, tensors_in

ADAPTER, ADAPTER_BIN, ADAPTER_SETTINGS = (
    "adapter_model.safetensors", "adapter_model.bin", "adapter_config.json",
)  # fmt: skip


def located(reference: str) -> Location:
    """As `locate`; adapters on the hub are fetched into its cache, where their files are read one by one.

    Raises:
        ModelError: as of `locate`, or the hub does not give the adapters.
    """
    location = locate(reference)
    if not location.revision or file_of(location, "config.json") or not file_of(location, ADAPTER_SETTINGS):
        return location
    try:
        folder = huggingface_hub.snapshot_download(
            location.path, revision=location.revision, ignore_patterns="*/*"
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{reference}: cannot be fetched from the hub: {error}") from error
    return Location(folder, None)


def is_adapter(location: Location) -> bool:
    """Whether a folder holds low-rank adapters, and no model as a whole."""
    folder = Path(location.path)
    return any((folder / name).is_file() for name in (ADAPTER, ADAPTER_BIN)) or (
        (folder / ADAPTER_SETTINGS).is_file() and not (folder / "config.json").is_file()
    )


def base_of(reference: str, location: Location) -> str:
    """The reference of the model that adapters were trained on.

    Raises:
        ModelError: it is neither a folder here nor a hub model with a revision.
    """
    settings = _settings(reference, location)
    base, revision = str(settings.base_model_name_or_path), settings.revision
    named = f"{base}@{revision}" if revision else base
    try:
        locate(named)
    except ModelError as error:
        file = Path(location.path, ADAPTER_SETTINGS)
        remedy = f'Set "base_model_name_or_path" in {file} to where that model is now.'
        name, _, pinned = reference.partition("@")
        if pinned and not Path(reference).expanduser().is_dir():
            folder = name.rpartition("/")[2]
            remedy = (
                f"Copy the adapters (hf download {name} --revision {pinned} --local-dir {folder}), name that "
                f'folder, and set "base_model_name_or_path" in its {ADAPTER_SETTINGS} to where that model is.'
            )
        if not revision and not Path(base).is_absolute():
            remedy += ' If it is on the hub, set "revision" there to the commit that they were trained on.'
        raise ModelError(f"{reference}: adapters of {base}, which is not found. {remedy}") from error
    return named


def head_of_adapter(reference: str, location: Location, allow_bin: bool) -> Head | None:
    """The head that comes with adapters, and not as low-rank changes of another alone.

    Raises:
        ModelError: the adapters cannot be read.
    """
    rows = [
        len(weight)
        for name, weight in _weights(reference, location, allow_bin).items()
        if not {*HEADS}.isdisjoint(name.split(".")) and "lora_" not in name and weight.dim() == 2
    ]
    return Head(min(rows), {}) if rows else None


def merged(reference: str, location: Location, network: Any, tokenizer: Any, allow_bin: bool) -> Any:
    """The network with adapters merged into it; its embedding has the rows that they were trained with.

    Args:
        reference: of the adapters, for errors.
        location: where they are.
        network: the base.
        tokenizer: the one that they were trained with.
        allow_bin: whether their weights may be read of a .bin.

    Raises:
        ModelError: adapters and network do not fit together.
    """
    import peft

    settings = _settings(reference, location)
    rows = _embedding_rows(reference, network, tokenizer, _weights(reference, location, allow_bin), settings)
    if rows != network.get_input_embeddings().num_embeddings:
        network.resize_token_embeddings(rows, mean_resizing=False)
    try:
        adapted = peft.get_peft_model(network, settings)
        found = adapted.load_adapter(location.path, "default", torch_device="cpu")
    except KeyError as error:
        raise ModelError(f"{reference}: its adapters lack weights, such as {error}") from error
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise ModelError(f"{reference}: its adapters cannot be loaded: {error}") from error
    lost = found.missing_keys
    if lost:
        raise ModelError(f"{reference}: its adapters lack {len(lost)} weights, such as {min(lost)}")
    unread = [name for name in found.unexpected_keys if "lm_head" not in name.split(".")]
    if unread:
        raise ModelError(
            f"{reference}: of its adapters {len(unread)} weights would not be read, such as {min(unread)}: "
            f"{ADAPTER_SETTINGS} has to name their modules (target_modules, modules_to_save)"
        )
    return adapted.merge_and_unload()


def _settings(reference: str, location: Location) -> Any:
    """The settings of low-rank adapters."""
    import peft

    try:
        settings = peft.PeftConfig.from_pretrained(location.path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{reference}: its {ADAPTER_SETTINGS} cannot be read: {error}") from error
    if settings.task_type not in (peft.TaskType.SEQ_CLS, None):
        raise ModelError(
            f"{reference}: adapters for {settings.task_type}; those of a reward model are for SEQ_CLS"
        )
    return settings


def _weights(reference: str, location: Location, allow_bin: bool) -> dict[str, torch.Tensor]:
    """The weights of adapters, as of `tensors_in`."""
    file, pickled = (Path(location.path, name) for name in (ADAPTER, ADAPTER_BIN))
    if not file.is_file() and not pickled.is_file():
        raise ModelError(f"{reference}: has {ADAPTER_SETTINGS}, but no {ADAPTER}: copy the adapters again")
    if not file.is_file() and not allow_bin:
        raise ModelError(f"{reference}: its adapters are in {ADAPTER_BIN}. {BIN_HINT}")
    try:
        return tensors_in(file if file.is_file() else pickled)
    except UnpicklingError as error:
        raise ModelError(f"{reference}: its .bin is damaged or holds more than tensors") from error
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{reference}: its adapters cannot be loaded: {error}") from error


def _embedding_rows(
    reference: str, network: Any, tokenizer: Any, weights: dict[str, torch.Tensor], settings: Any
) -> int:
    """Rows of the embedding that adapters were trained with: those of their own, or one for each token."""
    embedding = network.get_input_embeddings()
    place = f".{name_in(network, embedding)}."
    for name, weight in weights.items():
        if place in name and name.endswith("lora_embedding_A"):
            return weight.shape[1]
        if place in name and name.endswith("weight") and weight.dim() == 2:
            return len(weight)
    rows: int = max(len(tokenizer), embedding.num_embeddings)
    new = tokenizer.convert_ids_to_tokens(list(range(embedding.num_embeddings, rows)))
    new = [token for token in new if token != tokenizer.pad_token]
    if new and not settings.trainable_token_indices:
        raise ModelError(
            f"{reference}: its tokenizer has {len(new)} tokens more than its base, such as {new[0]}, and the "
            "adapters come without embeddings of them: save these too (save_embedding_layers=True)"
        )
    return rows
