"""Rewriting of close pairs, so that their two responses say different things (docs/method.md, step 4).

The rejected response is rewritten first (still plausible, still worse). If no sample increases the pair's
distance, the chosen response is rewritten (still better). If that fails too, the pair stays as it is. Samples
of a side are asked for in two waves, and the second is skipped if the first was successful. A request that
failed is sent once more before its side counts as tried.

A sample must pass the guards of every generated text, must not repeat the other response or the prompt, must
increase the pair's distance, must be as relevant to the prompt as the responses are, and must not flip the
pair's order under the current reward model. Of these samples the one is taken whose relevance to the prompt
is closest to that of the responses: the farthest would often be nonsense, and the most relevant an echo of
the prompt.

A pair proceeds as soon as its own answers have arrived, and its result depends on these alone.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from mars_core.config import Configuration
from mars_core.data.dialogue import last_user_turn
from mars_core.errors import MarsError
from mars_core.generation import Answer, Generator, Request, Role
from mars_core.generation.generator import Arrived
from mars_core.method.guards import Guards, Reason, Sample, flips_order, folded, is_copy, overlap

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
    """Samples asked for at first; the others follow only if none of these is farther than the original."""


SIDES: tuple[Side, ...] = ("rejected", "chosen")
OF_GOOD_TEXTS: tuple[Reason, ...] = ("not farther", "beside the prompt", "order flipped", "surplus")
"""Reasons not to use a text that passed the guards."""
ECHO = 0.8
"""Share of words in common with the prompt above which a text counts as a copy of the prompt."""
FEW_PAIRS = 5
"""So few pairs may all lack a usable rewrite by chance; with more, the generator is to blame."""
COLUMNS = {
    "pair_id": "str",
    "rewritten": "str",
    "chosen": "str",
    "rejected": "str",
    "distance_before": "float32",
    "distance_after": "float32",
    "relevance": "float32",
    "attempts": "int64",
    "request": "str",
    "tokens": "int64",
}
"""Columns of the rewrites and their types; a round without close pairs has them too."""


@dataclass
class Rewrite:
    """A close pair: its current responses, and what was tried."""

    pair_id: str
    prompt: str
    chosen: str
    rejected: str
    distance_before: float
    distance_after: float
    readout_chosen: NDArray[np.float32]
    """[q] readout of the original chosen response by the current reward model."""
    readout_rejected: NDArray[np.float32]
    rewritten: Literal["rejected", "chosen", "none"] = "none"
    relevance: float = np.nan
    """Cosine similarity of the rewrite to the prompt's last user turn."""
    request: str = ""
    attempts: int = 0
    refused: Side | None = None
    """The last side for which the generator refused the request; it is not asked again."""
    sent_again: bool = False
    """Whether the request in flight failed before."""
    tokens: int = 0
    """Tokens read and written for the answers about it, stored ones included."""

    def other(self, side: Side) -> str:
        """The response that is not rewritten."""
        return self.chosen if side == "rejected" else self.rejected


class Wave(NamedTuple):
    """Samples of one side that are asked for at once."""

    side: Side
    draw: int
    samples: int


def rewrite(
    close_pairs: Sequence[Rewrite],
    generator: Generator,
    guards: Guards,
    config: RewritingConfig,
    on_answer: Callable[[], object] | None = None,
) -> pd.DataFrame:
    """Rewrite close pairs that have a budget.

    Args:
        close_pairs: the pairs; they are changed.
        generator: writes the rewrites.
        guards: judge them, also by the current reward model.
        config: how many samples, in which waves.
        on_answer: called once for every request that is answered.

    Returns:
        Columns pair_id, rewritten (rejected, chosen or none), chosen, rejected, distance_before,
        distance_after, relevance (cosine similarity of a rewrite to its prompt), attempts (samples received),
        request (key of the answer that was taken), tokens (read and written for all answers about the pair).
        A rewritten pair has distance_after > distance_before; any other is unchanged.

    Raises:
        RewritingError: there were samples of more than `FEW_PAIRS` pairs, and the guards dropped all of them.
    """
    waves = _waves(config)

    def take(
        arrived: Sequence[Arrived[tuple[Rewrite, int]]],
    ) -> Iterator[tuple[tuple[Rewrite, int], Request]]:
        going_on = []
        answered = []
        for (pair, number), request, answer in arrived:
            pair.attempts += len(answer.texts)
            pair.tokens += answer.prompt_tokens + answer.completion_tokens
            # A server's failure says nothing about a side, so the other side is not rewritten instead.
            pair.sent_again = answer.error is not None and not answer.refused and not pair.sent_again
            if answer.refused:
                pair.refused = waves[number].side
            going_on.append((pair, number if pair.sent_again else number + 1))
            answered.append((pair, request, answer))
        _judge(answered, guards)
        for pair, number in going_on:
            yield from onward(pair, number)

    def onward(pair: Rewrite, number: int) -> Iterator[tuple[tuple[Rewrite, int], Request]]:
        """The request of a pair's next wave, if there is one."""
        if pair.rewritten == "none":
            for later, wave in enumerate(waves[number:], number):
                if pair.refused != wave.side:
                    responses = pair.chosen, pair.rejected
                    request = Request(ROLES[wave.side], pair.prompt, *responses, wave.samples, wave.draw)
                    yield (pair, later), request
                    return

    # The longest first, so that the servers do not wait for them and their further waves at the end.
    longest_first = sorted(close_pairs, key=lambda pair: -max(len(pair.chosen), len(pair.rejected)))
    first = [asked for pair in longest_first for asked in onward(pair, 0)]
    generator.converse(first, take, on_answer)
    _check(close_pairs, generator, guards)
    return pd.DataFrame([vars(pair) for pair in close_pairs], columns=list(COLUMNS)).astype(COLUMNS)


def _waves(config: RewritingConfig) -> list[Wave]:
    """The waves of a pair, one after the other, until it is rewritten."""
    first = min(config.first_wave, config.tries)
    sizes = [samples for samples in (first, config.tries - first) if samples]
    return [Wave(side, draw, samples) for side in SIDES for draw, samples in enumerate(sizes)]


def _check(close_pairs: Sequence[Rewrite], generator: Generator, guards: Guards) -> None:
    """End a run whose generator writes no usable text.

    Raises:
        RewritingError: see `rewrite`.
    """
    attempts = sum(pair.attempts for pair in close_pairs)
    unfit = guards.dropped.total() - sum(guards.dropped[reason] for reason in OF_GOOD_TEXTS)
    if attempts and unfit == attempts:
        nothing = (
            f"{generator.backend.name} gave no usable rewrite of {len(close_pairs)} close pairs: "
            f"{guards.reasons()}"
        )
        if len(close_pairs) > FEW_PAIRS:
            raise RewritingError(
                f"{nothing}; look at its texts in the store of generations, loosen the guards that "
                "dropped them, or set rewriting.enabled=false"
            )
        logger.warning("%s; they stay as they are", nothing)


class Candidate(NamedTuple):
    """A usable rewrite of one side of a pair, farther from the other response than the original is."""

    pair: Rewrite
    side: Side
    sample: Sample
    distance: float
    relevance: float
    unlike: float
    """The difference between its relevance and that of the more relevant response of the pair."""


def _judge(answered: Sequence[tuple[Rewrite, Request, Answer]], guards: Guards) -> None:
    """Give every pair the usable rewrite whose relevance is closest to that of its responses."""
    samples: list[tuple[Rewrite, Side, Sample]] = []
    for pair, request, answer in answered:
        side: Side = "rejected" if request.role == ROLES["rejected"] else "chosen"
        for sample in guards.samples(pair.pair_id, request, answer):
            asked = last_user_turn(pair.prompt)
            if folded(sample.text) == folded(pair.other(side)):
                guards.drop("not distinct", sample)
            elif is_copy(sample.text, asked, ECHO):
                guards.drop("copy", sample, overlap(sample.text, asked))
            else:
                samples.append((pair, side, sample))
    best: dict[str, Candidate] = {}
    for candidate in _in_order(_relevant(_farther(samples, guards), guards), guards):
        of_pair = [candidate, *filter(None, [best.pop(candidate.pair.pair_id, None)])]
        of_pair.sort(key=lambda one: (one.unlike, one.sample.text))
        best[candidate.pair.pair_id] = of_pair[0]
        for other in of_pair[1:]:
            guards.drop("surplus", other.sample)
    for pair, side, sample, distance, relevance, _ in best.values():
        setattr(pair, side, sample.text)
        pair.rewritten, pair.request = side, sample.key
        pair.distance_after, pair.relevance = distance, relevance


def _farther(samples: Sequence[tuple[Rewrite, Side, Sample]], guards: Guards) -> list[Candidate]:
    """The samples that are farther from the other response than the original is."""
    if not samples:
        return []
    distances = guards.distances(
        [sample.text for _, _, sample in samples], [pair.other(side) for pair, side, _ in samples]
    )
    farther = []
    for (pair, side, sample), distance in zip(samples, distances, strict=True):
        if distance > np.float32(pair.distance_before):
            farther.append(Candidate(pair, side, sample, float(distance), np.nan, np.nan))
        else:
            guards.drop("not farther", sample, float(distance))
    return farther


def _relevant(candidates: Sequence[Candidate], guards: Guards) -> list[Candidate]:
    """The candidates that are as relevant to the prompt as the responses are; the others are counted."""
    if not candidates:
        return []
    prompts = [last_user_turn(candidate.pair.prompt) for candidate in candidates]
    texts = (
        [candidate.sample.text for candidate in candidates],
        [candidate.pair.chosen for candidate in candidates],
        [candidate.pair.rejected for candidate in candidates],
    )
    new, *originals = (1 - guards.distances(of_candidates, prompts) for of_candidates in texts)
    of_responses = np.maximum(*originals)
    kept = []
    for candidate, relevance, usual in zip(candidates, new.tolist(), of_responses.tolist(), strict=True):
        if relevance < usual - guards.config.relevance_tolerance:
            guards.drop("beside the prompt", candidate.sample, relevance)
        else:
            kept.append(candidate._replace(relevance=relevance, unlike=abs(relevance - usual)))
    return kept


def _in_order(candidates: Sequence[Candidate], guards: Guards) -> list[Candidate]:
    """The candidates that do not flip the order of their pair; the others are counted."""
    if not candidates:
        return []
    chosen = np.stack([candidate.pair.readout_chosen for candidate in candidates])
    rejected = np.stack([candidate.pair.readout_rejected for candidate in candidates])
    new = guards.readouts(
        [candidate.pair.prompt for candidate in candidates],
        [candidate.sample.text for candidate in candidates],
    )
    of_chosen = np.array([candidate.side == "chosen" for candidate in candidates])[:, None]
    before = guards.judge.margins(chosen, rejected)
    after = guards.judge.margins(np.where(of_chosen, new, chosen), np.where(of_chosen, rejected, new))
    kept = []
    for candidate, flips, margin in zip(
        candidates, flips_order(before, after, guards.config.order_tolerance), after.tolist(), strict=True
    ):
        if flips:
            guards.drop("order flipped", candidate.sample, margin)
        else:
            kept.append(candidate)
    return kept
