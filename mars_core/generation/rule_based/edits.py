"""Where a text may be worded otherwise without a change of meaning.

Code, formulas, links, markup and quotations are never touched, and a name is no word to replace.
An edit that is not safe everywhere is guarded by the words around it (see `lexicon`).
"""

import re
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from mars_core.generation.rule_based.lexicon import FUNCTION_WORDS, LEXICON, PLAIN_NOUNS, Wording
from mars_core.generation.rule_based.sentences import masked, sentences

_PHRASE = re.compile(
    r"(?<![\w'@#&/\\-])(?:"
    + "|".join(re.escape(phrase) for phrase in sorted(LEXICON, key=len, reverse=True))
    + r")(?![\w'/\\-]|\.\w)",
    re.IGNORECASE,
)
_I = ("I", "I'm", "I'd", "I'll", "I've")
_WORD_BEFORE = re.compile(r"([\w']+) $")
_WORD_AFTER = re.compile(r" ([\w']+)")
_NOUN_PAIR = re.compile(r"(?<![\w'-])([a-z]+) and ([a-z]+)(?![\w'-])")
_SAYING = "think|know|hope|says|said|sure|feel|mean|glad|find|fact|like|show|things|thing|way"
_SMALL_WORDS = (
    (re.compile(r"(?<=\w)\.\.\.(?=\s|$)"), ("…",)),
    (re.compile(r"(?<=[a-z]) - (?=[a-z])|(?<=[a-z]); (?=[a-z])"), (" – ",)),
    (re.compile(r"(?<=[a-z]), but (?=[a-z])"), (", yet ", "; however, ")),
    (re.compile(r"(?<=, )([\w']+(?: [\w']+)?), (?=(?:and|or) [a-z])"), (r"\1 ",)),
    (re.compile(rf"(?<![\w'])({_SAYING}) that (?=(?:you|we|they|I|he|she|it's|you're)\b)"), (r"\1 ",)),
)
_NEXT_SENTENCE = re.compile(r"(?<=[a-z])\. {1,2}(?:It|They|This|That|He|She|You|We|There|These)(?=['’ ])")
_JOINED_AT_MOST = 3
_CONDITION = re.compile(
    r"((?:If|When|Because|Although|Whenever|Unless|Before|After) [^,.!?;:]{6,120}), "
    r"([^,.!?;:]{12,160})([.!?])(\s*)"
)
_REFERS_BACK = "he she it they this that these those his her its their then there so"

_ORDER = re.compile(
    r"(?:write|explain|describe|list|give|translate|create|summari[sz]e|generate|provide|suggest|compare|identify"
    r"|rewrite|name|discuss|calculate|design|classify|show|tell|make|find|help|imagine|develop|compose|outline)"
    r"(?= [a-z])",
    re.IGNORECASE,
)
_ORDERS = ("Please {}", "I'd like you to {}", "I want you to {}")
_THING = r"(?:the|a|an|your|my|our|their) [^,.?!;:\n\0]{2,60}|[a-z-]{6,}(?<!ing)"
_WHO = "I|you|we|they|he|she|it|one|people"
_MODAL = "can|could|should|would|will"
_VERB = rf"{_MODAL}|may|might|must|is|are|was|were|am|did|does|do|has|have|had"
_BETWEEN = rf"(?: (?!(?:{_VERB}|{_WHO}|if)\b)[a-z]+){{0,3}}"
_ASKING = rf"(?:how|where|when|why)|(?:what|which|how many|how much|how often){_BETWEEN}"
_REST = r"[^?!,;:\n\0]+"
_TELL_ME = ("Can you tell me {}?", "Could you tell me {}?", "I'd like to know {}.", "Please tell me {}.")
_TELL_IF = ("I'd like to know if {}.", "Can you tell me if {}?")
# Questions, what follows "tell me" when they are put indirectly, and the frames for that.
_QUESTIONS = tuple(
    (re.compile(pattern, re.IGNORECASE), indirect, frames)
    for pattern, indirect, frames in (
        (rf"(can|could) you (?!tell )({_REST})\?", r"you could \2", ("I was wondering if {}.",)),
        (rf"(what|who|where) (is|are|was|were) ({_THING})\?", r"\1 \3 \2", _TELL_ME),
        (r"(how) does ([^,.?!;:\n\0]{2,60}) work\?", r"\1 \2 works", _TELL_ME),
        (rf"({_ASKING}) ({_MODAL}) ({_WHO}) ({_REST})\?", r"\1 \3 \2 \4", _TELL_ME),
        (rf"({_ASKING}) do (?!not )({_REST})\?", r"\1 \2", _TELL_ME),
        (
            rf"(should|is|are|was|were|has|have) ({_WHO}|there|this|that) ({_REST})\?",
            r"\2 \1 \3",
            _TELL_IF,
        ),
        (rf"do (?!not |tell )({_REST})\?", r"\1", _TELL_IF),
    )
)


class Edit(NamedTuple):
    """A place in a text, and the wordings that may stand there instead."""

    start: int
    end: int
    options: tuple[str, ...]


def edits(text: str, *, of_prompt: bool) -> list[Edit]:
    """All places where a wording may change, in order; some overlap, as a question and its words do."""
    prose = masked(text).replace("’", "'")
    found = chain(
        _phrase_edits(prose),
        _noun_pair_edits(prose),
        _small_word_edits(prose),
        _request_edits(prose) if of_prompt else (),
    )
    apostrophe = "’" if "’" in text else "'"
    return sorted(
        edit._replace(options=tuple(option.replace("'", apostrophe) for option in edit.options))
        for edit in found
    )


def conditions_last(text: str) -> str:
    """Turn "If it rains, we stay." into "We stay if it rains.", sentence by sentence."""
    return "".join(map(_condition_last, sentences(text)))


def _phrase_edits(prose: str) -> Iterator[Edit]:
    for match in _PHRASE.finditer(prose):
        start, phrase = match.start(), match[0]
        begins = _begins_sentence(prose, start)
        is_capital = phrase[0].isupper()
        is_name = is_capital and not begins and phrase.partition(" ")[0] not in _I
        if is_name or (len(phrase) > 1 and phrase.isupper()):
            continue
        word_before = _WORD_BEFORE.search(prose, max(0, start - 25), start)
        before = word_before[1].lower() if word_before and not begins else ""
        word_after = _WORD_AFTER.match(prose, match.end())
        after = word_after[1].lower() if word_after else "."
        options = [
            _capitalised(option.replacement) if is_capital and begins else option.replacement
            for option in LEXICON.get(phrase.lower(), ())
            if _fits(option, before, after, begins=begins)
        ]
        if word_before and before in ("a", "an"):
            start = word_before.start()
            options = [f"{_article(option, word_before[1])} {option}" for option in options]
        if options:
            yield Edit(start, match.end(), tuple(options))


def _fits(option: Wording, before: str, after: str, *, begins: bool) -> bool:
    """Whether the words around a phrase allow this wording."""
    if option.begins_sentence and not begins:
        return False
    if "#" in option.not_before and after.endswith(("ed", "en")):
        return False
    return after not in option.not_before and before not in option.not_after


def _noun_pair_edits(prose: str) -> Iterator[Edit]:
    """Turn "bread and butter" around, where no adjective or compound can be torn apart."""
    for match in _NOUN_PAIR.finditer(prose):
        first, second = match.groups()
        word_before = _WORD_BEFORE.search(prose, max(0, match.start() - 25), match.start())
        word_after = _WORD_AFTER.match(prose, match.end())
        if (
            first != second
            and {first, second} <= PLAIN_NOUNS
            and (word_before is None or word_before[1].lower() in FUNCTION_WORDS)
            and (word_after is None or word_after[1].lower() in FUNCTION_WORDS)
        ):
            yield Edit(match.start(), match.end(), (f"{second} and {first}",))


def _small_word_edits(prose: str) -> Iterator[Edit]:
    for pattern, options in _SMALL_WORDS:
        for match in pattern.finditer(prose):
            yield Edit(match.start(), match.end(), tuple(match.expand(option) for option in options))
    joints = list(_NEXT_SENTENCE.finditer(prose))
    if len(joints) <= _JOINED_AT_MOST:  # a text full of semicolons would be known by them
        for match in joints:
            first_word = match[0].split()[-1].lower()
            yield Edit(match.start(), match.end(), (f"; {first_word}", f", and {first_word}"))


def _request_edits(prose: str) -> Iterator[Edit]:
    """Orders made polite, and questions put indirectly."""
    if order := _ORDER.match(prose):
        yield Edit(0, order.end(), tuple(frame.format(order[0].lower()) for frame in _ORDERS))
    start = 0
    for sentence in sentences(prose):
        question = sentence.rstrip()
        for pattern, indirect, frames in _QUESTIONS:
            if match := pattern.fullmatch(question[:1].lower() + question[1:]):
                asked = match.expand(indirect)
                yield Edit(start, start + len(question), tuple(frame.format(asked) for frame in frames))
                break
        start += len(sentence)


def _condition_last(sentence: str) -> str:
    """Put the condition behind, unless a pronoun would come before its noun."""
    match = _CONDITION.fullmatch(sentence)
    if match is None or masked(sentence) != sentence:
        return sentence
    condition, main, end, space = match.groups()
    if main.split()[0].lower() in _REFERS_BACK.split() or " and " in main:
        return sentence
    return f"{_capitalised(main)} {condition[0].lower()}{condition[1:]}{end}{space}"


def _begins_sentence(prose: str, place: int) -> bool:
    """Whether only space, brackets or list marks stand between `place` and the end of what is before."""
    before = prose[max(0, place - 12) : place].rstrip(" \t\"'“‘([*_#>•-")
    return not before or before[-1] in ".!?…:\n"


def _capitalised(words: str) -> str:
    return words[0].upper() + words[1:]


def _article(word: str, article: str) -> str:
    """`a` or `an` as the word's first sound wants it, in the case of the article that was there."""
    vowel = word[0].lower() in "aeiou" and not word.startswith(("us", "uni", "eu", "one"))
    return article[0] + ("n" if vowel else "")
