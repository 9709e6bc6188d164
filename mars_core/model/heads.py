"""Heads: what a network calls its own, and which trained one a checkpoint's weights hold.

A configuration often says of the head what it said of the language model that the checkpoint was made of. So
the weights decide whether there is a trained one, and of how many outputs.
"""

from typing import Any, NamedTuple

import torch
import transformers

from mars_core.errors import ModelError
from mars_core.model.checkpoints import Location
from mars_core.model.weight_files import MOST_ROWS, weights_outside

HEADS = ("score", "classifier")
"""What a network may call its head."""
OF_PRETRAINING = {"lm_head", "cls", "sop_classifier", "qa_outputs"}
"""Names of heads that no reward is trained with, beside all that end in `predictions`."""


class Head(NamedTuple):
    """A trained head, as far as it is known before the network is loaded."""

    outputs: int
    """How many it has."""
    unread: dict[str, torch.Tensor]
    """`weight` and `bias` of its last layer where transformers does not read them; else empty."""


def head_of(network: Any) -> Any:
    """The module that makes outputs of a text's features.

    Raises:
        ModelError: it has no known name.
    """
    for name in HEADS:
        if hasattr(network, name):
            return getattr(network, name)
    raise ModelError(f"{type(network).__name__} has no head under a known name ({', '.join(HEADS)})")


def scores_every_token(network: Any) -> bool:
    """Whether the head makes outputs of each token's state, of which those of the last one count: a
    decoder's."""
    return isinstance(getattr(network, "score", None), torch.nn.Linear)


def last_layer(head: Any) -> torch.nn.Linear:
    """The last linear layer of a head."""
    return [layer for layer in head.modules() if isinstance(layer, torch.nn.Linear)][-1]


def name_in(network: Any, module: Any) -> str:
    """What a network calls a module of its own."""
    name: str = next(name for name, found in network.named_modules() if found is module)
    return name


def head_in_weights(
    reference: str, location: Location, settings: Any, allow_bin: bool, mapped: str | None
) -> Head | None:
    """The trained head among a checkpoint's weights; None where it is to be drawn.

    Args:
        reference: of the checkpoint, for errors.
        location: where it is.
        settings: its configuration.
        allow_bin: whether weights may be read of a .bin.
        mapped: what the weights call the head's one layer, where it is a name that transformers does not
            read.

    Raises:
        ModelError: a file is missing or damaged, weights that may be a head would not be read, or those that
            `mapped` names are not there or not the whole head.
    """
    named = any(name.endswith("ForSequenceClassification") for name in settings.architectures or ())
    by_name = Head(settings.num_labels, {}) if named else None
    network = without_weights(reference, settings)
    body = f"{network.base_model_prefix}."
    weights = weights_outside(body, reference, location, allow_bin)
    if weights is None:
        return by_name
    own = network.state_dict().keys()
    unread = {name for name in weights if name not in own and body + name not in own}
    if mapped is not None:
        return _mapped(reference, mapped, weights, unread)
    heads = [name for name in unread if _may_be_head(name, weights[name])]
    if heads:
        name = min(heads, key=lambda name: (len(weights[name]), name))
        raise ModelError(
            f"{reference}: its weights {name} ({' × '.join(map(str, weights[name].shape))}) would not be "
            "read, and may be a trained head: if so, name it, as in "
            f"model.head={name.removesuffix('.weight')}; else take them out of the file"
        )
    layer = name_in(network, last_layer(head_of(network)))
    parts = {part: f"{layer}.{part}" for part in ("weight", "bias")}
    if parts["weight"] not in weights:
        return by_name
    has_unread_bias = parts["bias"] in unread
    return Head(
        len(weights[parts["weight"]]),
        {part: weights[name] for part, name in parts.items()} if has_unread_bias else {},
    )


def without_weights(reference: str, settings: Any) -> Any:
    """The network of a configuration, without memory for its weights.

    Raises:
        ModelError: no network with a head can be made of it.
    """
    try:
        with torch.device("meta"):
            return transformers.AutoModelForSequenceClassification.from_config(settings)
    except ValueError as error:
        raise ModelError(f"{reference}: no reward model can be made of it: {error}") from error


def put_head(network: Any, head: Head) -> set[str]:
    """Put a head's unread weights into the network's last layer; the names of what is there now."""
    if not head.unread:
        return set()
    layer = last_layer(head_of(network))
    layer.weight = torch.nn.Parameter(head.unread["weight"].float())
    if "bias" in head.unread:
        layer.bias = torch.nn.Parameter(head.unread["bias"].float())
    elif layer.bias is not None:
        torch.nn.init.zeros_(layer.bias)
    return {f"{name_in(network, layer)}.{part}" for part in ("weight", "bias")}


def _mapped(reference: str, layer: str, weights: dict[str, torch.Tensor], unread: set[str]) -> Head:
    """The head whose one layer the weights call `layer`."""
    found = {part: weights[f"{layer}.{part}"] for part in ("weight", "bias") if f"{layer}.{part}" in weights}
    if "weight" not in found:
        there = ", ".join(sorted(weights)) or "none"
        raise ModelError(
            f"{reference}: has no weights {layer}.weight, which model.head={layer} names; those outside its "
            f"body are {there}"
        )
    whole = f"{layer.partition('.')[0]}."
    others = {name for name in unread if name.startswith(whole)} - {f"{layer}.{part}" for part in found}
    if others:
        raise ModelError(
            f"{reference}: its head has more layers than {layer}, which model.head names "
            f"({', '.join(sorted(others))}); only one of a single linear layer can be read"
        )
    return Head(len(found["weight"]), found)


def _may_be_head(name: str, weight: torch.Tensor) -> bool:
    parts = name.split(".")
    of_pretraining = any(part in OF_PRETRAINING or part.endswith("predictions") for part in parts)
    is_matrix = name.endswith(".weight") and weight.dim() == 2  # a table of positions is none
    return is_matrix and len(weight) <= MOST_ROWS and not of_pretraining
