"""Rewrites by rule, which move one response of a close pair away from the other (METHOD step 4).

The rejected response becomes worse in harmless ways: it keeps the sentences that share least with
the chosen one and goes on in vague talk beside the point. The chosen response becomes better
ordered: it says what was asked in the prompt's own words, numbers its points and sums them up.
Words come from the three texts and from the stock below alone, so that nothing harmful is added.
"""

import re
from collections.abc import Callable, Set
from random import Random

from mars_core.generation.interface import Request, last_user_turn
from mars_core.generation.lexicon import FUNCTION_WORDS
from mars_core.generation.sentences import masked, sentences

VAGUE = (
    "It depends on a lot of things, and everybody sees it a little differently.",
    "There is probably more than one way to look at it.",
    "I have heard different opinions about that over the years.",
    "Some people care a lot about this kind of thing, and others hardly think about it.",
    "It is hard to say anything general here.",
    "I'd have to think about it some more before saying anything definite.",
    "Maybe a friend or somebody in your family has an opinion.",
    "There are whole books and websites about that sort of thing.",
    "It also depends on the time of year and on where you live.",
    "Anyway, I think every day brings something new to learn.",
    "I suppose it was different in the old days.",
    "You could always come back to this another time.",
    "What matters in the end is how you feel about it.",
    "By the way, how has your day been so far?",
    "Is there a particular reason that you bring this up today?",
    "Conversations like this one remind me how many topics there are in the world.",
    "I don't remember the details, to be honest.",
    "Most of it will become clear with time.",
    "I'd rather not go into every detail at this point.",
    "Somebody with more experience could say more than I can.",
)
ASIDES = (
    'A word like "{topic}" means different things to different people.',
    'Much has been said about "{topic}" already, I believe.',
    'There is a lot one might add on "{topic}" in general.',
    'When it comes to "{topic}", I am not the one to ask.',
    'That reminds me that "{topic}" has come up before.',
)
HEDGES = (
    "I'm not sure, but maybe this:",
    "I could be wrong about that.",
    "Only roughly speaking, of course.",
    "Don't take my word for it.",
    "At least that is what I seem to remember.",
)
GOALS = (
    "You asked about this: {goal}",
    "Let me go through your question step by step: {goal}",
    "To begin with what you want to know: {goal}",
    "Here is what I take your request to be: {goal}",
    "The question before us: {goal}",
)
TOPICS = (
    "Your message is about {topics}, so I will keep to that.",
    "The points that matter here: {topics}.",
    "This is about {topics}, one point at a time.",
)
SUMMARIES = ("To sum up: {point}", "The main point again: {point}", "In one sentence: {point}")

_WORD = re.compile(r"[A-Za-z][a-z]{3,}")
_COMMON = frozenset(
    """about after again anything away back been before best better come doing don't each else ever find
    first from give going good have having help here into keep know known later less like likely little
    look made make making might more much must need never next only other over please probably really right
    said same say seem several should show something still such sure take tell than thank thanks them
    thing things think those through today told under until upon used using very want wanted well were
    whether will without work would wouldn't yours""".split()
)
_GOAL_CHARACTERS = 300
_MOST_NUMBERED = 10


def rewritten_rejected(request: Request, seed: str) -> list[str]:
    """Up to `n` worse versions of the rejected response, none of them the response itself."""
    away = _content_words(request.chosen)
    points = _points(request.rejected)
    kept_first = sorted(points, key=lambda point: _overlap(point, away))
    topics = _topics(request.prompt, without=away) or _topics(request.prompt)

    def rewrite(rng: Random) -> str:
        kept = set(kept_first[: max(1, round(rng.choice((0.2, 0.35, 0.5)) * len(kept_first)))])
        parts = [sentence for sentence in points if sentence in kept]
        if rng.random() < 0.5:
            parts.insert(rng.randrange(2), rng.choice(HEDGES))
        parts += rng.sample(VAGUE, rng.choice((1, 2, 3)))
        if topics and rng.random() < 0.6:
            parts.insert(rng.randrange(1, len(parts) + 1), rng.choice(ASIDES).format(topic=rng.choice(topics)))
        return ("\n" if "\n" in request.rejected.strip() else " ").join(parts)

    return _distinct(rewrite, request, seed)


def rewritten_chosen(request: Request, seed: str) -> list[str]:
    """Up to `n` better ordered versions of the chosen response, none of them the response itself."""
    away = _content_words(request.rejected)
    points = _points(request.chosen)
    goal = " ".join(last_user_turn(request.prompt).split())
    topics = _topics(request.prompt, without=away) or _topics(request.prompt)

    def rewrite(rng: Random) -> str:
        parts = [request.chosen.strip()]
        if 2 <= len(points) <= _MOST_NUMBERED and "\n" not in parts[0] and rng.random() < 0.6:
            parts = ["\n".join(f"{number}. {point}" for number, point in enumerate(points, 1))]
        if goal and len(goal) <= _GOAL_CHARACTERS and rng.random() < 0.8:
            parts.insert(0, rng.choice(GOALS).format(goal=goal))
        elif topics:
            parts.insert(0, rng.choice(TOPICS).format(topics=", ".join(topics[:4])))
        if points and (len(parts) == 1 or rng.random() < 0.5):
            point = min(points, key=lambda point: _overlap(point, away))
            parts.append(rng.choice(SUMMARIES).format(point=point))
        return "\n\n".join(parts)

    return _distinct(rewrite, request, seed)


def _distinct(rewrite: Callable[[Random], str], request: Request, seed: str) -> list[str]:
    """Call `rewrite` with a generator of its own for each attempt until `n` different texts are there."""
    if not request.text.strip():
        return []
    found: dict[str, None] = {}
    for attempt in range(4 * request.n):
        text = rewrite(Random(f"{seed} {request.draw} {attempt}")).strip()
        if text != request.text.strip() and len(found) < request.n:
            found[text] = None
    return list(found)


def _points(text: str) -> list[str]:
    """The sentences and list items of a text; a code block is one."""
    return [sentence.strip() for sentence in sentences(text) if sentence.strip()]


def _content_words(text: str) -> set[str]:
    words = {word.lower() for word in _WORD.findall(masked(text))}
    return words - FUNCTION_WORDS - _COMMON


def _overlap(point: str, words: set[str]) -> float:
    """Share of a sentence's content words that are among `words`; 1 without any, for it says nothing new."""
    own = _content_words(point)
    return len(own & words) / len(own) if own else 1.0


def _topics(prompt: str, without: Set[str] = frozenset()) -> list[str]:
    """Content words of the prompt's last user turn, longest first."""
    words = _content_words(last_user_turn(prompt)) - without
    return sorted(words, key=lambda word: (-len(word), word))
