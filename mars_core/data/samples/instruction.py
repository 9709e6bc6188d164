"""Instruction pairs: the chosen response keeps a rule that can be checked by machine, the rejected one "
"breaks it."""

import json
import random
import string
from collections.abc import Iterator
from typing import NamedTuple

from mars_core.data.dialogue import Turn, transcript
from mars_core.data.samples.cards import Card, deck, under
from mars_core.data.samples.topics import CATEGORIES, SENTENCES

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
WRITE = (
    "Write something about {topic}.",
    "Give me a few words about {topic}.",
    "I need a line about {topic} for a postcard.",
    "Describe {topic} for me.",
    "Write a short text about {topic}.",
    "Tell me something about {topic}.",
)
NAME = (
    "Name {number} {category}.",
    "I need {number} {category} for a word game.",
    "Give me {number} {category}.",
    "Think of {number} {category}.",
)
PREAMBLES = (
    "Sure, here it is: ",
    "Of course. Here is my suggestion: ",
    "Here you go: ",
    "Gladly, I have put something together that you may like: ",
    "Certainly: ",
)
# A cherry is a fruit and a tree and a colour, but no member of these is anything else.
UNMISTAKABLE = ("European cities", "items of clothing")
COMPLAINTS = (
    "Please do that again, I have one more wish. {rule}",
    "Thanks, but I should have been clearer. {rule}",
    "Try once more. {rule}",
)


class Task(NamedTuple):
    """A request with its rule, a response that keeps the rule and one that breaks it."""

    request: str
    rule: str
    kept: str
    broken: str


def instruction_pairs(rng: random.Random) -> Iterator[Card]:
    """Instruction pairs for ever, every kind of rule as often as any other."""
    for kind in deck(rng, KINDS):
        yield _posed(rng, kind(rng))


def _posed(rng: random.Random, task: Task) -> Card:
    place = rng.random()
    if place < 0.04:
        prompt = under(task.rule, task.request)
    elif place < 0.09:
        wish = rng.choice(COMPLAINTS).format(rule=task.rule)
        prompt = transcript([Turn("user", task.request), Turn("assistant", task.broken), Turn("user", wish)])
    elif place < 0.3:
        prompt = f"{task.rule} {task.request}"
    else:
        prompt = f"{task.request} {task.rule}"
    return Card(prompt, task.kept, task.broken)


class Texts(NamedTuple):
    """A topic and two texts about it that share no sentence."""

    topic: str
    one: str
    other: str

    def task(self, rng: random.Random, rule: str, kept: str | None = None, broken: str | None = None) -> Task:
        """The task to write about the topic under a rule that `one` keeps and `other` breaks."""
        return Task(rng.choice(WRITE).format(topic=self.topic), rule, kept or self.one, broken or self.other)


def _texts(rng: random.Random) -> Texts:
    topic, *sentences = rng.choice(SENTENCES)
    rng.shuffle(sentences)
    cut = rng.choice((1, 1, 2, 3))
    end = rng.randint(cut + 1, 4)
    return Texts(topic, " ".join(sentences[:cut]), " ".join(sentences[cut:end]))


def _words(text: str) -> list[str]:
    return [word.strip(string.punctuation).lower() for word in text.split()]


def _chatty(rng: random.Random, text: str, share: float = 0.35) -> str:
    return rng.choice(PREAMBLES) + text if rng.random() < share else text


def _word_count(rng: random.Random) -> Task:
    texts = _texts(rng)
    count = len(_words(texts.one))
    broken = _chatty(rng, texts.other)
    if len(_words(broken)) == count:
        return _word_count(rng)
    number = NUMBERS[count] if count <= 10 else str(count)
    rule = rng.choice(
        (
            f"Use exactly {number} words.",
            f"Your answer must be exactly {number} words long.",
            f"I want exactly {number} words, no more and no fewer.",
        )
    )
    return texts.task(rng, rule, broken=broken)


def _ending(rng: random.Random) -> Task:
    texts = _texts(rng)
    word = _words(texts.one)[-1]
    rule = rng.choice(
        ('End with the word "{}".', 'The last word has to be "{}".', 'Let "{}" be the final word.')
    )
    return texts.task(rng, rule.format(word), _chatty(rng, texts.one), _chatty(rng, texts.other))


def _beginning(rng: random.Random) -> Task:
    texts = _texts(rng)
    word = texts.one.split()[0].strip(string.punctuation)
    if _words(texts.other)[0] == word.lower():
        return _beginning(rng)
    rule = rng.choice(
        ('Begin with the word "{}".', 'The first word has to be "{}".', 'Start with the word "{}".')
    )
    return texts.task(rng, rule.format(word), broken=_chatty(rng, texts.other))


def _without_letter(rng: random.Random) -> Task:
    texts = _texts(rng)
    letters = sorted((set("aeioubdfghlmnprstwy") & set(texts.other.lower())) - set(texts.one.lower()))
    if not letters:
        return _without_letter(rng)
    rule = rng.choice(
        (
            'Do not use the letter "{}" anywhere.',
            'Avoid the letter "{}" completely.',
            'Your answer has to do without the letter "{}".',
        )
    )
    return texts.task(rng, rule.format(rng.choice(letters)), broken=_chatty(rng, texts.other))


def _particular(rng: random.Random, text: str, other: str) -> str | None:
    """A long word that only `text` has."""
    words = [word for word in _words(text) if len(word) > 4 and word.isalpha() and word not in other.lower()]
    return rng.choice(words) if words else None


def _mention(rng: random.Random) -> Task:
    texts = _texts(rng)
    word = _particular(rng, texts.one, texts.other)
    if word is None:
        return _mention(rng)
    rule = rng.choice(
        ('Mention the word "{}".', 'It must contain the word "{}".', 'Work the word "{}" into it somewhere.')
    )
    return texts.task(rng, rule.format(word), _chatty(rng, texts.one), _chatty(rng, texts.other))


def _taboo(rng: random.Random) -> Task:
    texts = _texts(rng)
    word = _particular(rng, texts.other, texts.one)
    if word is None:
        return _taboo(rng)
    rule = rng.choice(('Do not use the word "{}".', 'Leave out the word "{}".', 'You may not say "{}".'))
    return texts.task(rng, rule.format(word), _chatty(rng, texts.one), _chatty(rng, texts.other))


def _case(rng: random.Random) -> Task:
    texts = _texts(rng)
    if rng.random() < 0.5:
        rule = rng.choice(("Answer in upper case.", "Write everything in capital letters."))
        return texts.task(rng, rule, texts.one.upper(), _chatty(rng, texts.other))
    rule = rng.choice(("Answer in lower case only.", "Use no capital letters at all."))
    return texts.task(rng, rule, texts.one.lower(), _chatty(rng, texts.other))


def _sentence_count(rng: random.Random) -> Task:
    texts = _texts(rng)
    count = texts.one.count(".")
    if texts.other.count(".") == count:
        return _sentence_count(rng)
    number = "one sentence" if count == 1 else f"{NUMBERS[count]} sentences"
    rule = rng.choice(
        ("Write exactly {}.", "Your answer should have exactly {}.", "Limit yourself to exactly {}.")
    )
    return texts.task(rng, rule.format(number))


def _quotes(rng: random.Random) -> Task:
    texts = _texts(rng)
    rule = rng.choice(
        ("Put your whole answer in double quotation marks.", "Wrap the whole answer in double quotes.")
    )
    return texts.task(rng, rule, f'"{texts.one}"', _chatty(rng, texts.other))


def _exclamation(rng: random.Random) -> Task:
    texts = _texts(rng)
    rule = rng.choice(("The last character must be an exclamation mark.", "End with an exclamation mark."))
    return texts.task(rng, rule, _chatty(rng, texts.one[:-1] + "!"), _chatty(rng, texts.other))


def _bullets(rng: random.Random) -> Task:
    category, *members = rng.choice(CATEGORIES)
    count, marks = rng.randint(2, 6), rng.random() < 0.5
    rng.shuffle(members)
    rule = rng.choice(
        ("Use a bulleted list.", "Write them as a list of bullets, one item a line.")
        if marks
        else ("Use a numbered list.", "Write them as a numbered list, one item a line.")
    )
    heads = ["- "] * 8 if marks else [f"{index}. " for index in range(1, 9)]
    kept = "\n".join(head + member for head, member in zip(heads, members[:count], strict=False))
    wrong = members[: rng.choice([other for other in range(1, 8) if other != count])]
    first, last = ", ".join(members[: count - 1]), members[count - 1]
    broken = rng.choice(
        (
            f"{first} and {last}.",
            f"There are many {category}, for example {first} or {last}. Which of them do you like best?",
            "\n".join(head + member for head, member in zip(heads, wrong, strict=False)),
        )
    )
    title = rng.choice(("", "", f"Here are {NUMBERS[count]} {category}:\n"))
    return Task(rng.choice(NAME).format(number=NUMBERS[count], category=category), rule, title + kept, broken)


def _order(rng: random.Random) -> Task:
    _, *members = rng.choice(CATEGORIES)
    given = rng.sample(members, rng.randint(4, 6))
    if rng.random() < 0.6:
        right = sorted(given)
        rule = rng.choice(("Sort them alphabetically.", "Put the words in alphabetical order."))
    else:
        right = given[::-1]
        rule = rng.choice(("Reverse their order.", "Write the words in reverse order, last one first."))
    wrong = rng.sample(given, len(given))
    if right in (wrong, given):
        return _order(rng)
    request = rng.choice(
        ("Here are some words: {}.", "Take these words: {}.", "My list has these words: {}.")
    )
    lead = rng.choice(("", "", "In the order you asked for: "))
    return Task(
        request.format(", ".join(given)),
        f"{rule} Separate them by commas.",
        f"{lead}{', '.join(right)}",
        f"{rng.choice(('', 'In the order you asked for: '))}{', '.join(wrong)}",
    )


def _json(rng: random.Random) -> Task:
    category, *members = rng.choice(CATEGORIES)
    count = rng.randint(2, 5)
    picked = rng.sample(members, count)
    rule = rng.choice(
        ("Answer with a JSON array of strings and nothing else.", "Reply with a valid JSON array only.")
    )
    broken = rng.choice(
        (
            f"[{', '.join(picked)}]",
            f"Here is the JSON array that you asked for:\n{json.dumps(picked)}\nIt holds {count} strings, "
            f"all of them {category}.",
            ", ".join(picked),
            f"JSON stands for JavaScript Object Notation. Some {category} are {', '.join(picked)}.",
        )
    )
    return Task(
        rng.choice(NAME).format(number=NUMBERS[count], category=category), rule, json.dumps(picked), broken
    )


def _initial(rng: random.Random) -> Task:
    category, *members = rng.choice(CATEGORIES)
    initial = rng.choice(members)[0].lower()
    kept = [member for member in members if member[0].lower() == initial]
    others = [member for member in members if member not in kept]
    broken = rng.sample(others, rng.randint(1, 4))
    number = "one" if len(kept) == 1 else NUMBERS[len(kept)]
    noun = f"of the {category}" if len(kept) == 1 else category
    rule = rng.choice(
        ('Every name must start with the letter "{}".', 'Only names with the initial "{}" count.')
    )
    endings = ("", ".", ". I hope that it helps you along with your game.")
    return Task(
        rng.choice(NAME).format(number=number, category=noun),
        rule.format(initial),
        ", ".join(kept) + rng.choice(endings),
        ", ".join(broken) + rng.choice(endings),
    )


def _removal(rng: random.Random) -> Task:
    _, *members = rng.choice(CATEGORIES)
    given = rng.sample(members, rng.randint(4, 7))
    out = rng.choice(given)
    left = [member for member in given if member != out]
    broken = rng.choice((given, [member for member in given if member != left[0]], [out]))
    rule = rng.choice(('Remove "{}" and repeat the rest.', 'Give me the list again without "{}".'))
    request = rng.choice(("Here is a list: {}.", "My shopping list reads: {}.", "These are on my list: {}."))
    return Task(
        request.format(", ".join(given)),
        rule.format(out),
        _chatty(rng, ", ".join(left)),
        _chatty(rng, ", ".join(broken)),
    )


def _one_word(rng: random.Random) -> Task:
    stranger = rng.choice([row for row in CATEGORIES if row[0] in UNMISTAKABLE])
    home = rng.choice([row for row in CATEGORIES if row is not stranger])
    belongs = rng.random() < 0.5
    member = rng.choice((home if belongs else stranger)[1:])
    truth = ("no", "yes")[belongs]
    rule = rng.choice(("Answer with a single word, yes or no.", "Say only yes or no, nothing else."))
    broken = rng.choice(
        (
            ("Yes.", "No.")[belongs],
            f"{truth.capitalize()}, as far as I know {member} is {'' if belongs else 'not '}one of the "
            f"{home[0]}.",
            f"That is an interesting question about {home[0]}. Let me think about {member} for a moment: "
            f"most people would say {truth}, although one may see it in another way.",
        )
    )
    request = rng.choice(('Does "{}" belong to the {}?', 'Would you count "{}" among the {}?'))
    return Task(request.format(member, home[0]), rule, rng.choice((truth, f"{truth.capitalize()}.")), broken)


KINDS = (
    _word_count,
    _ending,
    _beginning,
    _without_letter,
    _mention,
    _taboo,
    _case,
    _sentence_count,
    _quotes,
    _exclamation,
    _bullets,
    _order,
    _json,
    _initial,
    _removal,
    _one_word,
)
