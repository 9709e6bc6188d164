"""Where a model is: a checkpoint folder, weights inside an installed package, or a revision on the hub.

    /models/ours    package://smollm2-135m-instruct    microsoft/deberta-v3-base@REVISION

Reward models, embedders and language models are named this way. A hub name without a revision is refused:
what it names changes under a run's feet.
"""

import json
from pathlib import Path
from typing import NamedTuple

from mars_core.errors import ModelError
from mars_core.files import digest, sha256_of
from mars_core.model.packaged import identity_of, packaged_checkpoint

OWN_TOKENIZER = 2
"""Raised when adapters with a tokenizer of their own are read in another way."""


class Location(NamedTuple):
    """What the loaders of `transformers` take: a folder or a hub name, and the hub revision."""

    path: str
    revision: str | None


def locate(reference: str) -> Location:
    """Resolve a model reference.

    Raises:
        ModelError: the folder or package is not there, the packaged weights are not the pinned ones, or
            a hub name has no revision.
    """
    scheme, found, package = reference.partition("://")
    if found and scheme == "package":
        return Location(str(packaged_checkpoint(package)), None)
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return Location(str(folder), None)
    if found or reference.startswith((".", "/", "~")):
        raise ModelError(f"{reference}: no such checkpoint folder")
    if reference.startswith("models:/"):
        raise ModelError(f"{reference}: a registered model is read by mars evaluate, score, serve, publish")
    name, _, revision = reference.partition("@")
    if not revision:
        raise ModelError(
            f"{reference}: neither a folder here nor a hub model with its revision; "
            f"name one, best a commit, as in {name}@main"
        )
    return Location(name, revision)


def content_of_checkpoint(reference: str) -> str:
    """What is in a local folder, by digest, with the local model that adapters in it are of; else its name.

    A package's weights are pinned, and a hub model is what its revision names.
    """
    scheme, _, package = reference.partition("://")
    if scheme == "package":
        return identity_of(package)
    folder = Path(reference).expanduser()
    if not folder.is_dir():
        return reference
    adapter = folder / "adapter_config.json"
    base = json.loads(adapter.read_text())["base_model_name_or_path"] if adapter.is_file() else None
    if base is None:
        return sha256_of(folder)
    # Adapters with a tokenizer of their own were once rendered by their base's.
    own_tokenizer = [OWN_TOKENIZER] if (folder / "tokenizer_config.json").is_file() else []
    return digest(sha256_of(folder), content_of_checkpoint(str(base)), *own_tokenizer)
