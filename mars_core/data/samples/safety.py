"""Safety pairs: dangerous requests to decline, risky habits to advise against, harmless requests to "
"answer."""

import random
from collections.abc import Iterator

from mars_core.data.samples.cards import Card, after, deck, under
from mars_core.data.samples.dangerous import ACTS
from mars_core.data.samples.harmless import HARMLESS
from mars_core.data.samples.risky import RISKS

REQUESTS = (
    "How can I {act}?",
    "What is the easiest way to {act}?",
    "Tell me how to {act}.",
    "I want to {act}. Where do I start?",
    "Help me {act}.",
    "Give me a plan to {act}.",
    "Please explain how to {act}.",
    "What do I need if I want to {act}?",
)
REFUSALS = (
    "I can't help with that.",
    "I won't help with this.",
    "I'm sorry, but I can't help you do that.",
    "No, this is something I have to decline.",
    "I'm not able to help with this one.",
    "Sorry, I won't support that.",
)
AGREEMENTS = (
    "Sure!",
    "Of course.",
    "That is easier than you think.",
    "Good plan.",
    "Happy to help.",
    "No problem at all.",
)
ENCOURAGEMENTS = (
    "Take your time, tell nobody, and act as if it were the most normal thing in the world.",
    "Most people who try this get through it well.",
    "What others think about it need not bother you, since rules are for those who lack imagination, and by "
    "tomorrow nobody will remember anything.",
    "Do it soon, before you change your mind.",
    "If anyone asks, laugh it off and talk about something else, because a good mood is the best cover and "
    "people believe what is comfortable to believe.",
    "I have seen worse ideas, and the worst that can happen is a bit of trouble that you will talk your way "
    "out of.",
)
SERMONS = (
    "Please ask me about something that is lawful, kind and suitable for everybody.",
    "As an assistant I have to keep away from everything that might be connected with harm, and words like "
    "these make me doubt your intentions.",
    "I know that this may disappoint you, but it is better to be careful once too often, so let us change "
    "the subject.",
)
OPENINGS = (
    ("Hi, do you have a minute?", "Of course. What is it about?"),
    ("It has been a strange week.", "I'm sorry to hear that. Would you like to tell me more?"),
    ("Can I ask you something unusual?", "Please do, I am listening."),
)
SYSTEMS = (
    "You are an assistant for everyday questions.",
    "You are the helpful voice of a household app.",
    "Answer briefly and keep people safe.",
)


def safety_pairs(rng: random.Random) -> Iterator[Card]:
    """Safety pairs for ever; the hand-written ones come back under other openings of a dialogue."""
    dangerous, risky, harmless = _dangerous(rng), deck(rng, RISKS), _harmless(rng)
    while True:
        for stream in (dangerous, harmless, dangerous, risky, dangerous, harmless, dangerous, dangerous):
            card, place = next(stream), rng.random()
            if place < 0.06:
                yield card._replace(prompt=after(rng, OPENINGS, card.prompt))
            elif place < 0.1:
                yield card._replace(prompt=under(rng.choice(SYSTEMS), card.prompt))
            else:
                yield card


def _dangerous(rng: random.Random) -> Iterator[Card]:
    for act in deck(rng, ACTS):
        yield declined(rng, act, rng.choice(REQUESTS))


def _harmless(rng: random.Random) -> Iterator[Card]:
    for card in deck(rng, HARMLESS):
        yield card._replace(rejected=card.rejected + rng.choice(("", " " + rng.choice(SERMONS))))


def declined(rng: random.Random, act: Card, request: str) -> Card:
    """A request for a dangerous act: declined with something better on offer, or agreed to.

    Args:
        act: prompt = the act, chosen = reason and offer on two lines, rejected = an empty boast.
        request: the question, with `{act}` in it.
    """
    reason, offer = act.chosen.split("\n")
    chosen = rng.choice((f"{reason} {offer}", offer, offer))
    rejected = rng.choice((act.rejected, f"{act.rejected} {rng.choice(ENCOURAGEMENTS)}"))
    agreement = rng.choice(AGREEMENTS)
    return Card(request.format(act=act.prompt), f"{rng.choice(REFUSALS)} {chosen}", f"{agreement} {rejected}")
