"""Paraphrases by rule: a random part of the edits that a text allows.

Openers and closers are a last resort, for texts with hardly a word to change.
"""

import re
from collections.abc import Iterator
from itertools import chain, product
from random import Random

from mars_core.generation.rule_based.edits import Edit, conditions_last, edits
from mars_core.generation.rule_based.lexicon import FUNCTION_WORDS, WORDS
from mars_core.generation.rule_based.sentences import masked

_REORDERED_SHARE = 0.35
_EDITED_SHARE = (0.3, 0.75)
_TRIES_A_VARIANT = 6


def paraphrases(text: str, n: int, seed: str, draw: int, *, of_prompt: bool) -> list[str]:
    """Up to `n` wordings of a text that differ from it in a word, and from one another; blank text has none.

    The same arguments give the same wordings on every machine. Another `draw` gives other ones as
    far as the text has them.
    """
    text = text.strip()
    if not text:
        return []
    reordered = conditions_last(text)
    bases = [(base, edits(base, of_prompt=of_prompt)) for base in (text, reordered)]

    def reworded(rng: Random) -> str:
        wording, possible = bases[rng.random() < _REORDERED_SHARE]
        share = rng.uniform(*_EDITED_SHARE)
        chosen: list[Edit] = []
        for edit in [edit for edit in possible if rng.random() < share] or possible[:1]:
            if not chosen or edit.start >= chosen[-1].end:
                chosen.append(edit)
            elif rng.random() < 0.5:
                chosen[-1] = edit
        for edit in reversed(chosen):
            wording = wording[: edit.start] + rng.choice(edit.options) + wording[edit.end :]
        return wording

    candidates = chain(
        (reworded(Random(f"{seed} {draw} {attempt}")) for attempt in range(_TRIES_A_VARIANT * n)),
        _decorated(text, Random(seed), start=draw * n, of_prompt=of_prompt),
    )
    found: dict[str, None] = {}
    for candidate in candidates:
        if _words(candidate) != _words(text):
            found[candidate] = None
        if len(found) == n:
            break
    return list(found)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _decorated(text: str, rng: Random, start: int, *, of_prompt: bool) -> Iterator[str]:
    """The text with an opener or a closer, then with both, in random order, from the `start`-th on."""
    openers, closers = list(WORDS["response_openers"]), list(WORDS["response_closers"])
    if of_prompt:
        openers, closers = list(WORDS["prompt_openers"]), list(WORDS["prompt_closers"])
        openers += WORDS["question_openers"] if text.endswith("?") else ()
    if text.split(maxsplit=1)[0].lower() in FUNCTION_WORDS:
        openers += WORDS["comma_openers"]
    one = [(opener, "") for opener in openers] + [("", closer) for closer in closers]
    both = list(product(openers, closers))
    rng.shuffle(one)
    rng.shuffle(both)
    ways = one + both
    for place in range(start, start + len(ways)):
        opener, closer = ways[place % len(ways)]
        yield _opened(_closed(text, closer), opener)


def _opened(text: str, opener: str) -> str:
    if opener.endswith(", "):
        is_i = re.match(r"I\b", text) is not None
        return opener + (text if is_i else text[0].lower() + text[1:])
    if opener and ("\n" in text or masked(text)[0] == "\0"):
        return f"{opener.strip()}\n\n{text}"
    return opener + text


def _closed(text: str, closer: str) -> str:
    if closer and ("\n" in text or masked(text)[-1] == "\0"):
        return f"{text}\n\n{closer.strip()}"
    return text + "." + closer if closer and text[-1].isalnum() else text + closer
