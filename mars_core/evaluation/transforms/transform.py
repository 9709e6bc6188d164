"""A transform: a change of a pair that keeps which response is better.

    evaluation: {robustness: {rows: 100, transforms: [ignore_above, homoglyphs, my_module:Shout]}}

It changes the prompt, or both responses alike, and says which. What it makes of a text follows from the text
alone, so that runs, rounds and models are measured on the same changed texts. The name of a file beside this
one, or `module:attribute` of a class of one's own, is all that makes it known. docs/robustness.md shows rows
of each, before and after.
"""

import re
import string
from abc import abstractmethod
from collections.abc import Callable, Sequence
from random import Random
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mars_core.data.dialogue import last_user_turn, with_last_user_turn
from mars_core.evaluation.code_in_texts import has_code
from mars_core.extensions import ExtensionPoint, Plugin
from mars_core.generation import Answer, Request

NOISY_SHARE = 0.1
"""Share of the words that noise changes; at least one."""
NOISY_WORDS = 5
"""Least words of a text with noise: of a shorter one the word may be the whole answer."""
_WORD = re.compile(r"[^\W\d_]{4,}")
"""A word that is still read when one of its letters is wrong; never a number."""


class Pair(NamedTuple):
    """A prompt with its chosen and its rejected response."""

    prompt: str
    chosen: str
    rejected: str


class Models(Protocol):
    """The models that some transforms work with."""

    def similarities(self, texts: Sequence[str], others: Sequence[str]) -> NDArray[np.float32]:
        """Cosine similarities of the meanings of aligned texts: [n], [n] → [n]."""

    def answers(self, requests: Sequence[Request]) -> list[Answer]:
        """The generator's answers, which are stored; one that failed has no texts."""

    def paraphrases(self, requests: Sequence[Request], answers: Sequence[Answer]) -> list[str | None]:
        """The first text of each answer that passes the guards as a paraphrase of what was asked about."""


class Transform(Plugin):
    """A change of pairs that keeps their ranking."""

    changes: ClassVar[Literal["prompt", "responses"]]
    """What it changes."""
    needs: ClassVar[Literal["embedder", "generator", "chat"] | None] = None
    """The model that it works with: `generator` is any backend, `chat` one that follows instructions."""

    @abstractmethod
    def apply(self, pairs: Sequence[Pair], models: Models) -> list[Pair | None]:
        """Each pair as it is afterwards; none where the transform does not apply."""


class TextTransform(Transform):
    """A transform that looks at one text at a time and needs no model."""

    @abstractmethod
    def change(self, text: str) -> str | None:
        """The last user turn of a prompt, or a response, as it is afterwards.

        None where the transform does not apply, such as one of code to prose.
        """

    def apply(self, pairs: Sequence[Pair], models: Models) -> list[Pair | None]:
        """See `Transform.apply`."""
        return [
            with_prompt(pair, self.change(last_user_turn(pair.prompt)))
            if self.changes == "prompt"
            else with_responses(pair, self.change(pair.chosen), self.change(pair.rejected))
            for pair in pairs
        ]


TRANSFORMS: ExtensionPoint[Transform] = ExtensionPoint("transform", Transform)  # type: ignore[type-abstract]


def with_prompt(pair: Pair, turn: str | None) -> Pair | None:
    """A pair with another last user turn; none if there is no new turn, or it begins yet another one."""
    if turn is None:
        return None
    try:
        return pair._replace(prompt=with_last_user_turn(pair.prompt, turn))
    except ValueError:
        return None


def with_responses(pair: Pair, chosen: str | None, rejected: str | None) -> Pair | None:
    """A pair with two other responses; none if one of them is missing."""
    if chosen is None or rejected is None:
        return None
    return pair._replace(chosen=chosen, rejected=rejected)


def drawn_from(text: str) -> Random:
    """Random numbers that follow from a text."""
    return Random(text)


def name_for(text: str) -> str:
    """Eight letters and digits that follow from a text and mean nothing."""
    return "".join(drawn_from(text).choices(string.ascii_letters + string.digits, k=8))


def with_noise(text: str, change: Callable[[str, Random], str]) -> str | None:
    """Change a tenth of the words of four letters and more, at least one; numbers stay as they are.

    Args:
        text: the text.
        change: gives a word with the noise in it.

    Returns:
        The text; none if it has too few such words, or code, which noise would break.
    """
    words = list(_WORD.finditer(text))
    if len(words) < NOISY_WORDS or has_code(text):
        return None
    random = drawn_from(text)
    changed = [(word, noisy) for word in words if (noisy := change(word[0], random)) != word[0]]
    noisy_words = random.sample(changed, min(len(changed), max(1, round(NOISY_SHARE * len(words)))))
    for word, noisy in sorted(noisy_words, key=lambda found: found[0].start(), reverse=True):
        text = text[: word.start()] + noisy + text[word.end() :]
    return text
