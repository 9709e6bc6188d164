"""The gradient of an effective batch of preference pairs, whatever the memory.

The loss of a pair needs both of its texts, so pairs are computed in groups whose activations, up to a number
of tokens, are held at once. The texts of a group are computed without padding, or in micro-batches of similar
length, with one backward pass for all of them; a decoder reads a pair's prompt once. The gradients of the
groups sum to that of a plain loop, which would need more padding; with dropout, responses that share a prompt
share its mask.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from numpy.typing import NDArray

from mars_core.model.batching import tight_batches, token_batches
from mars_core.model.rendering import Rendering
from mars_core.model.reward_model import RewardModel
from mars_core.objectives.objective import Noise, Objective, PairOutputs, TextOutputs

logger = logging.getLogger(__name__)

PASS_TOKENS = 64
"""Cost of starting another forward and backward pass, in tokens."""


@dataclass(frozen=True)
class PairBatch:
    """Some pairs of an effective batch."""

    prompts: list[str]
    chosen: list[str]
    rejected: list[str]
    weights: torch.Tensor
    """[n] the weight of each pair."""
    margins: torch.Tensor
    """[n] the margin that the data set for each pair; nan if none."""
    total_weight: float
    """Sum of the weights of the whole effective batch."""
    noise: Noise
    """Random numbers for the loss of each pair."""
    paraphrases: list[str | None] = field(default_factory=list)
    """[n] a paraphrase of each chosen response, or None; empty where the objective reads none."""
    labels: dict[str, torch.Tensor] = field(default_factory=dict)
    """[n] by the columns of the objective's labels, the place of each pair's label; −1 for none."""

    @property
    def paraphrased(self) -> list[int]:
        """The pairs that have a paraphrase."""
        return [row for row, text in enumerate(self.paraphrases) if text]

    @property
    def texts(self) -> tuple[list[str], list[str], NDArray[np.intp]]:
        """Prompts and responses to compute: the n chosen, the n rejected, the paraphrases; and the pair of
        each."""
        rows, n = self.paraphrased, len(self.prompts)
        prompts = self.prompts * 2 + [self.prompts[row] for row in rows]
        responses = self.chosen + self.rejected + [self.paraphrases[row] or "" for row in rows]
        return prompts, responses, np.concatenate([np.arange(n), np.arange(n), np.array(rows, dtype=np.intp)])

    @property
    def characters(self) -> NDArray[np.intp]:
        """[n] characters of each pair's texts, a cheap estimate of its cost."""
        texts = zip(self.prompts, self.chosen, self.rejected, strict=True)
        return np.array([2 * len(prompt) + len(chosen) + len(rejected) for prompt, chosen, rejected in texts])

    def part(self, rows: NDArray[np.intp], factor: float) -> "PairBatch":
        """Some of the pairs, with their weights multiplied by a factor."""
        prompts, chosen, rejected = (
            [column[row] for row in rows] for column in (self.prompts, self.chosen, self.rejected)
        )
        weights, noise = self.weights[rows] * factor, replace(self.noise, rows=self.noise.rows[rows])
        paraphrases = [self.paraphrases[row] for row in rows] if self.paraphrases else []
        numbers = weights, self.margins[rows], self.total_weight
        labels = {name: places[rows] for name, places in self.labels.items()}
        return PairBatch(prompts, chosen, rejected, *numbers, noise, paraphrases, labels)

    def losses(self, objective: Objective, outputs: TextOutputs) -> torch.Tensor:
        """ℓ of each pair, [n], from the outputs of `texts`."""
        n, rows, device = len(self.weights), self.paraphrased, outputs.outputs.device
        halves = outputs.rows(slice(n)), outputs.rows(slice(n, 2 * n))
        return objective.losses(
            PairOutputs(
                *halves,
                self.margins.to(device),
                self.noise,
                paraphrase=outputs.rows(slice(2 * n, None)) if rows else None,
                paraphrased=torch.tensor(rows, device=device) if rows else None,
                labels={name: places.to(device) for name, places in self.labels.items()},
            )
        )

    def loss(self, losses: torch.Tensor, penalty: torch.Tensor | None = None) -> torch.Tensor:
        """Σ wᵢℓᵢ of these pairs divided by the whole effective batch's Σ wᵢ, plus their share of its
        penalty."""
        weights = self.weights.to(losses.device)
        loss = weights @ losses / self.total_weight
        return loss if penalty is None else loss + penalty * weights.sum() / self.total_weight


@dataclass(frozen=True)
class Computed:
    """By-products of computing a gradient."""

    margins: NDArray[np.float32]
    """[n] logit P(chosen ≻ rejected) of each pair."""
    losses: NDArray[np.float32]
    """[n] ℓ of each pair."""
    penalty: float = 0.0
    """The term that the objective adds to a batch's mean loss."""
    tokens: int = 0
    """Tokens of the texts; a prompt that a decoder reads once for both responses counts once."""
    padded_tokens: int = 0
    """Tokens that were computed, padding included."""
    prompts_cut: int = 0
    """Texts whose prompt lost its beginning to the limit."""
    responses_cut: int = 0
    """Texts whose response lost its end to the limit."""


class NetworkGradient:
    """Accumulates the gradient of the weights of a network in their `grad`."""

    def __init__(
        self,
        model: RewardModel,
        group_tokens: int,
        agree: Callable[[int], int] | None = None,
    ) -> None:
        """Compute at most `group_tokens` at once.

        `agree` is for a network that is sharded over processes, which must all make the same number of
        passes: it gets the number that this process needs, and returns the number to make.
        """
        self.model = model
        self.group_tokens = group_tokens
        self.agree = agree
        embedding = model.network.get_input_embeddings()
        # A dense gradient of the embedding is as large as the vocabulary, and there is one for every pass.
        self.embedding = embedding if embedding.weight.requires_grad and agree is None else None
        if self.embedding is not None:
            self.embedding.sparse = True

    def readouts(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float32]:
        """Readouts without dropout, [n, q]."""
        return self.model.readouts(prompts, responses)

    def __call__(self, batch: PairBatch, seed: int) -> Computed:
        """Add the gradient of the batch's loss; `seed` draws the dropout.

        When memory runs out, half as many tokens are computed at once from then on.

        Raises:
            RuntimeError: a single pair does not fit into memory.
        """
        self.model.train()
        prompts, responses, pair_of = batch.texts
        rendering = self.model.renderer.render(prompts, responses)
        of_pair = [
            self.model.rows(np.flatnonzero(pair_of == pair).tolist(), rendering)
            for pair in range(len(batch.prompts))
        ]
        while True:
            torch.manual_seed(seed)
            try:
                computed = self._accumulate(rendering, of_pair, batch)
                break
            except RuntimeError as error:
                largest = max(_padded_tokens(lengths) for _, lengths in of_pair)
                if not should_reduce_batch_size(error) or self.group_tokens <= largest or self.agree:
                    raise
            self.group_tokens //= 2
            logger.warning(
                "Memory ran out: going on with fit.group_tokens=%d, half of before.", self.group_tokens
            )
            self.model.network.zero_grad()
            self.model.objective.modules.zero_grad()
            clear_device_cache(garbage_collection=True)
        if self.embedding is not None and self.embedding.weight.grad is not None:
            self.embedding.weight.grad = self.embedding.weight.grad.to_dense()
        return computed

    def _accumulate(
        self, rendering: Rendering, of_pair: Sequence[tuple[list[list[int]], list[int]]], batch: PairBatch
    ) -> Computed:
        """Add the gradient of a batch's texts; `of_pair` has each pair's rows and their tokens."""
        objective = self.model.objective
        margins, losses = np.empty((2, len(batch.prompts)), dtype=np.float32)
        value, tokens, padded_tokens = 0.0, 0, 0
        for pairs, factor, lengths, passes in self._groups([lengths for _, lengths in of_pair]):
            rows = [row for pair in pairs for row in of_pair[pair][0]]
            # Inside one context the weights are cast to bfloat16 once, and not for every pass.
            with torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=self.model.bfloat16):
                found = TextOutputs.together(
                    [self.model.forward_rows([rows[row] for row in some], rendering) for some in passes]
                )
            texts = [text for some in passes for row in some for text in rows[row]]
            in_order = found.rows(torch.from_numpy(np.argsort(texts)))
            part, penalty = batch.part(pairs, factor), objective.penalty()
            of_part = part.losses(objective, in_order)
            part.loss(of_part, penalty).backward()  # type: ignore[no-untyped-call]
            losses[pairs] = of_part.detach().cpu().numpy()
            margins[pairs] = margins_of(objective, in_order, len(pairs))
            value = 0.0 if penalty is None else float(penalty.detach())
            tokens += int(lengths.sum()) if factor else 0
            padded_tokens += sum(self.model.computed_tokens(lengths[some].tolist()) for some in passes)
        cut = rendering.prompts_cut, rendering.responses_cut
        return Computed(margins, losses, value, tokens, padded_tokens, *cut)

    def _groups(
        self, lengths: Sequence[Sequence[int]]
    ) -> Iterator[tuple[NDArray[np.intp], float, NDArray[np.intp], list[NDArray[np.intp]]]]:
        """The pairs of each group, how much they count, the tokens of their rows, and each pass's rows.

        Args:
            lengths: tokens of each pair's rows.
        """
        padded = [_padded_tokens(rows) for rows in lengths]
        batch_tokens = min(self.model.config.batch_tokens, self.group_tokens)
        # A pass of shards is gathered from all processes, so there one group is one pass.
        groups = token_batches(padded, batch_tokens if self.agree else self.group_tokens)
        for turn in range(self.agree(len(groups)) if self.agree else len(groups)):
            pairs = np.sort(groups[turn % len(groups)])
            of_rows = np.array([length for pair in pairs for length in lengths[pair]])
            if self.agree:
                passes = [np.arange(len(of_rows))]
            elif self.model.unpadded:
                passes = [np.argsort(-of_rows, kind="stable")]
            else:
                passes = tight_batches(of_rows, batch_tokens, PASS_TOKENS)
            yield pairs, float(turn < len(groups)), of_rows, passes


def _padded_tokens(lengths: Sequence[int]) -> int:
    """Tokens of rows of these lengths, padded to the longest."""
    return len(lengths) * max(lengths)


@torch.no_grad()
def margins_of(objective: Objective, outputs: TextOutputs, n: int) -> NDArray[np.float32]:
    """logit P(chosen ≻ rejected), [n], from the outputs of n chosen texts and then of n rejected ones."""
    chosen, rejected = objective.readout(outputs.rows(slice(2 * n))).chunk(2)
    margins: NDArray[np.float32] = objective.logit(chosen, rejected).cpu().numpy()
    return margins
