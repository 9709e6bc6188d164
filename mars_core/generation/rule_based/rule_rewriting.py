"""Rewrites by rule: semantic refinement, which moves one response of a close pair away from the other.

The rejected response becomes worse in harmless ways: it keeps the sentences that share least with
the chosen one and goes on in vague talk beside the point. The chosen response becomes better
ordered: it says what was asked in the prompt's own words, numbers its points and sums them up.
Words come from the three texts and from `rules.yaml` alone, so that nothing harmful is added.
"""

import re
from collections.abc import Callable, Set
from random import Random

from mars_core.data.dialogue import last_user_turn
from mars_core.generation.interface import Request
from mars_core.generation.rule_based.lexicon import FUNCTION_WORDS, WORDS
from mars_core.generation.rule_based.sentences import masked, sentences

_WORD = re.compile(r"[A-Za-z][a-z]{3,}")
_COMMON = frozenset(WORDS["common_words"].split())
_LONGEST_GOAL = 300  # characters
_MOST_NUMBERED = 10
_TRIES_A_SAMPLE = 8


def rewritten_rejected(request: Request, seed: str) -> list[str]:
    """Up to `n` worse versions of the rejected response, none of them the response itself."""
    of_chosen = _content_words(request.chosen)
    points = _points(request.rejected)
    least_shared_first = sorted(points, key=lambda point: _overlap(point, of_chosen))
    topics = _topics(request.prompt, without=of_chosen)
    separator = "\n" if "\n" in request.rejected.strip() else " "

    def rewrite(rng: Random) -> str:
        kept = least_shared_first[: max(1, round(rng.choice((0.2, 0.35, 0.5)) * len(points)))]
        parts = [point for point in points if point in kept]
        if rng.random() < 0.5:
            parts.insert(rng.randrange(2), rng.choice(WORDS["hedges"]))
        remarks = rng.sample(WORDS["remarks"], rng.choice((1, 2, 3)))
        parts += [rng.choice(WORDS["frames"]).format(remark) for remark in remarks]
        if topics and rng.random() < 0.5:
            parts.insert(
                rng.randrange(1, len(parts) + 1), rng.choice(WORDS["asides"]).format(topic=rng.choice(topics))
            )
        return separator.join(parts)

    return _different(rewrite, request, seed)


def rewritten_chosen(request: Request, seed: str) -> list[str]:
    """Up to `n` better ordered versions of the chosen response, none of them the response itself."""
    of_rejected = _content_words(request.rejected)
    points = _points(request.chosen)
    statements = [point for point in points if point.endswith(".") and len(point.split()) >= 5]
    goal = " ".join(last_user_turn(request.prompt).split())
    topics = _topics(request.prompt, without=of_rejected)

    def rewrite(rng: Random) -> str:
        parts = [request.chosen.strip()]
        if 2 <= len(points) <= _MOST_NUMBERED and "\n" not in parts[0] and rng.random() < 0.6:
            parts = ["\n".join(f"{number}. {point}" for number, point in enumerate(points, 1))]
        if 0 < len(goal) <= _LONGEST_GOAL and rng.random() < 0.8:
            parts.insert(0, rng.choice(WORDS["goals"]).format(goal=goal))
        elif topics:
            named = rng.sample(topics, min(4, len(topics)))
            parts.insert(0, rng.choice(WORDS["topics"]).format(topics=", ".join(named)))
        if statements and (len(parts) == 1 or rng.random() < 0.5):
            point = min(statements, key=lambda point: _overlap(point, of_rejected))
            parts.append(rng.choice(WORDS["summaries"]).format(point=point))
        return "\n\n".join(parts)

    return _different(rewrite, request, seed)


def _different(rewrite: Callable[[Random], str], request: Request, seed: str) -> list[str]:
    """Call `rewrite` with a random generator for each try until `n` different texts are there."""
    found: dict[str, None] = {}
    for attempt in range(_TRIES_A_SAMPLE * request.n if request.text.strip() else 0):
        text = rewrite(Random(f"{seed} {request.draw} {attempt}"))
        if text != request.text.strip():
            found[text] = None
        if len(found) == request.n:
            break
    return list(found)


def _points(text: str) -> list[str]:
    """The sentences and list items of a text; a code block is one."""
    return [sentence.strip() for sentence in sentences(text) if sentence.strip()]


def _content_words(text: str) -> set[str]:
    words = {word.lower() for word in _WORD.findall(masked(text))}
    return words - FUNCTION_WORDS - _COMMON


def _overlap(point: str, words: Set[str]) -> float:
    """Share of a sentence's content words that are among `words`; 1 without any, for it says nothing new."""
    own = _content_words(point)
    return len(own & words) / len(own) if own else 1.0


def _topics(prompt: str, without: Set[str]) -> list[str]:
    """Content words of the prompt's last user turn, longest first; all of them if the other text has all."""
    words = _content_words(last_user_turn(prompt))
    return sorted(words - without or words, key=lambda word: (-len(word), word))
