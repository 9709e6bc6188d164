"""The metrics of a fit: for each optimizer step, for its last epoch, and for all of it."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from mars_core.files import write_whole
from mars_core.fit.gradient import Computed, PairBatch


@dataclass
class Progress:
    """The progress of a fit; it survives an interruption."""

    step: int = 0
    """Optimizer steps done."""
    epoch: int = 0
    """Epoch of the last step."""
    pairs: int = 0
    """Pairs seen in all steps, and in the current epoch:"""
    epoch_pairs: int = 0
    epoch_loss: float = 0.0
    epoch_weight: float = 0.0
    epoch_margin: float = 0.0
    epoch_correct: int = 0
    seconds: float = 0.0
    tokens: int = 0
    padded_tokens: int = 0
    """Tokens that were computed, padding included."""
    prompts_cut: int = 0
    responses_cut: int = 0
    """Texts of the first epoch that were truncated."""
    lowest: float = math.inf
    """Lowest validation loss so far."""
    stale: int = 0
    """Evaluations since then."""

    def add(self, epoch: int, batch: PairBatch, computed: Computed, seconds: float) -> dict[str, float]:
        """Count one step; its metrics."""
        loss = float(batch.loss(torch.from_numpy(computed.losses))) + computed.penalty
        margins, weight = computed.margins, float(batch.weights.sum())
        n = len(margins)
        if epoch > self.epoch:
            self.epoch, self.epoch_pairs, self.epoch_correct = epoch, 0, 0
            self.epoch_loss = self.epoch_weight = self.epoch_margin = 0.0
        self.step += 1
        self.pairs += n
        self.epoch_pairs += n
        self.epoch_loss += loss * weight
        self.epoch_weight += weight
        self.epoch_margin += float(margins.sum())
        self.epoch_correct += int((margins > 0).sum())
        self.seconds += seconds
        self.tokens += computed.tokens
        self.padded_tokens += computed.padded_tokens
        if epoch == 0:
            self.prompts_cut += computed.prompts_cut
            self.responses_cut += computed.responses_cut
        return {
            "step": self.step,
            "epoch": epoch,
            "pairs": n,
            "pairs_seen": self.pairs,
            "loss": loss,
            "accuracy": float((margins > 0).mean()),
            "margin": float(margins.mean()),
            "tokens_per_second": computed.tokens / seconds,
            "padding": 1 - computed.tokens / computed.padded_tokens,
        }

    def is_lowest(self, validation_loss: float) -> bool:
        """Count an evaluation; whether none before had so low a loss."""
        self.stale = 0 if validation_loss < self.lowest else self.stale + 1
        self.lowest = min(self.lowest, validation_loss)
        return self.stale == 0

    def result(self) -> dict[str, float]:
        """Loss, accuracy and mean margin over the last epoch, and the counts of the whole fit."""
        return {
            "loss": self.epoch_loss / self.epoch_weight,
            "accuracy": self.epoch_correct / self.epoch_pairs,
            "mean_margin": self.epoch_margin / self.epoch_pairs,
            "steps": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens / self.seconds,
            "padding": 1 - self.tokens / self.padded_tokens,
            "prompts_cut": self.prompts_cut,
            "responses_cut": self.responses_cut,
        }


class CurveFile:
    """One JSON line for each step; a fit that resumes keeps the lines of the steps that it does not
    repeat."""

    def __init__(self, file: Path) -> None:
        """Write to `file`; it does not change before the first line is added."""
        self.file = file
        self.begun = False

    def add(self, figures: dict[str, float]) -> None:
        """Add the metrics of a step; `step` among them is its number."""
        if not self.begun:
            lines = self.file.read_text().splitlines(keepends=True) if self.file.exists() else []
            kept = "".join(lines[: int(figures["step"]) - 1])
            write_whole(self.file, lambda file: file.write_text(kept))  # another run may share the old file
            self.begun = True
        with self.file.open("a") as curve:
            curve.write(json.dumps(figures) + "\n")
