"""Rewriting of close pairs, so that their two responses say different things (docs/method.md, step 4).

The rejected response is rewritten first (still plausible, still worse); where no try takes the pair's
distance strictly beyond what it was, the chosen one is (still better); where that fails too, the pair
stays. Tries are asked for in two waves over all pairs at once, and a pair that the first wave settled
costs no second one. A request that failed is sent once more before its side counts as tried. Among a pair's
tries the one with the greatest distance that passes its guards wins: besides those of every generated text,
it may not flip the order of the pair by the current reward model.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from mars_core.config import Configuration
from mars_core.errors import MarsError
from mars_core.generation import Generator, Request, Role
from mars_core.method.guards import Guards, flips_order, folded

logger = logging.getLogger(__name__)

Side = Literal["rejected", "chosen"]
ROLES: dict[Side, Role] = {"rejected": "rewrite_rejected", "chosen": "rewrite_chosen"}


class RewritingError(MarsError, RuntimeError):
    """The guards dropped every rewrite; the message counts the reasons."""


class RewritingConfig(Configuration):
    """Whether and how close pairs are rewritten."""

    enabled: bool = True
    """Rewrite close pairs; false augments every pair as it is."""
    tries: int = Field(5, ge=1)
    """Most samples of the rejected, and then of the chosen response of a pair."""
    first_wave: int = Field(2, ge=1)
    """Samples asked for at first; the others only where none of these is farther than the original."""


FEW_PAIRS = 5
"""So many pairs may all be unlucky in their rewrites; of more, it is the generator."""
COLUMNS = {
    "pair_id": "str",
    "rewritten": "str",
    "chosen": "str",
    "rejected": "str",
    "distance_before": "float32",
    "distance_after": "float32",
    "attempts": "int64",
    "request": "str",
    "tokens": "int64",
}
"""Columns of the rewrites and their types, which a round without close pairs has too."""


@dataclass
class Rewrite:
    """A close pair on its way: the responses as they stand, and what was tried."""

    pair_id: str
    prompt: str
    chosen: str
    rejected: str
    distance_before: float
    distance_after: float
    readout_chosen: NDArray[np.float32]
    """[q] of the original response, by the current reward model; so `readout_rejected`."""
    readout_rejected: NDArray[np.float32]
    rewritten: Literal["rejected", "chosen", "none"] = "none"
    request: str = ""
    attempts: int = 0
    refused: Side | None = None
    """The last side of which the generator took no request; none is sent again."""
    tokens: int = 0
    """Tokens in and out of the answers about it, those that were in the store included."""

    def other(self, side: Side) -> str:
        """The response beside the one that is rewritten."""
        return self.chosen if side == "rejected" else self.rejected


class Candidate(NamedTuple):
    """A usable rewrite of one side of a pair, and the request that gave it."""

    pair: Rewrite
    text: str
    request: str


def rewrite(
    close_pairs: Sequence[Rewrite],
    generator: Generator,
    guards: Guards,
    config: RewritingConfig,
    on_answer: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Rewrite close pairs that have a budget.

    Args:
        close_pairs: the pairs; they are changed.
        generator: writes the rewrites.
        guards: judge them, by the current reward model too.
        config: how many tries, in what waves.
        on_answer: called once for every request that is answered.

    Returns:
        Columns pair_id, rewritten (rejected, chosen or none), chosen, rejected, distance_before,
        distance_after, attempts (samples got), request (key of the answer that was taken), tokens (in and out
        of all answers about the pair). A rewritten pair has distance_after > distance_before; any other is
        unchanged.

    Raises:
        RewritingError: of more than `FEW_PAIRS` there were samples, and not one was fit to be looked at by
            the reward model.
    """
    sides: tuple[Side, ...] = ("rejected", "chosen")
    for side in sides:
        for draw, samples in enumerate(
            (min(config.first_wave, config.tries), config.tries - config.first_wave)
        ):
            unsettled = [pair for pair in close_pairs if pair.rewritten == "none" and pair.refused != side]
            if samples > 0 and unsettled:
                _wave(unsettled, side, samples, draw, generator, guards, on_answer)
    attempts = sum(pair.attempts for pair in close_pairs)
    unfit = guards.dropped.total() - guards.dropped["order flipped"]
    if attempts and unfit == attempts:
        nothing = (
            f"{generator.backend.name} gave no usable rewrite of {len(close_pairs)} close pairs: "
            f"{guards.reasons()}"
        )
        if len(close_pairs) > FEW_PAIRS:
            raise RewritingError(
                f"{nothing}; look at its texts in the store of generations, loosen the guards that "
                "dropped them, or leave rewriting out with rewriting.enabled=false"
            )
        logger.warning("%s; they stay as they are", nothing)
    return pd.DataFrame([vars(pair) for pair in close_pairs], columns=list(COLUMNS)).astype(COLUMNS)


def _wave(
    pairs: Sequence[Rewrite],
    side: Side,
    samples: int,
    draw: int,
    generator: Generator,
    guards: Guards,
    on_answer: Callable[[int], None] | None,
) -> None:
    """Ask for `samples` rewrites of one side of every pair; take the farthest where it is farther."""
    role = ROLES[side]
    requests = [Request(role, pair.prompt, pair.chosen, pair.rejected, samples, draw) for pair in pairs]
    answers = generator.generate(requests, on_answer)
    unlucky = [i for i, answer in enumerate(answers) if answer.error is not None and not answer.refused]
    # That a server was in trouble says nothing about a side: the other one is not to be rewritten for it.
    for i, answer in zip(unlucky, generator.generate([requests[i] for i in unlucky]), strict=True):
        answers[i] = answer
    candidates = []
    for pair, request, answer in zip(pairs, requests, answers, strict=True):
        pair.refused = side if answer.refused else pair.refused
        pair.attempts += len(answer.texts)
        pair.tokens += answer.prompt_tokens + answer.completion_tokens
        for text in guards.texts(request, answer):
            if folded(text) == folded(pair.other(side)):
                guards.drop("not distinct")
            else:
                candidates.append(Candidate(pair, text, answer.key))
    for candidate, distance in _in_order(_farther(candidates, side, guards), side, guards):
        pair = candidate.pair
        if distance > pair.distance_after:
            setattr(pair, side, candidate.text)
            pair.rewritten, pair.distance_after, pair.request = side, distance, candidate.request


def _farther(candidates: Sequence[Candidate], side: Side, guards: Guards) -> list[tuple[Candidate, float]]:
    """The candidates that are farther from the other response than the original is, with their distance."""
    if not candidates:
        return []
    distances = guards.distances(
        [candidate.text for candidate in candidates], [candidate.pair.other(side) for candidate in candidates]
    )
    return [
        (candidate, float(distance))
        for candidate, distance in zip(candidates, distances, strict=True)
        if distance > np.float32(candidate.pair.distance_before)
    ]


def _in_order(
    farther: Sequence[tuple[Candidate, float]], side: Side, guards: Guards
) -> list[tuple[Candidate, float]]:
    """Those that do not flip the order of their pair; the others are counted."""
    if not farther:
        return []
    pairs = [candidate.pair for candidate, _ in farther]
    chosen = np.stack([pair.readout_chosen for pair in pairs])
    rejected = np.stack([pair.readout_rejected for pair in pairs])
    new = guards.readouts([pair.prompt for pair in pairs], [candidate.text for candidate, _ in farther])
    before = guards.judge.margins(chosen, rejected)
    after = guards.judge.margins(*((chosen, new) if side == "rejected" else (new, rejected)))
    flipped = flips_order(before, after, guards.config.order_tolerance)
    guards.drop("order flipped", int(flipped.sum()))
    return [found for found, flips in zip(farther, flipped, strict=True) if not flips]
