"""Prefix sharing: a decoder reads a prompt once for all of its responses.

The texts of one prompt are packed into one row: the prompt's tokens, then one response after the other. A
mask lets each response see only the prompt and itself, and its positions continue from the prompt's end. So
every token computes the same as in a row of its own, with P + ΣR tokens instead of Σ(P + R). Prompts are
compared as tokens: two texts whose prompt was truncated differently share nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from mars_core.model.rendering import Rendering

PROMPT, PADDING = 0, -1


class Packed(NamedTuple):
    """Rows of several texts each, as a decoder's backbone reads them, and where each text ends."""

    inputs: dict[str, torch.Tensor]
    """input_ids and position_ids, [rows, longest]; attention_mask, [rows, 1, longest, longest], of bools."""
    ends: torch.Tensor
    """The row of each text, and the position of its last token in that row, [texts, 2]."""


def can_share_prefixes(network: Any) -> bool:
    """Whether packing changes no reward: each layer attends to all earlier tokens, as the mask allows.

    Encoders attend to later tokens too; recurrent layers and sliding windows depend on the place in the row.
    """
    # Imported here, so that a command that loads no network does not wait for it.
    from transformers.modeling_layers import GenericForSequenceClassification

    settings = network.config.get_text_config()
    return (
        isinstance(network, GenericForSequenceClassification)
        and getattr(settings, "is_causal", True)
        and set(getattr(settings, "layer_types", None) or ()) <= {"full_attention"}
        and not getattr(settings, "sliding_window", None)
        and network.config._attn_implementation.startswith("sdpa")
    )


def rows_by_prompt(
    texts: Iterable[int], rendering: Rendering, longest: int
) -> tuple[list[list[int]], list[int]]:
    """Put `texts` of the rendering whose prompts have the same tokens into rows of at most `longest` tokens.

    Returns:
        The texts of each row, and the tokens of each row: P + ΣR.
    """
    rows: list[list[int]] = []
    lengths: list[int] = []
    latest: dict[tuple[int, ...], int] = {}
    for text in texts:
        prompt_tokens = rendering.prompt_tokens[text]
        prompt = tuple(rendering.ids[text][:prompt_tokens])
        response_tokens = len(rendering.ids[text]) - prompt_tokens
        row = latest.get(prompt)
        if row is None or lengths[row] + response_tokens > longest:
            row = latest[prompt] = len(rows)
            rows.append([])
            lengths.append(prompt_tokens)
        rows[row].append(text)
        lengths[row] += response_tokens
    return rows, lengths


def pack(rows: Sequence[Sequence[int]], rendering: Rendering, pad_token_id: int) -> Packed:
    """Pack the texts of each row, as `rows_by_prompt` gives them."""
    columns: list[tuple[list[int], list[int], list[int]]] = []
    ends: list[tuple[int, int]] = []
    for row, texts in enumerate(rows):
        prompt_tokens = rendering.prompt_tokens[texts[0]]
        ids = list(rendering.ids[texts[0]][:prompt_tokens])
        positions, owners = list(range(prompt_tokens)), [PROMPT] * prompt_tokens
        for owner, text in enumerate(texts, start=PROMPT + 1):
            response = rendering.ids[text][prompt_tokens:]
            ids += response
            positions += range(prompt_tokens, prompt_tokens + len(response))
            owners += [owner] * len(response)
            ends.append((row, len(ids) - 1 if response else prompt_tokens - 1))
        columns.append((ids, positions, owners))
    input_ids, position_ids, owner_ids = (
        pad_sequence([torch.tensor(row) for row in column], batch_first=True, padding_value=padding)
        for column, padding in zip(zip(*columns, strict=True), (pad_token_id, 0, PADDING), strict=True)
    )
    asking, asked = owner_ids[:, :, None], owner_ids[:, None, :]
    allowed = ((asked == PROMPT) | (asked == asking)).tril()
    inputs = {"input_ids": input_ids, "position_ids": position_ids, "attention_mask": allowed[:, None]}
    return Packed(inputs, torch.tensor(ends))
