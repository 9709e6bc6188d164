"""Features of texts, computed once and kept in a memory-mapped file: a linear reward model fits in seconds.

The features are the inputs of the head's scalar layer, r = features · weight + bias, without dropout.
They do not change while that layer alone is trained.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

from mars_core.fit.gradient import Computed, PairBatch, margins_of
from mars_core.model.batching import TokenBudget
from mars_core.model.rendering import text_name
from mars_core.model.reward_model import WINDOW, RewardModel
from mars_core.objectives.objective import TextOutputs


class LinearGradient:
    """Accumulates the gradient of the scalar layer, as `NetworkGradient` does that of a network."""

    def __init__(
        self,
        model: RewardModel,
        rows: dict[bytes, int],
        features: NDArray[np.float32],
        tokens: NDArray[np.int64],
        cut: dict[str, int],
    ) -> None:
        """Use features, [texts, d]; `rows` maps a text to its row, and `tokens` are the texts' lengths.

        `cut` counts the texts that were truncated; it is known in advance, as no step renders a text.
        """
        self.model = model
        self.rows, self.features, self.tokens, self.cut = rows, features, tokens, cut

    @torch.no_grad()
    def readouts(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float32]:
        """Readouts of texts, [n, q], from their features."""
        self.model.train(False)
        readouts = self.model.objective.readout(self._outputs(self._rows(prompts, responses)))
        found: NDArray[np.float32] = readouts.cpu().numpy()
        return found

    def __call__(self, batch: PairBatch, seed: int) -> Computed:
        """Add the gradient of the batch's loss; there is no dropout to draw, and no padding."""
        prompts, responses, _ = batch.texts
        rows, objective = self._rows(prompts, responses), self.model.objective
        objective.modules.train()
        outputs, penalty = self._outputs(rows), objective.penalty()
        losses = batch.losses(objective, outputs)
        batch.loss(losses, penalty).backward()  # type: ignore[no-untyped-call]
        tokens = int(self.tokens[rows].sum())
        value = 0.0 if penalty is None else float(penalty.detach())
        return Computed(
            margins_of(objective, outputs, len(batch.prompts)),
            losses.detach().cpu().numpy(),
            value,
            tokens,
            tokens,
        )

    def _rows(self, prompts: Sequence[str], responses: Sequence[str]) -> list[int]:
        return [self.rows[text_name(*text)] for text in zip(prompts, responses, strict=True)]

    def _outputs(self, rows: list[int]) -> TextOutputs:
        return self.model.of_features(torch.from_numpy(self.features[rows]).to(self.model.device))


@contextmanager
def cached_features(
    model: RewardModel, tables: Sequence[Dataset], file: Path, processes: Any
) -> Iterator[LinearGradient]:
    """Compute the features of all texts in tables of pairs; `file` holds them during a `with` block.

    Each process computes a part of the texts, and all of them read the file.
    """
    rows: dict[bytes, int] = {}
    for text in _texts(tables):
        rows.setdefault(text_name(*text), len(rows))
    shape = len(rows), model.scalar_layer.in_features
    with processes.main_process_first():
        if processes.is_main_process:
            _allocate(file, 4 * math.prod(shape))
        features = np.memmap(file, np.float32, "r+", shape=shape)
    counts = np.zeros(len(rows) + 2, dtype=np.int64)
    try:
        tokens, cuts = counts[:-2], counts[-2:]
        _compute(model, _texts(tables), rows, features, tokens, cuts, processes)
        counts[:] = processes.reduce(torch.from_numpy(counts).to(processes.device)).cpu().numpy()
        cut = dict(zip(("prompts_cut", "responses_cut"), cuts.tolist(), strict=True))
        yield LinearGradient(model, rows, features, tokens, cut)
    finally:
        if processes.is_main_process:
            file.unlink()


def _allocate(file: Path, size: int) -> None:
    """Make a file and reserve its disk space: without it, a write to the mapped file ends the process."""
    try:
        with file.open("wb") as features:
            os.posix_fallocate(features.fileno(), 0, size)
    except OSError as error:
        file.unlink(missing_ok=True)
        raise OSError(error.errno, os.strerror(error.errno or 0), str(file)) from error


def _compute(
    model: RewardModel,
    texts: Iterator[tuple[str, str]],
    rows: dict[bytes, int],
    features: NDArray[np.float32],
    tokens: NDArray[np.int64],
    cuts: NDArray[np.int64],
    processes: Any,
) -> None:
    """Compute this process's share of the features and counts, each distinct text once."""
    budget = TokenBudget(model.config.batch_tokens)
    done = 0
    while window := list(islice(texts, WINDOW)):
        new = {row: text for text in window if (row := rows[text_name(*text)]) >= done}
        done += len(new)
        mine = [row for row in new if row % processes.num_processes == processes.process_index]
        if mine:
            found = model.features([new[row][0] for row in mine], [new[row][1] for row in mine], budget)
            cuts += found.prompts_cut.sum(), found.responses_cut.sum()
            tokens[mine] = found.tokens
            features[mine] = found.distinct[found.rows]


def _texts(tables: Sequence[Dataset]) -> Iterator[tuple[str, str]]:
    for table in tables:
        for pairs in table.iter(WINDOW // 2):
            yield from zip(pairs["prompt"] * 2, pairs["chosen"] + pairs["rejected"], strict=True)
            paraphrases = zip(pairs["prompt"], pairs.get("paraphrase", ()), strict=False)
            yield from ((prompt, text) for prompt, text in paraphrases if text)
