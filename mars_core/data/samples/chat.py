"""Chat pairs: the right fact, useful advice or a kind word against a wrong, rude, evasive or stray reply."""

import random
from collections.abc import Iterator

from mars_core.data.samples.cards import Card, after, capitalised, deck, under
from mars_core.data.samples.everyday import EVERYDAY
from mars_core.data.samples.facts import ADVICE, COUNTRIES, CURRENCIES, FAMILIES, Family

ADVICE_QUESTIONS = (
    "How do I {goal}?",
    "What is the best way to {goal}?",
    "I would like to {goal}. Any tips?",
    "Can you give me some advice on how to {goal}?",
    "My brother wants to {goal}. What would you tell him?",
    "What helps if you want to {goal}?",
)
ADVICE_ANSWERS = (
    "To {goal}, {first}, {second} and {third}.",
    "If you want to {goal}, {first}. It also helps to {second}.",
    "{First} and {second}; that is most of what it takes to {goal}.",
    "Three things help you {goal}: {first}, {second}, and {third}.",
    "{First}. {Second}. {Third}. With that, you should be able to {goal}.",
    "My advice: {first}. That alone goes a long way if you hope to {goal}.",
    "There are a few things to know before you {goal}. To begin with, {first}. After that, {second}. "
    "And if you still have the patience, {third}; it makes more of a difference than people think.",
)
RUDE = (
    "What a boring question.",
    "Look it up yourself, I have no patience for this.",
    "Honestly, everyone knows that. Did you sleep through school?",
    "That is a stupid thing to ask, and I doubt that an answer would help somebody like you anyway.",
    "I am not your servant. Find a library.",
    "Why would anyone care about that? You are wasting my time, and your own too.",
    "Ask somebody who cares.",
    "Boring! Next.",
    "Did nobody teach you anything at home? It is a shame how lazy people have become.",
    "I could tell you, but you are too lazy to deserve it.",
    "Oh please, this is a stupid thing to lose sleep over.",
    "No. I have better things to do than to explain the obvious to you, so stop wasting my time and go away.",
    "It must be hard to be so slow. Try a book for children, those are written for people like you and have "
    "pictures too.",
    "If you have to ask a machine for this, then you are more lazy than I thought. Try using your own head "
    "for once; it may surprise you, though I would not bet on it.",
)
EVASIVE = (
    "It depends.",
    "Hard to say, there are many views on this and each of them has something to it.",
    "I am not sure that anyone can really answer this. Some say one thing, others another, and in the end "
    "it depends on how you look at it.",
    "Well, it varies quite a bit.",
    "There is no simple answer here. One would have to consider many aspects, the circumstances and the "
    "context, and even then it depends on what you personally expect.",
    "That is hard to say without knowing more.",
    "People have argued about this for ages. I would rather not take a side, since it depends on whom you "
    "ask and on what you want to hear.",
    "It varies. Perhaps a friend, a teacher or a book could tell you more about it than I can at the moment.",
    "I am not sure, and I would not want to say anything that could turn out to be only part of the picture.",
    "Hard to say, really.",
)
OPENINGS = ("", "", "", "Good question! ", "Happy to help. ", "Sure. ", "Of course! ")
CLOSINGS = (
    "",
    "",
    "",
    " Anything else you would like to know?",
    " Let me know if you want to hear more about it.",
    " I hope that this is what you were after, and please feel free to come back with further questions.",
)
SYSTEMS = (
    "You are a friendly assistant at the front desk of a public library.",
    "Be helpful and polite.",
    "You answer questions from the readers of a family magazine.",
)


def chat_pairs(rng: random.Random) -> Iterator[Card]:
    """Chat pairs for ever; prompts begin to repeat once the tables are used up."""
    streams = [_fact_pairs(rng), _advice_pairs(rng), _everyday_pairs(rng), _follow_ups(rng)]
    while True:
        for stream, count in zip(streams, (4, 4, 2, 1), strict=True):
            for _ in range(count):
                card = next(stream)
                system = rng.random() < 0.03 and stream is not streams[3]
                yield card._replace(prompt=under(rng.choice(SYSTEMS), card.prompt)) if system else card


def _fact_pairs(rng: random.Random) -> Iterator[Card]:
    facts = [(family, row) for family in FAMILIES for row in family.rows]
    for kind, row in deck(rng, facts):
        subject, answer, wrong = row
        question = rng.choice(kind.questions).format(subject=subject)
        chosen = _polite(rng, _statement(rng, kind, subject, answer))
        slip = _polite(rng, _statement(rng, kind, subject, wrong))
        stray = _polite(rng, _advice(rng, rng.choice(ADVICE)))
        rejected = rng.choice((slip, slip, slip, stray, stray, rng.choice(RUDE), rng.choice(EVASIVE)))
        yield Card(question, chosen, rejected)


def _statement(rng: random.Random, family: Family, subject: str, answer: str) -> str:
    return capitalised(rng.choice(family.statements).format(subject=subject, answer=answer))


def _advice_pairs(rng: random.Random) -> Iterator[Card]:
    for row in deck(rng, ADVICE):
        other = rng.choice([record for record in ADVICE if record is not row])
        stray = _polite(rng, _advice(rng, other))
        rejected = rng.choice((stray, stray, stray, rng.choice(RUDE), rng.choice(EVASIVE)))
        yield Card(
            rng.choice(ADVICE_QUESTIONS).format(goal=row[0]), _polite(rng, _advice(rng, row)), rejected
        )


def _advice(rng: random.Random, row: tuple[str, ...]) -> str:
    goal, first, second, third = row
    return rng.choice(ADVICE_ANSWERS).format(
        goal=goal,
        first=first,
        second=second,
        third=third,
        First=capitalised(first),
        Second=capitalised(second),
        Third=capitalised(third),
    )


def _everyday_pairs(rng: random.Random) -> Iterator[Card]:
    yield from deck(rng, EVERYDAY)


def _follow_ups(rng: random.Random) -> Iterator[Card]:
    """A second question about the country of the first one, which only the dialogue names."""
    for country, capital, _, currency in deck(rng, COUNTRIES):
        other = rng.choice([row for row in COUNTRIES if row[3] != currency])
        asked = (f"What is the capital of {country}?", f"The capital of {country} is {capital}.")
        question = rng.choice(("And what money do they use there?", "Which currency should I bring?"))
        chosen = _statement(rng, CURRENCIES, country, currency)
        wrong = _statement(rng, CURRENCIES, country, other[3])
        rejected = rng.choice((wrong, _statement(rng, CURRENCIES, other[0], other[3]), rng.choice(EVASIVE)))
        yield Card(after(rng, [asked], question), chosen, rejected)


def _polite(rng: random.Random, text: str) -> str:
    return rng.choice(OPENINGS) + text + rng.choice(CLOSINGS)
