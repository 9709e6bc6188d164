"""Which texts share a forward pass: neighbours in length, bounded in padded tokens."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray


def token_batches(lengths: ArrayLike, batch_tokens: int) -> list[NDArray[np.intp]]:
    """Group texts so that (texts in a batch) × (its longest) ≤ `batch_tokens`, longest texts first.

    Args:
        lengths: [n] tokens of each text.
        batch_tokens: most padded tokens of a batch; a text longer than this is a batch of its own.

    Returns:
        Index arrays that together hold each of 0..n−1 once. Longest first: what does not fit into
        memory fails at once and not after an hour.
    """
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches


def padded(ids: Sequence[Sequence[int]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Model inputs `input_ids` and `attention_mask`, [texts, longest], padded on the right.

    Right padding is right for encoders, whose positions a left padding would shift, and changes no
    score of a decoder.
    """
    longest = max(map(len, ids))
    input_ids = torch.full((len(ids), longest), pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros((len(ids), longest), dtype=torch.long)
    for row, text in enumerate(ids):
        input_ids[row, : len(text)] = torch.tensor(text, dtype=torch.long)
        attention_mask[row, : len(text)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}
