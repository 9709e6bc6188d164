"""Which texts share a forward pass: texts of similar length, up to a number of padded tokens."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from numpy.typing import ArrayLike, NDArray

from mars_core.errors import MarsError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class OutOfMemoryError(MarsError, MemoryError):
    """A forward pass of a single text does not fit into memory."""


def token_batches(lengths: ArrayLike, batch_tokens: int) -> list[NDArray[np.intp]]:
    """Group texts so that (texts in a batch) × (its longest) ≤ `batch_tokens`, longest texts first.

    Args:
        lengths: [n] tokens of each text.
        batch_tokens: most padded tokens of a batch; a text longer than this is a batch of its own.

    Returns:
        Index arrays that together hold each of 0..n−1 once. The longest come first, so that a lack of memory
        shows at once and not after an hour.
    """
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches


def tight_batches(lengths: ArrayLike, batch_tokens: int, overhead: int = 256) -> list[NDArray[np.intp]]:
    """Group a few hundred texts at the least cost: padded tokens, and `overhead` tokens for every batch.

    Dynamic programming finds the best way to cut the texts, sorted by length, into batches. `token_batches`
    would pad the texts of a small optimizer step to the longest of them all.

    Args:
        lengths: [n] tokens of each text.
        batch_tokens: most padded tokens of a batch; a text longer than this is a batch of its own.
        overhead: what starting a batch costs, in tokens.

    Returns:
        Index arrays as of `token_batches`.
    """
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable")
    descending = lengths[order]
    n = len(order)
    cost = np.full(n + 1, np.inf)
    cost[0] = 0
    start = np.zeros(n + 1, dtype=np.intp)
    for end in range(1, n + 1):
        sizes = end - np.arange(end)
        tokens = sizes * descending[:end]
        allowed = (tokens <= batch_tokens) | (sizes == 1)
        costs = np.where(allowed, cost[:end] + tokens + overhead, np.inf)
        start[end] = int(np.argmin(costs))
        cost[end] = costs[start[end]]
    batches, end = [], n
    while end > 0:
        batches.append(order[start[end] : end])
        end = int(start[end])
    return batches[::-1]


class TokenBudget:
    """Most padded tokens of a forward pass; halved, for all later passes, when memory runs out."""

    def __init__(self, tokens: int) -> None:
        """Begin with `tokens`."""
        self.tokens = tokens

    def run(
        self, forward: Callable[[NDArray[np.intp]], Result], lengths: ArrayLike
    ) -> Iterator[tuple[NDArray[np.intp], Result]]:
        """Call `forward` with one batch of `token_batches` after another.

        Args:
            forward: from the indices of a batch to its result.
            lengths: [n] tokens of each text.

        Yields:
            The indices of a batch, and its result.

        Raises:
            OutOfMemoryError: one text alone does not fit.
        """
        lengths = np.asarray(lengths)
        waiting = token_batches(lengths, self.tokens)[::-1]
        while waiting:
            batch = waiting.pop()
            longest = int(lengths[batch[0]])
            if len(batch) > 1 and len(batch) * longest > self.tokens:
                waiting += [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
                continue
            try:
                result = forward(batch)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if len(batch) == 1:
                    raise OutOfMemoryError(
                        f"a text of {longest} tokens does not fit into memory; lower model.max_length"
                    ) from error
            else:
                yield batch, result
                continue
            clear_device_cache()
            self.tokens = len(batch) * longest // 2
            logger.warning("Out of memory; going on with batches of %d tokens.", self.tokens)
            waiting.append(batch)


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
