"""The jury of a retraining: pairs that are held out for ever, and decide at the gate.

Deliveries come from others, so they must not choose their judges. Whether the pairs of a prompt are held out
depends on what the prompt means and on a secret of the retraining; prompts that a ledger of an earlier
version has divided stay where they are. One delivery makes at most half of the jury. A pair that repeats one
of the jury, exactly or nearly, is never trained on.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from mars_core.data.accepted import Accepted
from mars_core.data.identity import VERSION, meaning, pair_identity, prompt_place
from mars_core.data.pairs import prompt_position
from mars_core.evaluation.contamination import WORDS, contaminating, words_of
from tasks.retraining.ledger import Ledger


class Divided(NamedTuple):
    """The accepted pairs of a delivery that no earlier one holds."""

    train: Dataset
    held: Dataset
    """In the order in which they are taken for the jury."""


class Division:
    """Divides the accepted pairs of deliveries, one after the other.

    Deliveries that a person has readmitted may hold the same pair, or the same one exchanged: the first
    counts.
    """

    def __init__(self, ledger: Ledger, share: float) -> None:
        """`share` is that of all prompts that is held out."""
        self._salt, self._share = ledger.secret(), share
        self._before = _places_before(ledger.all_accepted())
        self._known = set[str]()

    def divide(self, accepted: Accepted) -> Divided:
        """The pairs of a delivery."""
        table = accepted.table()
        places = np.array([self._place(prompt) for prompt in table["prompt"]])
        new = np.array([self._is_new(row) for row in table])
        held = new & (places < self._share)
        in_order = np.flatnonzero(held)[np.argsort(places[held], kind="stable")]
        return Divided(table.select(np.flatnonzero(new & ~held)), table.select(in_order))

    def _is_new(self, pair: Mapping[str, Any]) -> bool:
        new = pair["pair_id"] not in self._known
        self._known.add(pair["pair_id"])
        self._known.add(pair_identity(pair["prompt"], pair["rejected"], pair["chosen"]))
        return new

    def _place(self, prompt: str) -> float:
        before = self._before.get(meaning(prompt))
        return prompt_place(prompt, self._salt) if before is None else before


def balanced(held: Sequence[Dataset], beside: int) -> list[Dataset]:
    """The held-out pairs of deliveries, of which the largest has no more than all others together.

    Args:
        held: of each delivery.
        beside: how many pairs of other origin decide with them.
    """
    parts = [part for part in held if len(part)]
    if not parts:
        return []
    largest = max(range(len(parts)), key=lambda place: len(parts[place]))
    others = beside + sum(map(len, parts)) - len(parts[largest])
    if 0 < others < len(parts[largest]):
        parts[largest] = parts[largest].select(range(others))
    return parts


def without_repetitions(table: Dataset, jury: Sequence[Dataset]) -> Dataset:
    """The pairs of a table that repeat none of the jury.

    A pair repeats another if the other's prompt is in its own, exactly or nearly, as contamination is
    counted; or if its two responses are the other's, in whichever order, and each has some words.
    """
    judges = [row for part in jury for row in part]
    prompts = contaminating([row["prompt"] for row in judges], table["prompt"][:])
    responses = {_responses(row) for row in judges} - {None}
    kept = [row for row, pair in enumerate(table) if not prompts[row] and _responses(pair) not in responses]
    return table.select(kept)


def _responses(pair: Mapping[str, Any]) -> frozenset[str] | None:
    """What both responses of a pair mean, in no order; None if one of them has too few words to tell."""
    both = pair["chosen"], pair["rejected"]
    return None if min(len(words_of(text)) for text in both) < WORDS else frozenset(map(meaning, both))


def _places_before(deliveries: Sequence[Accepted]) -> dict[str, float]:
    """Where an earlier version put prompts, by what they mean; one on both sides was trained on."""
    places = dict[str, float]()
    for accepted in deliveries:
        if accepted.identity < VERSION:
            for prompt in accepted.table()["prompt"]:
                same = meaning(prompt)
                places[same] = max(places.get(same, 0.0), prompt_position(prompt))
    return places
