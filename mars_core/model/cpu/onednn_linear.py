"""Linear layers that multiply through oneDNN, for scoring on a CPU.

In bfloat16, autocast casts the weights in every pass and writes the bias into the output before it
multiplies; in float32, torch calls MKL, which is tuned for Intel. Here the weights are copied once, in the
type and layout that oneDNN reads; the copy takes as much memory as the weights (half as much in bfloat16).
The bias is added in the same pass over the output, and BERT's GELU overwrites its input. The arithmetic is
the same up to the order of sums.
"""

from typing import Any

import torch

from mars_core.model.shared_weights import with_shared_weights

PACKED_FOR = 4096
"""Number of tokens that the layout of the weights is chosen for; any other number works too."""


def can_multiply(dtype: torch.dtype) -> bool:
    """Whether oneDNN is built in and, for bfloat16, supports this processor."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32 and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


class OneDnnLinear(torch.nn.Linear):
    """A linear layer for inference, its weights in one type and its inputs cast to it."""

    def __init__(self, layer: torch.nn.Linear, dtype: torch.dtype) -> None:
        """Take over the weights of a layer."""
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.dtype = dtype
        weight = layer.weight.detach().to(dtype)
        if dtype == torch.float32:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR)
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        if layer.bias is not None:
            self.bias = torch.nn.Parameter(layer.bias.detach().to(dtype), requires_grad=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Multiply and add the bias: [..., in] → [..., out]."""
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            input.to(self.dtype), self.weight, self.bias, "none", [], ""
        )
        return output


class _InPlaceGELU(torch.nn.Module):
    """GELU that overwrites its input, the output of the layer before it, which nothing else reads."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = torch.ops.aten.gelu_(input)
        return output


def with_onednn_linear(network: Any, head: torch.nn.Module, dtype: torch.dtype) -> Any:
    """Copy a network with oneDNN's linear layers outside the head; all other weights are shared."""
    from transformers.activations import (
        GELUActivation,  # with its first use, as in `mars_core.model.cpu.attention`
    )

    outside = set(network.modules()) - set(head.modules())
    instead = {id(layer): OneDnnLinear(layer, dtype) for layer in outside if type(layer) is torch.nn.Linear}
    scorer = with_shared_weights(network, instead)
    for module in scorer.modules():
        if isinstance(getattr(module, "intermediate_act_fn", None), GELUActivation):
            module.intermediate_act_fn = _InPlaceGELU()
    return scorer
