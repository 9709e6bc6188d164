"""Names, shapes and small tensors of a checkpoint's files, read before a network is made of them."""

import json
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch
import transformers
from safetensors import SafetensorError, safe_open

from mars_core.errors import ModelError
from mars_core.model.checkpoints import Location

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
WEIGHTS_BIN = ("pytorch_model.bin", "pytorch_model.bin.index.json")
VALUE_HEAD = "value_head.safetensors"
"""Where LLaMA-Factory saves the head of a reward model, beside the weights of its language model."""
BIN_HINT = "Only safetensors are read; model.allow_bin=true also reads the tensors of a .bin."
MOST_ROWS = 64
"""Of a matrix with more rows only the shape is read: it is the last layer of no head."""


def file_of(location: Location, name: str) -> Path | None:
    """A file of a checkpoint, of the hub too, where there is one.

    Raises:
        ModelError: the hub has no such repository or revision, or keeps it private.
    """
    try:
        found = transformers.utils.cached_file(
            location.path,
            name,
            revision=location.revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
    except OSError as error:
        raise ModelError(
            f"{location.path}@{location.revision}: cannot be fetched from the hub: {error}"
        ) from error
    return Path(found) if found else None


def has_only_bin(location: Location) -> bool:
    """Whether a checkpoint has weights, but none in safetensors."""
    try:
        safe, pickled = (
            any(transformers.utils.has_file(location.path, name, location.revision) for name in names)
            for names in (WEIGHTS, WEIGHTS_BIN)
        )
    except OSError:  # there is no such checkpoint at all
        return False
    return pickled and not safe


def weights_outside(
    body: str, reference: str, location: Location, allow_bin: bool
) -> dict[str, torch.Tensor] | None:
    """A checkpoint's weights whose names do not begin with `body`, as of `tensors_in`.

    Returns:
        By name; None where there are no weights that may be read.

    Raises:
        ModelError: a file that the checkpoint's index names is missing, or one is damaged.
    """
    for name in (*WEIGHTS, *(WEIGHTS_BIN if allow_bin else ())):
        file = file_of(location, name)
        if file is None:
            continue
        files = [file]
        beside = file_of(location, VALUE_HEAD)
        if name.endswith(".json"):
            places: dict[str, str] = json.loads(file.read_text())["weight_map"]
            _check_shards(reference, location, name, {*places.values()})
            shards = {place for weight, place in places.items() if not weight.startswith(body)}
            files = [found for shard in sorted(shards) if (found := file_of(location, shard))]
        tensors: dict[str, torch.Tensor] = {}
        for file in [*files, *([beside] if beside else [])]:
            try:
                tensors |= tensors_in(file)
            except UnpicklingError as error:
                raise ModelError(f"{reference}: its .bin is damaged or holds more than tensors") from error
            except (OSError, RuntimeError, SafetensorError) as error:
                raise ModelError(f"{reference}: cannot be loaded: {file.name}: {error}") from error
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(body)}
    return None


def tensors_in(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name; of those with more rows than `MOST_ROWS` the shapes alone.

    Raises:
        UnpicklingError: a .bin is damaged or holds more than tensors.
        OSError, RuntimeError, SafetensorError: the file is damaged.
    """
    if file.suffix == ".bin":
        found: dict[str, torch.Tensor] = torch.load(
            file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
        )
        return found
    tensors = {}
    with safe_open(file, "pt") as weights:
        for name in weights.keys():  # noqa: SIM118 -- it is no mapping
            shape = weights.get_slice(name).get_shape()
            is_small = len(shape) <= 2 and max(shape[:1], default=0) <= MOST_ROWS
            tensors[name] = weights.get_tensor(name) if is_small else torch.empty(shape, device="meta")
    return tensors


def _check_shards(reference: str, location: Location, index: str, shards: set[str]) -> None:
    folder = Path(location.path)
    missing = sorted(shard for shard in shards if not (folder / shard).is_file())
    if folder.is_dir() and missing:
        raise ModelError(
            f"{reference}: lacks {', '.join(missing)} of the {len(shards)} files of weights that {index} "
            "names: copy or download the checkpoint again"
        )
