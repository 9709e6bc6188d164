"""13. Words of both responses deleted, as many as leave the meaning near enough."""

import re
from collections.abc import Sequence

from mars_core.evaluation.code_in_texts import has_code
from mars_core.evaluation.transforms.transform import (
    Models,
    Pair,
    Transform,
    drawn_from,
    with_responses,
)

SHARES = (0.3, 0.2, 0.1)
"""Shares of the words that are tried, the greatest first."""
MIN_WORDS = 10
"""Least words of a text: each word of a shorter one may be what was asked for."""
MIN_SIMILARITY = 0.7
"""Least cosine similarity to the whole text."""
_WORD = re.compile(r"\s*(?<![\w'’-])[^\W\d_]+(?:['’][^\W\d_]+)?(?![\w'’.-])")
_KEPT = re.compile(r"no|not|nor|never|none|nobody|nothing|without|cannot|\w+n['’]t")
"""Words without which a sentence says the contrary."""


class DeletedWords(Transform):
    """Words left out while the meaning stays near: no name, no number, no negation. Not in code."""

    changes = "responses"
    needs = "embedder"

    def apply(self, pairs: Sequence[Pair], models: Models) -> list[Pair | None]:
        """See `Transform.apply`."""
        texts = dict.fromkeys(text for pair in pairs for text in (pair.chosen, pair.rejected))
        shorter = [
            (text, after)
            for text in texts
            if not has_code(text)
            for share in SHARES
            if (after := without_words(text, share)) is not None
        ]
        similar = models.similarities([after for _, after in shorter], [text for text, _ in shorter])
        shortest: dict[str, str] = {}
        for (text, after), similarity in zip(shorter, similar, strict=True):
            if similarity >= MIN_SIMILARITY:
                shortest.setdefault(text, after)
        return [
            with_responses(pair, shortest.get(pair.chosen), shortest.get(pair.rejected)) for pair in pairs
        ]


def without_words(text: str, share: float) -> str | None:
    """A text without a share of its words, those of a smaller share among them; none if it is too short."""
    words = [word for word in _WORD.finditer(text) if _may_go(word[0].strip())]
    if len(words) < MIN_WORDS:
        return None
    order = drawn_from(text).sample(words, len(words))
    for word in sorted(order[: round(share * len(words))], key=lambda found: found.start(), reverse=True):
        text = text[: word.start()] + text[word.end() :]
    return text


def _may_go(word: str) -> bool:
    return word[0].islower() and not _KEPT.fullmatch(word)
