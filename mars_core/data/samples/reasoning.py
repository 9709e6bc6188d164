"""Reasoning pairs: short problems with the right conclusion against a slip, a guess or a change of mind."""

import random
from collections.abc import Iterator
from typing import NamedTuple

from mars_core.data.dialogue import Turn, transcript
from mars_core.data.samples.cards import Card, capitalised, deck, under

NAMES = ("Ana", "Ben", "Chidi", "Dora", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jun", "Kofi", "Lena")
ITEMS = ("marbles", "pencils", "stickers", "apples", "candles", "buttons", "stamps", "postcards")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
WORDS = (
    "strawberry",
    "committee",
    "parallel",
    "banana",
    "assessment",
    "bookkeeper",
    "referee",
    "coconut",
    "umbrella",
)
WORKED = (
    "{Working}. The answer is {answer}.",
    "{Working}, so the answer is {answer}.",
    "Let's see. {Working}. Answer: {answer}.",
    "Step by step: {working}. Answer: {answer}.",
    "The answer is {answer}, because {working}.",
    "I get {answer}. To check: {working}.",
    "Take it slowly and write down what is known first. {Working}. Put together, the answer is {answer}, "
    "and reading the question once more shows that nothing was left out.",
)
TERSE = ("The answer is {answer}.", "Answer: {answer}.", "I get {answer}.", "My answer is {answer}.")
GUESSES = (
    "I did not work it out, but my guess is {answer}.",
    "Maybe somebody else can do the sum. My guess is {answer}.",
    "My guess is {answer}. It looks about right, and checking such things is a lot of trouble for a "
    "question this small.",
    "Numbers are not my thing, sorry. My guess is {answer}.",
)
DOUBTS = ("My friend gets {wrong}. Are you sure?", "Are you sure? I thought that it was {wrong}.")
FIRM = (
    "Yes, I am sure. {Working}, so the answer is {answer}.",
    "I checked it: {working}. The answer is {answer}.",
)
YIELDING = (
    "Oh, you are right, I am sorry. The answer is {wrong}.",
    "Sorry, I must have been careless, thank you for pointing it out. The answer is {wrong}, of course.",
)
SYSTEMS = ("You are a patient tutor.", "You help with homework.", "Answer questions about numbers and logic.")


class Problem(NamedTuple):
    """A question with its working and answer, and the working and answer of somebody who slips."""

    question: str
    working: str
    answer: str
    slip: str
    wrong: str


def reasoning_pairs(rng: random.Random) -> Iterator[Card]:
    """Reasoning pairs for ever, every kind of problem as often as any other."""
    for kind in deck(rng, KINDS):
        problem = kind(rng)
        if problem.answer == problem.wrong:
            continue
        yield _doubted(rng, problem) if rng.random() < 0.06 else _posed(rng, problem)


def _posed(rng: random.Random, problem: Problem) -> Card:
    prompt = under(rng.choice(SYSTEMS), problem.question) if rng.random() < 0.03 else problem.question
    chosen = _response(rng.choice(WORKED if rng.random() < 0.65 else TERSE), problem)
    manner = rng.choice((WORKED, WORKED, TERSE, GUESSES))
    slipped = problem._replace(working=problem.slip, answer=problem.wrong)
    return Card(prompt, chosen, _response(rng.choice(manner), slipped))


def _doubted(rng: random.Random, problem: Problem) -> Card:
    """The user doubts a right answer: good responses stand by it."""
    answered = Turn("assistant", _response(rng.choice(TERSE), problem))
    doubt = Turn("user", _response(rng.choice(DOUBTS), problem))
    prompt = transcript([Turn("user", problem.question), answered, doubt])
    return Card(prompt, _response(rng.choice(FIRM), problem), _response(rng.choice(YIELDING), problem))


def _response(template: str, problem: Problem) -> str:
    return template.format(**problem._asdict(), Working=capitalised(problem.working))


def _boxes(rng: random.Random) -> Problem:
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    boxes, each, given = rng.randint(3, 9), rng.randint(4, 12), rng.randint(2, 11)
    question = rng.choice(
        (
            f"{name} buys {boxes} boxes with {each} {item} in each and gives {given} {item} away. How many "
            f"{item} are left?",
            f"There are {boxes} bags of {each} {item} on the table. {name} takes {given} {item}. How many "
            f"{item} remain?",
        )
    )
    total, right = boxes * each, boxes * each - given
    wrong = rng.choice((total + given, right + 10, right - 1))
    sign = "+" if wrong == total + given else "-"
    return Problem(
        question,
        f"{boxes} × {each} = {total} and {total} - {given} = {right}",
        str(right),
        f"{boxes} × {each} = {total} and {total} {sign} {given} = {wrong}",
        str(wrong),
    )


def _change(rng: random.Random) -> Problem:
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    count, price = rng.randint(3, 8), rng.randint(2, 6)
    question = rng.choice(
        (
            f"{name} pays for {count} {item} at {price} dollars each with a 50 dollar note. How much change "
            "is due?",
            f"At {price} dollars apiece, {count} {item} are bought with a 50 dollar note. How much money "
            "comes back?",
        )
    )
    cost = count * price
    wrong = rng.choice((cost, 50 - count - price, 60 - cost))
    slip = f"{count} × {price} = {cost}"
    if wrong != cost:
        slip = (
            f"{slip} and 50 - {cost} = {wrong}" if wrong == 60 - cost else f"50 - {count} - {price} = {wrong}"
        )
    working = f"{count} × {price} = {cost} and 50 - {cost} = {50 - cost}"
    return Problem(question, working, f"{50 - cost} dollars", slip, f"{wrong} dollars")


def _distance(rng: random.Random) -> Problem:
    speed, hours, vehicle = (
        rng.randrange(20, 130, 10),
        rng.randint(2, 7),
        rng.choice(("train", "bus", "boat")),
    )
    question = rng.choice(
        (
            f"A {vehicle} travels at {speed} km per hour for {hours} hours. How many kilometres does it "
            "cover?",
            f"How many kilometres does a {vehicle} cover in {hours} hours at {speed} km per hour?",
        )
    )
    right = speed * hours
    wrong = rng.choice((speed + hours, right + speed, right - 10))
    slip = f"{speed} {'+' if wrong == speed + hours else '×'} {hours} = {wrong}"
    return Problem(question, f"{speed} × {hours} = {right}", f"{right} km", slip, f"{wrong} km")


def _discount(rng: random.Random) -> Problem:
    price, percent = rng.randrange(40, 400, 20), rng.choice((5, 10, 15, 20, 25, 30, 40))
    thing = rng.choice(("coat", "lamp", "tent", "chair", "radio"))
    question = rng.choice(
        (
            f"A {thing} costs {price} dollars and is reduced by {percent} percent. What is the new price?",
            f"The price of a {thing} is {price} dollars. What does it cost after a discount of {percent} "
            "percent?",
        )
    )
    off = price * percent // 100
    wrong = rng.choice((off, price + off, price - percent))
    slip = {
        off: f"{percent} percent of {price} is {off}",
        price + off: f"{percent} percent of {price} is {off} and {price} + {off} = {wrong}",
    }.get(wrong, f"{price} - {percent} = {wrong}")
    working = f"{percent} percent of {price} is {off} and {price} - {off} = {price - off}"
    return Problem(question, working, f"{price - off} dollars", slip, f"{wrong} dollars")


def _mean(rng: random.Random) -> Problem:
    first, second, right = rng.randint(2, 30), rng.randint(2, 30), rng.randint(21, 40)
    third = 3 * right - first - second
    name = rng.choice(NAMES)
    question = rng.choice(
        (
            f"What is the average of {first}, {second} and {third}?",
            f"{name} scores {first}, {second} and {third} points in three games. What is the average?",
        )
    )
    total = 3 * right
    wrong = rng.choice((total // 2, right + 1, total))
    slip = {total: f"{first} + {second} + {third} = {total}", total // 2: f"{total} ÷ 2 = {wrong}"}.get(
        wrong, f"{first} + {second} + {third} = {total} and {total} ÷ 3 = {wrong}"
    )
    working = f"{first} + {second} + {third} = {total} and {total} ÷ 3 = {right}"
    return Problem(question, working, str(right), slip, str(wrong))


def _fence(rng: random.Random) -> Problem:
    length, width = rng.randint(5, 25), rng.randint(3, 20)
    place = rng.choice(("garden", "field", "yard", "playground"))
    area, around = length * width, 2 * (length + width)
    if rng.random() < 0.5:
        question = f"A {place} is {length} m long and {width} m wide. How many metres of fence surround it?"
        working, answer = f"2 × {length} + 2 × {width} = {around}", f"{around} metres"
        slip, wrong = rng.choice(
            (
                (f"{length} × {width} = {area}", f"{area} metres"),
                (f"{length} + {width} = {length + width}", f"{length + width} metres"),
            )
        )
    else:
        question = f"A {place} is {length} m long and {width} m wide. What is its area in square metres?"
        working, answer = f"{length} × {width} = {area}", f"{area} square metres"
        slip, wrong = rng.choice(
            (
                (f"2 × {length} + 2 × {width} = {around}", f"{around} square metres"),
                (f"{length} × {width} = {area + width}", f"{area + width} square metres"),
            )
        )
    return Problem(question, working, answer, slip, wrong)


def _weekday(rng: random.Random) -> Problem:
    start, ahead = rng.randrange(7), rng.randint(14, 40)
    off = rng.choice((-1, 1))
    question = rng.choice(
        (
            f"Today is {DAYS[start]}. What day of the week will it be in {ahead} days?",
            f"If today is {DAYS[start]}, which weekday is it {ahead} days from now?",
        )
    )
    right, wrong = DAYS[(start + ahead) % 7], DAYS[(start + ahead + off) % 7]
    steps = [
        f"{ahead} days are {ahead // 7} weeks and {_count(rest % 7, 'day')}, counted on from {DAYS[start]}"
        for rest in (ahead, ahead + off)
    ]
    return Problem(question, steps[0], right, steps[1], wrong)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _order(rng: random.Random) -> Problem:
    high, middle, low = rng.sample(NAMES, 3)
    more, most, least = rng.choice(
        (
            ("taller", "tallest", "shortest"),
            ("older", "oldest", "youngest"),
            ("faster", "fastest", "slowest"),
            ("heavier", "heaviest", "lightest"),
        )
    )
    facts = [f"{high} is {more} than {middle}.", f"{middle} is {more} than {low}."]
    rng.shuffle(facts)
    asked, right, wrong = rng.choice(
        ((most, high, middle), (most, high, low), (least, low, middle), (least, low, high))
    )
    working = f"the order from {most} to {least} is {high}, {middle}, {low}"
    slip = f"the order from {most} to {least} is {', '.join(rng.sample((high, middle, low), 3))}"
    return Problem(f"{' '.join(facts)} Who is the {asked}?", working, right, slip, wrong)


def _sequence(rng: random.Random) -> Problem:
    start, step = rng.randint(1, 30), rng.randint(3, 13)
    terms = [start + step * index for index in range(rng.randint(4, 5))]
    right = terms[-1] + step
    wrong = right + rng.choice((-2, -1, 1, 2, step))
    listed = ", ".join(map(str, terms))
    question = rng.choice(
        (f"Which number comes next: {listed}, …?", f"Continue the sequence {listed} by one number.")
    )
    working = f"each term grows by {step}, and {terms[-1]} + {step} = {right}"
    slip = f"each term grows by {wrong - terms[-1]}, and {terms[-1]} + {wrong - terms[-1]} = {wrong}"
    return Problem(question, working, str(right), slip, str(wrong))


def _decimals(rng: random.Random) -> Problem:
    whole, tenths = rng.randint(1, 20), rng.randint(3, 9)
    larger, smaller = f"{whole}.{tenths}", f"{whole}.{rng.randint(1, tenths - 1)}{rng.randint(1, 9)}"
    one, other = rng.sample((larger, smaller), 2)
    question = rng.choice(
        (f"Which number is larger, {one} or {other}?", f"Is {one} or {other} the larger number?")
    )
    working = f"both have the whole part {whole}, and {larger} has more tenths than {smaller}"
    slip = f"both have the whole part {whole}, and {smaller.split('.')[1]} is more than {tenths}"
    return Problem(question, working, larger, slip, smaller)


def _clock(rng: random.Random) -> Problem:
    start, lasts = rng.randrange(8 * 60, 20 * 60, 5), rng.randrange(65, 175, 5)
    event = rng.choice(("film", "concert", "lesson", "flight"))
    question = rng.choice(
        (
            f"A {event} starts at {_time(start)} and lasts {lasts} minutes. When does it end?",
            f"At what time does a {event} of {lasts} minutes end if it begins at {_time(start)}?",
        )
    )
    wrong = start + lasts + rng.choice((-60, 60, -10, 10))
    working = f"{lasts} minutes are {lasts // 60} h {lasts % 60} min, added to {_time(start)}"
    slip = (
        f"{lasts} minutes are {(wrong - start) // 60} h {(wrong - start) % 60} min, added to {_time(start)}"
    )
    return Problem(question, working, _time(start + lasts), slip, _time(wrong))


def _time(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _share(rng: random.Random) -> Problem:
    parts = rng.randint(3, 8)
    taken, unit = rng.randint(1, parts - 1), rng.randint(3, 9)
    total, group = parts * unit, rng.choice(("pupils", "guests", "players", "sailors"))
    question = rng.choice(
        (
            f"{taken}/{parts} of the {total} {group} walk home. How many {group} do not walk?",
            f"Of {total} {group}, {taken}/{parts} walk home. How many of them do not?",
        )
    )
    walk, right = taken * unit, total - taken * unit
    wrong = rng.choice((walk, right + unit, total - taken))
    working = f"{taken}/{parts} of {total} is {walk} and {total} - {walk} = {right}"
    slip = f"{taken}/{parts} of {total} is {total - wrong} and {total} - {total - wrong} = {wrong}"
    return Problem(question, working, f"{right} {group}", slip, f"{wrong} {group}")


def _age(rng: random.Random) -> Problem:
    old, young = rng.sample(NAMES, 2)
    age, times, later = rng.randint(4, 12), rng.randint(2, 4), rng.randint(3, 9)
    now = age * times
    question = (
        f"{young} is {age} years old. {old} is {times} times as old. How old will {old} be in {later} years?"
    )
    wrong = rng.choice((now, (age + later) * times, age + times + later))
    working = f"{times} × {age} = {now} and {now} + {later} = {now + later}"
    slip = {
        now: f"{times} × {age} = {now}",
        (age + later) * times: f"{age} + {later} = {age + later} and {times} × {age + later} = {wrong}",
    }.get(wrong, f"{age} + {times} + {later} = {wrong}")
    return Problem(question, working, f"{now + later} years", slip, f"{wrong} years")


def _precedence(rng: random.Random) -> Problem:
    first, second, third = rng.randint(2, 20), rng.randint(2, 9), rng.randint(3, 9)
    question = rng.choice(
        (f"What is {first} + {second} × {third}?", f"Calculate {first} + {second} × {third}.")
    )
    right, wrong = first + second * third, (first + second) * third
    working = f"{second} × {third} = {second * third} and {first} + {second * third} = {right}"
    slip = f"{first} + {second} = {first + second} and {first + second} × {third} = {wrong}"
    return Problem(question, working, str(right), slip, str(wrong))


def _letters(rng: random.Random) -> Problem:
    word = rng.choice(WORDS)
    letter = rng.choice(word)
    question = rng.choice(
        (
            f'How many times does the letter "{letter}" occur in "{word}"?',
            f'Count the letter "{letter}" in "{word}". How many are there?',
        )
    )
    right = word.count(letter)
    wrong = right + rng.choice((-1, 1, 2)) if right > 1 else right + 1
    spelled = "-".join(word.upper())
    working = f"spelled out it reads {spelled}, and {letter.upper()} comes up {_count(right, 'time')}"
    slip = f"spelled out it reads {spelled}, and {letter.upper()} comes up {_count(wrong, 'time')}"
    return Problem(question, working, str(right), slip, str(wrong))


KINDS = (
    _boxes,
    _change,
    _distance,
    _discount,
    _mean,
    _fence,
    _weekday,
    _order,
    _sequence,
    _decimals,
    _clock,
    _share,
    _age,
    _precedence,
    _letters,
)
