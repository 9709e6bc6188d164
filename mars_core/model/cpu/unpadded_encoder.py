"""Encoders of BERT's family without padding: all texts of a pass stand one after the other in one row.

Linear layers and norms compute the whole row, and attention each text separately. The last layer computes
only the first token of each text, which is all that the head reads, without keys and values of the others.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

FAMILY = {"bert", "roberta", "xlm-roberta"}
"""Model types whose modules have BERT's names, and whose head reads the first token."""

LONGEST = 1024
"""Most tokens of a text: the probabilities of attention, heads × tokens², are kept for the backward pass."""
LENGTH_STEP = 32
"""Attention pads texts to a multiple of this: oneDNN compiles a kernel for each shape, and keeps it."""
ROW_STEP = 128
"""A row is filled up to a multiple of this, for the same reason, by a text of zeros that is never read."""
ATTENDED_TOGETHER = 512
"""Most padded tokens of texts of one length whose attention is one call: with fewer tokens the calls cost
more than they compute, with more there are more shapes."""


def can_run_unpadded(network: Any, max_length: int) -> bool:
    """Whether `run_unpadded` supports the architecture, and is faster for such texts on its device."""
    return (
        network.config.model_type in FAMILY
        and not network.config.is_decoder
        and network.device.type == "cpu"  # on a GPU the many calls of attention would dominate
        and max_length <= LONGEST
    )


def run_unpadded(network: Any) -> None:
    """Let the encoder also compute rows of texts, as `one_row` makes them.

    For a row, `last_hidden_state` is [texts, 1, d]. Its layers are not called as modules, so that hooks,
    gradient checkpointing and shards act on padded batches only.
    """
    encoder = network.base_model.encoder
    padded: Any = type(encoder)
    # Not a method in the instance's dictionary: the network would live until its cycle is collected.
    encoder.__class__ = _unpadded(padded)


def computed_tokens(tokens: int) -> int:
    """The length of a row that holds so many tokens."""
    return -(-tokens // ROW_STEP) * ROW_STEP


def one_row(network: Any, ids: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The inputs of a forward pass over texts; it is fastest if they are sorted by length.

    Returns:
        input_ids and position_ids, [1, tokens], and text_lengths, [texts].

    Raises:
        ValueError: a text has no tokens.
    """
    if not all(ids):
        raise ValueError("a text without tokens has no first token to read a reward from")
    table = next(m for name, m in network.named_modules() if name.endswith("position_embeddings"))
    positions = (_positions(text, table.padding_idx) for text in ids)
    return {
        "input_ids": torch.tensor([list(itertools.chain.from_iterable(ids))]),
        "position_ids": torch.tensor([list(itertools.chain.from_iterable(positions))]),
        "text_lengths": torch.tensor([len(text) for text in ids]),
    }


def _positions(text: Sequence[int], padding: int | None) -> Sequence[int]:
    """Positions as the network counts them: RoBERTa starts after its padding index, and skips padding."""
    if padding is None:
        return range(len(text))
    counted = itertools.accumulate(int(token != padding) for token in text)
    return [padding + count * (token != padding) for token, count in zip(text, counted, strict=True)]


@functools.cache
def _unpadded(encoder: type) -> type:
    """A subclass of the encoder's class that also computes rows."""

    def forward(
        self: Any, states: torch.Tensor, *args: Any, text_lengths: torch.Tensor | None = None, **kwargs: Any
    ) -> Any:
        if text_lengths is None:
            return encoder.forward(self, states, *args, **kwargs)  # type: ignore[attr-defined]
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=_first_tokens(self.layer, states[0], text_lengths)[:, None]
        )

    return type(f"Unpadded{encoder.__name__}", (encoder,), {"forward": forward})


def _first_tokens(layers: Any, states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """All layers: [tokens, d] → [texts, d], the first token of each text."""
    unread = computed_tokens(len(states)) - len(states)
    states = torch.nn.functional.pad(states, (0, 0, 0, unread))
    texts = _Texts([*lengths.tolist(), *([unread] if unread else [])], layers[0].attention.self, states)
    for layer in layers[:-1]:
        context = _attention(layer.attention.self, states, texts)
        states = layer.feed_forward_chunk(layer.attention.output(context, states))
    context = _attention_of_firsts(layers[-1].attention.self, states, texts)
    firsts = layers[-1].attention.output(context, states[texts.starts])
    output: torch.Tensor = layers[-1].feed_forward_chunk(firsts)
    return output[: len(lengths)]


def _attention(attention: Any, states: torch.Tensor, texts: "_Texts") -> torch.Tensor:
    """Attention of each token over its text: [tokens, d] → [tokens, heads × e]."""
    inputs = states.to(texts.dtype)  # once: under autocast each of the three linear layers would cast it
    query, key, value = attention.query(inputs), attention.key(inputs), attention.value(inputs)
    dropout = attention.dropout.p if attention.training else 0.0
    with torch.autocast("cpu", enabled=False):
        if texts.dtype == torch.bfloat16 or dropout:
            return _by_products(query, key, value, texts, attention.scaling, dropout)
        return _by_the_fused_kernel(query, key, value, texts, attention.scaling)


def _attention_of_firsts(attention: Any, states: torch.Tensor, texts: "_Texts") -> torch.Tensor:
    """Attention of the first token of each text over the text: [tokens, d] → [texts, heads × e].

    With so few queries the keys and values of all tokens are not needed: q·(Kx + b) = (Kᵀq)·x + q·b, where
    q·b does not change the softmax, and Σ pᵢ(Vxᵢ + b) = V Σ pᵢxᵢ + b Σ pᵢ.
    """
    query = attention.query(states[texts.starts]).to(states.dtype)
    with torch.autocast("cpu", enabled=False):
        key, value = (
            _weight(layer, states.dtype).view(texts.heads, -1, states.shape[1])
            for layer in (attention.key, attention.value)
        )
        bias = attention.value.bias.to(states.dtype).view(texts.heads, -1)
        asked = torch.einsum("the,hed->thd", query.view(len(query), texts.heads, -1), key)
        counts, sizes = [len(group) for group in texts.groups], [sum(group) for group in texts.groups]
        read, read_in_all = [], []
        for asks, rows in zip(torch.split(asked, counts), torch.split(states, sizes), strict=True):
            x = rows.view(len(asks), -1, rows.shape[1])
            p = torch.softmax(torch.bmm(asks, x.transpose(1, 2)) * attention.scaling, dim=-1)
            p = torch.nn.functional.dropout(p, attention.dropout.p, attention.training)
            read.append(torch.bmm(p, x))
            read_in_all.append(p.sum(-1))
        without_bias = torch.einsum("thd,hed->the", torch.cat(read), value)
        context: torch.Tensor = without_bias + torch.cat(read_in_all)[..., None] * bias
        return context.flatten(1)


def _weight(layer: Any, dtype: torch.dtype) -> torch.Tensor:
    """Weight [out, in] of a linear layer as if low-rank adapters were merged into it, and not packed."""
    weight: torch.Tensor = layer.weight.to_dense().to(dtype)
    for adapter in getattr(layer, "active_adapters", ()):
        down, up = (part[adapter].weight.to_dense().to(dtype) for part in (layer.lora_A, layer.lora_B))
        weight = weight + up @ down * layer.scaling[adapter]
    return weight


class _Texts:
    """The positions of a row's texts, and which texts share one call of attention."""

    def __init__(self, lengths: list[int], attention: Any, states: torch.Tensor) -> None:
        """`attention` and `states` of a layer give the number of heads and the arithmetic."""
        autocast, self.heads = torch.is_autocast_enabled("cpu"), attention.num_attention_heads
        self.dtype = torch.get_autocast_dtype("cpu") if autocast else states.dtype
        self.lengths = lengths
        self.starts = torch.tensor(lengths).cumsum(0) - torch.tensor(lengths)

    @functools.cached_property
    def groups(self) -> list[list[int]]:
        """Lengths of the texts that attend in one call, as they are."""
        return _neighbours(self.lengths)

    @functools.cached_property
    def padded(self) -> "_Padded":
        """The same with texts padded to a few lengths."""
        return _Padded(self.lengths, self.starts, self.heads, self.dtype)


class _Padded:
    """Texts of a row padded to multiples of `LENGTH_STEP`."""

    def __init__(self, lengths: list[int], starts: torch.Tensor, heads: int, dtype: torch.dtype) -> None:
        groups = _neighbours([-(-length // LENGTH_STEP) * LENGTH_STEP for length in lengths])
        counts, sizes = [len(group) for group in groups], [sum(group) for group in groups]
        padded = torch.tensor([length for group in groups for length in group])
        moved = padded.cumsum(0) - padded - starts
        slots = torch.arange(sum(lengths)) + moved.repeat_interleave(torch.tensor(lengths))
        self.tokens = _Blocks(slots, sizes, counts, heads)
        self.biases = []
        """By block, [texts × heads, 1, padded length]: −∞ where a text has ended."""
        for group, own in zip(groups, torch.split(torch.tensor(lengths), counts), strict=True):
            ended = torch.arange(group[0]) >= own.repeat_interleave(heads)[:, None]
            bias = torch.zeros(ended.shape, dtype=dtype).masked_fill(ended, -torch.inf)
            self.biases.append(bias[:, None])


def _neighbours(lengths: list[int]) -> list[list[int]]:
    """Cut a list into runs of equal values; a run of more than one sums to at most `ATTENDED_TOGETHER`."""
    runs: list[list[int]] = []
    for length in lengths:
        if runs and runs[-1][0] == length and sum(runs[-1]) + length <= ATTENDED_TOGETHER:
            runs[-1].append(length)
        else:
            runs.append([length])
    return runs


class _Blocks:
    """A row's tokens, [tokens, heads × d], as blocks that attend in one call, and back.

    A block holds some texts padded to one length: [texts × heads, padded length, d].
    """

    def __init__(self, slots: torch.Tensor, sizes: list[int], counts: list[int], heads: int) -> None:
        """Lay out the blocks.

        Args:
            slots: [tokens] where each token lies among the padded tokens of all blocks.
            sizes: padded tokens of each block.
            counts: texts of each block.
            heads: heads of attention.
        """
        self.slots, self.sizes, self.counts, self.heads = slots, sizes, counts, heads

    def cut(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """[tokens, heads × d] → [texts × heads, padded length, d] of each block, padded with zeros."""
        padded = rows.new_zeros(sum(self.sizes), rows.shape[1]).index_copy_(0, self.slots, rows)
        return [
            block.view(count, size // count, self.heads, -1).transpose(1, 2).flatten(0, 1)
            for block, size, count in zip(
                torch.split(padded, self.sizes), self.sizes, self.counts, strict=True
            )
        ]

    def join(self, blocks: list[torch.Tensor]) -> torch.Tensor:
        """The inverse of `cut`; what was computed for padding is dropped."""
        padded = [
            block.view(count, self.heads, *block.shape[1:]).transpose(1, 2).reshape(size, -1)
            for block, size, count in zip(blocks, self.sizes, self.counts, strict=True)
        ]
        return torch.cat(padded)[self.slots]


def _by_the_fused_kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, texts: _Texts, scale: float
) -> torch.Tensor:
    """softmax(QKᵀ·scale)V of each text by torch's fused kernel, which needs no padding.

    In float32 this takes half the time of products; with dropout torch has no fused kernel on a CPU.
    """
    counts, sizes = [len(group) for group in texts.groups], [sum(group) for group in texts.groups]
    contexts = []
    for count, *rows in zip(counts, *(torch.split(rows, sizes) for rows in (query, key, value)), strict=True):
        q, k, v = (row.view(count, len(row) // count, texts.heads, -1).transpose(1, 2) for row in rows)
        context = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)
        contexts.append(context.transpose(1, 2).reshape(-1, query.shape[1]))
    return torch.cat(contexts)


def _by_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, texts: _Texts, scale: float, dropout: float
) -> torch.Tensor:
    """The same, with dropout, by two matrix products, which oneDNN computes in bfloat16 twice as fast."""
    context: torch.Tensor = _Products.apply(query, key, value, texts.padded, scale, dropout)  # type: ignore[no-untyped-call]
    return context


class _Products(torch.autograd.Function):
    """softmax(QKᵀ·scale)V of each text, its probabilities kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        texts: _Padded,
        scale: float,
        dropout: float,
    ) -> torch.Tensor:
        probabilities, kept, contexts = [], [], []
        fitting = any(ctx.needs_input_grad)
        tokens = texts.tokens
        blocks = zip(tokens.cut(query), tokens.cut(key), tokens.cut(value), texts.biases, strict=True)
        for q, k, v, bias in blocks:
            p = torch.softmax(torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale), dim=-1)
            if fitting:
                probabilities.append(p)
            if dropout:
                kept.append(torch.empty_like(p, dtype=torch.bool).bernoulli_(1 - dropout))
                p = _dropped(p, kept[-1], dropout)
            contexts.append(torch.bmm(p, v))
        if fitting:
            ctx.save_for_backward(query, key, value, *probabilities, *kept)
            ctx.tokens, ctx.scale, ctx.dropout = tokens, scale, dropout
        return tokens.join(contexts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *rest = ctx.saved_tensors
        tokens = ctx.tokens
        probabilities = rest[: len(tokens.sizes)]
        kept = rest[len(tokens.sizes) :] or [None] * len(probabilities)
        of_query, of_key, of_value = [], [], []
        blocks = zip(
            tokens.cut(query), tokens.cut(key), tokens.cut(value), tokens.cut(gradient),
            probabilities, kept, strict=True,
        )  # fmt: skip
        for q, k, v, g, p, keep in blocks:
            of_p = torch.bmm(g, v.transpose(1, 2))
            dropped = p
            if keep is not None:
                of_p, dropped = (_dropped(tensor, keep, ctx.dropout) for tensor in (of_p, p))
            of_value.append(torch.bmm(dropped.transpose(1, 2), g))
            of_scores = torch.ops.aten._softmax_backward_data(of_p, p, -1, p.dtype)
            of_query.append(torch.bmm(of_scores, k))
            of_key.append(torch.bmm(of_scores.transpose(1, 2), q))
        return (
            tokens.join(of_query) * ctx.scale,
            tokens.join(of_key) * ctx.scale,
            tokens.join(of_value),
            None, None, None,
        )  # fmt: skip


def _dropped(tensor: torch.Tensor, keep: torch.Tensor, dropout: float) -> torch.Tensor:
    return tensor * keep / (1 - dropout)
