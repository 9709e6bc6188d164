"""A copy of a network that shares its weights, and whose modules may be replaced."""

import copy
from collections.abc import Mapping
from typing import Any


def with_shared_weights(network: Any, instead: Mapping[int, Any] | None = None) -> Any:
    """Copy a network but for its parameters and buffers, which the copy shares.

    Args:
        network: stays as it is.
        instead: by the id of a module, the module that replaces it in the copy.
    """
    known = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, known | dict(instead or {}))
