"""Rewards that agree along a response (ICRM, arXiv 2506.09096); for decoders."""

from typing import Annotated

import torch
from pydantic import Field

from mars_core.config import ByContent
from mars_core.objectives.bradley_terry import BradleyTerry
from mars_core.objectives.objective import PairOutputs, TextOutputs


class TrajectoryConsistency(BradleyTerry):
    """(1 − w)·Bradley–Terry + w·(mean alignment of rewards at neighbouring tokens, of both responses).

    With h_t the reward at token t of a response and H the mean of the other one's, which gets no gradient,
    d_t is σ(h_t − H) in the chosen and σ(H − h_t) in the rejected response. Neighbours align by s_t =
    −½[ln d_t · sg d_{t+1} + sg d_t · ln d_{t+1}], where sg stops the gradient. A response's alignment is the
    mean of its s_t, weighted by the probability of token t + 1 under a language model. The published code
    divides the weights by their running mean, which would make a pair's loss depend on the pairs before it.
    The reward of a text is that of its last token; to score it needs no language model.
    """

    class Config(BradleyTerry.Config):
        """The language model, and the share of the alignment."""

        language_model: Annotated[str, ByContent()]
        """The causal model that says how likely the next token is, with the reward model's vocabulary: a
        folder, package://NAME, or hub/name@revision."""
        share: float = Field(0.1, ge=0, le=1)
        """w, the share of the alignment in the loss."""

    config: Config
    losses_read = frozenset({"token_outputs", "log_probabilities"})

    @property
    def language_model(self) -> str:
        """As configured."""
        return self.config.language_model

    def losses(self, pairs: PairOutputs) -> torch.Tensor:
        """ℓ of each pair."""
        (chosen, of_chosen), (rejected, of_rejected) = map(_rewards, (pairs.chosen, pairs.rejected))
        above = chosen - _mean(rejected, of_rejected).detach()[:, None]
        below = _mean(chosen, of_chosen).detach()[:, None] - rejected
        aligned = _alignment(above, of_chosen, pairs.chosen) + _alignment(below, of_rejected, pairs.rejected)
        share = self.config.share
        return (1 - share) * super().losses(pairs) + share * aligned / 2

    def curvature(self, margins: torch.Tensor) -> torch.Tensor | None:
        """Not defined: the loss depends on the rewards of all tokens."""
        return None


def _rewards(texts: TextOutputs) -> tuple[torch.Tensor, torch.Tensor]:
    """h, [m, T], and which tokens are the response's, [m, T]."""
    assert texts.token_outputs is not None
    assert texts.prompt_tokens is not None
    assert texts.tokens is not None
    rewards = texts.token_outputs.squeeze(-1)
    place = torch.arange(rewards.shape[1], device=rewards.device)
    return rewards, (place >= texts.prompt_tokens[:, None]) & (place < texts.tokens[:, None])


def _mean(numbers: torch.Tensor, some: torch.Tensor) -> torch.Tensor:
    return (numbers * some).sum(1) / some.sum(1).clamp(min=1)


def _alignment(logits: torch.Tensor, response: torch.Tensor, texts: TextOutputs) -> torch.Tensor:
    """The weighted mean of s_t, [m], from the logits of d_t, [m, T]; 0 of a response of one token."""
    assert texts.log_probabilities is not None
    log_d = torch.nn.functional.logsigmoid(logits)
    d = log_d.exp().detach()
    s = -(log_d[:, :-1] * d[:, 1:] + d[:, :-1] * log_d[:, 1:]) / 2
    weights = texts.log_probabilities[:, 1:].exp() * (response[:, :-1] & response[:, 1:])
    return (weights * s).sum(1) / weights.sum(1).clamp(min=torch.finfo(s.dtype).tiny)
