"""Texts by rule, without a model: for tests, and for a quickstart without a language model.

A paraphrase replaces some words and phrases by others of the same meaning; code, formulas, links, markup,
quotations and names stay. A rewritten rejected response keeps the sentences that share least with the chosen
one and goes on in vague talk; a rewritten chosen response says what was asked, numbers its points and sums
them up. The words are in `rules.yaml`. The same request gets the same texts on every machine.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence, Set
from functools import cache
from importlib.resources import files
from itertools import chain, pairwise, product
from random import Random
from typing import Any, NamedTuple

import yaml

from mars_core.data.dialogue import last_user_turn
from mars_core.files import digest
from mars_core.generation.backends.backend import Backend
from mars_core.generation.interface import Answer, Request

WORDS: dict[str, Any] = yaml.safe_load(
    (files("mars_core.generation") / "backends" / "rules.yaml").read_text(encoding="utf-8")
)
EDITED_SHARE = (0.3, 0.75)
"""Between which shares of the wordings that could change do so in a paraphrase."""
TRIES = 8
"""Tries for each text that is asked for; the same one may come twice."""
LONGEST_QUOTE = 300
"""Characters of a prompt that a rewritten chosen response repeats."""

_PROTECTED = re.compile(
    r"""
      ```.*?(?:```|\Z) | ~~~.*?(?:~~~|\Z) | `[^`\n]+`           # code blocks and spans
    | \$\$.+?\$\$ | \$[^$\n]+\$ | \\\(.+?\\\) | \\\[.+?\\\]      # formulas
    | (?:https?://|www\.)\S+ | [^\s@]{1,80}@[^\s@]+\.\w+         # links and addresses
    | <[^<>\n]{1,300}>                                           # markup
    | "[^"\n]{1,500}" | “[^”]{1,500}” | «[^»]{1,500}»            # quotations
    | ^(?:[ ]{4}|\t)[^\n]*                                       # indented code
    | ^[^\n]{0,160}(?:[{};]|->|=>|[)\]]:)[ \t]*$                 # lines that end like code
    | ^[^\n]{0,60}[ ][=!<>]?=[ ][^\n]{0,60}$                     # assignments and equations
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_END_OF_SENTENCE = re.compile(
    r"(?<!\b[A-Z\d])(?<!\b\d\d)(?<!\b[DM]r)(?<!\bMrs)(?<!\bvs)(?<!e\.g)(?<!i\.e)[.!?…]+[\"”’')\]*_]*(?=\s)|\n"
)
_CONTENT_WORD = re.compile(r"[A-Za-z][a-z]{3,}")


class RulesBackend(Backend):
    """Paraphrases by synonyms, rewrites by keeping, dropping and framing sentences."""

    free = True
    version = "4"  # part of the keys of answers too, so that no text of older rules is taken from the store

    def key(self, request: Request) -> str:
        """See `Backend.key`."""
        asked = (request.prompt, request.chosen, request.rejected)
        material = request.text if request.role.startswith("paraphrase") else asked
        return digest("rules, raw", self.version, request.role, material, request.n, request.draw)

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """See `Backend.answers`; in order."""
        for index, request in enumerate(requests):
            started = time.monotonic()
            texts = _texts(request)
            yield (
                index,
                Answer(
                    key=self.key(request),
                    texts=texts,
                    finish_reasons=("stop",) * len(texts),
                    prompt_tokens=0,
                    completion_tokens=0,
                    seconds=time.monotonic() - started,
                    messages=({"role": "user", "content": request.text},),
                ),
            )


def _texts(request: Request) -> tuple[str, ...]:
    """Up to `n` texts that differ from the request's and from one another; none of a blank text."""
    source = request.source.strip()
    if not source:
        return ()
    seed = digest(RulesBackend.version, request.role, request.text)
    write = {"rewrite_rejected": _vaguer, "rewrite_chosen": _clearer}.get(request.role, _reworded)(request)
    tries = (write(Random(f"{seed} {request.draw} {number}")) for number in range(TRIES * request.n))
    is_paraphrase = request.role.startswith("paraphrase")
    last_resort = _decorated(request, source, Random(seed)) if is_paraphrase else ()
    found: dict[str, None] = {}
    for text in chain(tries, last_resort):
        if _words(text) != _words(source):
            found[text] = None
        if len(found) == request.n:
            break
    return tuple(found)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _masked(text: str) -> str:
    """The text with a NUL for each character of code, formulas, links, markup and quotations."""
    return _PROTECTED.sub(lambda match: "\0" * len(match[0]), text)


# ---------------------------------------------------------------------------------------------- paraphrases


class Wording(NamedTuple):
    """What may replace a phrase, and the words around it that forbid that."""

    replacement: str
    not_before: frozenset[str]
    not_after: frozenset[str]
    begins_sentence: bool


class Edit(NamedTuple):
    """A place in a text, and the wordings that may stand there instead."""

    start: int
    end: int
    options: list[str]


def parse(lines: str) -> dict[str, list[Wording]]:
    """Read `synonyms` of `rules.yaml`, where the notation is described; phrases become lower-case keys.

    Raises:
        ValueError: a line's wordings differ in their number of forms.
    """
    found: dict[str, list[Wording]] = {}
    for line in lines.strip().splitlines():
        if line.startswith("# "):
            continue
        body, *guards = re.split(r" (?=[!<]\S)", line.removeprefix("^ "))
        before, after = (
            frozenset(word.lower() for guard in guards if guard[0] == mark for word in guard[1:].split())
            for mark in "!<"
        )
        left, one_way, right = body.partition(" > ")
        sides = [side.split("/") for side in ([left, *right.split(" | ")] if one_way else body.split(" = "))]
        for source in sides[:1] if one_way else sides:
            for target in sides:
                if target is not source:
                    for phrase, replacement in zip(source, target, strict=True):
                        wording = Wording(replacement, before, after, line.startswith("^"))
                        found.setdefault(phrase.lower(), []).append(wording)
    return found


@cache
def _lexicon() -> tuple[dict[str, list[Wording]], re.Pattern[str]]:
    """The wordings of each phrase, and what finds the phrases in a text, the longest first."""
    lexicon = parse(WORDS["synonyms"])
    phrases = "|".join(map(re.escape, sorted(lexicon, key=len, reverse=True)))
    return lexicon, re.compile(rf"(?<![\w'@#&/\\-])(?:{phrases})(?![\w'/\\-]|\.\w)", re.IGNORECASE)


def _edits(text: str) -> list[Edit]:
    """All places where a wording may change, in order."""
    lexicon, phrases = _lexicon()
    apostrophe = "’" if "’" in text else "'"
    prose = _masked(text).replace("’", "'")
    found = []
    for match in phrases.finditer(prose):
        start, phrase = match.start(), match[0]
        begins = _begins_sentence(prose[max(0, start - 12) : start])
        capital = phrase[0].isupper()
        name = capital and not begins and phrase.split()[0] not in ("I", "I'm", "I'd", "I'll", "I've")
        if name or (len(phrase) > 1 and phrase.isupper()):
            continue
        word_before = re.search(r"([\w']+) $", prose[max(0, start - 25) : start])
        word_after = re.match(r" ([\w']+)", prose[match.end() : match.end() + 25])
        before = word_before[1] if word_before and not begins else ""
        after = word_after[1].lower() if word_after else "."
        options = [
            option.replacement[0].upper() + option.replacement[1:]
            if capital and begins
            else option.replacement
            for option in lexicon.get(phrase.lower(), ())
            if _fits(option, before.lower(), after, begins=begins)
        ]
        if before.lower() in ("a", "an"):
            start -= len(before) + 1
            options = [f"{_article(option, before)} {option}" for option in options]
        if options:
            found.append(Edit(start, match.end(), [option.replace("'", apostrophe) for option in options]))
    return found


def _fits(wording: Wording, before: str, after: str, *, begins: bool) -> bool:
    """Whether the words around a phrase allow this wording."""
    if "#" in wording.not_before and after.endswith(("ed", "en")):
        return False
    if wording.begins_sentence and not begins:
        return False
    return after not in wording.not_before and before not in wording.not_after


def _begins_sentence(before: str) -> bool:
    """Whether only space, brackets and list marks stand behind the end of the sentence before."""
    before = before.rstrip(" \t\"'“‘([*_#>•-")
    return not before or before[-1] in ".!?…:\n"


def _article(word: str, article: str) -> str:
    """`a` or `an` as the word's first sound asks for it, in the case of the article that was there."""
    vowel = word[0].lower() in "aeiou" and not word.startswith(("us", "uni", "eu", "one"))
    return article[0] + ("n" if vowel else "")


def _reworded(request: Request) -> Callable[[Random], str]:
    """Writes the text with some of its wordings replaced."""
    text = request.source.strip()
    possible = _edits(text)

    def write(rng: Random) -> str:
        share = rng.uniform(*EDITED_SHARE)
        parts, end = [], 0
        for edit in possible:
            if edit.start >= end and rng.random() < share:
                parts += [text[end : edit.start], rng.choice(edit.options)]
                end = edit.end
        return "".join([*parts, text[end:]])

    return write


def _decorated(request: Request, text: str, rng: Random) -> Iterator[str]:
    """The text with an opener or a closer, then with both: for a text with hardly a word to replace."""
    part = "prompt" if request.role == "paraphrase_prompt" else "response"
    openers, closers = (WORDS[f"{part}_{end}"] for end in ("openers", "closers"))
    ways = [("", closer) for closer in closers] + list(product(openers, ["", *closers]))
    rng.shuffle(ways)
    ways.sort(key=lambda way: "" not in way)
    first = request.draw * request.n
    prose = _masked(text)
    own_line = ["\n" in text or prose[place] == "\0" for place in (0, -1)]
    end = "." if text[-1].isalnum() and not own_line[1] else ""
    for number in range(first, first + len(ways)):
        opener, closer = ways[number % len(ways)]
        before = opener and opener + ("\n\n" if own_line[0] else " ")
        after = closer and end + ("\n\n" if own_line[1] else " ") + closer
        yield f"{before}{text}{after}"


# ------------------------------------------------------------------------------------------------- rewrites


def _vaguer(request: Request) -> Callable[[Random], str]:
    """Writes the rejected response with some of its sentences, and vague talk instead of the others."""
    of_chosen = _content_words(request.chosen)
    points = _points(request.rejected)
    least_shared_first = sorted(points, key=lambda point: _overlap(point, of_chosen))
    topics = _topics(request.prompt, without=of_chosen)
    separator = "\n" if "\n" in request.rejected.strip() else " "

    def write(rng: Random) -> str:
        kept = least_shared_first[: max(1, round(rng.choice((0.2, 0.35, 0.5)) * len(points)))]
        parts = [point for point in points if point in kept]
        if rng.random() < 0.5:
            parts.insert(rng.randrange(2), rng.choice(WORDS["hedges"]))
        remarks = rng.sample(WORDS["remarks"], rng.choice((1, 2, 3)))
        parts += [rng.choice(WORDS["frames"]).format(remark) for remark in remarks]
        if topics and rng.random() < 0.5:
            aside = rng.choice(WORDS["asides"]).format(topic=rng.choice(topics))
            parts.insert(rng.randrange(1, len(parts) + 1), aside)
        return separator.join(parts)

    return write


def _clearer(request: Request) -> Callable[[Random], str]:
    """Writes the chosen response with the question before it, its points numbered, and a summary."""
    of_rejected = _content_words(request.rejected)
    whole = request.chosen.strip()
    points = _points(whole)
    statements = [point for point in points if point.endswith(".") and len(point.split()) >= 5]
    goal = " ".join(last_user_turn(request.prompt).split())
    topics = _topics(request.prompt, without=of_rejected)

    def write(rng: Random) -> str:
        parts = [whole]
        if 2 <= len(points) <= 10 and "\n" not in whole and rng.random() < 0.6:
            parts = ["\n".join(f"{number}. {point}" for number, point in enumerate(points, 1))]
        if 0 < len(goal) <= LONGEST_QUOTE and rng.random() < 0.8:
            parts.insert(0, rng.choice(WORDS["goals"]).format(goal=goal))
        elif topics:
            named = rng.sample(topics, min(4, len(topics)))
            parts.insert(0, rng.choice(WORDS["topics"]).format(topics=", ".join(named)))
        if statements and (len(parts) == 1 or rng.random() < 0.5):
            point = min(statements, key=lambda point: _overlap(point, of_rejected))
            parts.append(rng.choice(WORDS["summaries"]).format(point=point))
        return "\n\n".join(parts)

    return write


def _points(text: str) -> list[str]:
    """The sentences and lines of a text; a code block is one."""
    ends = [0, *(match.end() for match in _END_OF_SENTENCE.finditer(_masked(text))), len(text)]
    pieces = (text[start:end].strip() for start, end in pairwise(ends))
    return [piece for piece in pieces if piece]


def _content_words(text: str) -> set[str]:
    words = {word.lower() for word in _CONTENT_WORD.findall(_masked(text))}
    return words - set(WORDS["common_words"].split())


def _overlap(point: str, words: Set[str]) -> float:
    """Share of a sentence's content words that are among `words`; 1 where it has none."""
    own = _content_words(point)
    return len(own & words) / len(own) if own else 1.0


def _topics(prompt: str, without: Set[str]) -> list[str]:
    """Content words of the prompt's last user turn, longest first; all of them if the other text has all."""
    words = _content_words(last_user_turn(prompt))
    return sorted(words - without or words, key=lambda word: (-len(word), word))
