"""Attention in float32 where all else is bfloat16: on a CPU its backward pass is faster.

`transformers` is imported on first use: that takes seconds, which a command that only reads a configuration
should not wait for.
"""

from typing import Any

import torch

NAME = "sdpa_in_float32"


def attend_in_float32(network: Any) -> None:
    """Let a network that uses torch's fused attention compute it in float32."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if network.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, _sdpa_in_float32)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        network.set_attn_implementation(NAME)


def _sdpa_in_float32(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *args: Any,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    with torch.autocast(query.device.type, enabled=False):
        attended, _ = sdpa_attention_forward(
            module, query.float(), key.float(), value.float(), *args, **kwargs
        )
    return attended.to(value.dtype), None
