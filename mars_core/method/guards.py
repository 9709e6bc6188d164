"""Guards: what a generated text must keep before anything is trained on it.

The store keeps what a generator said as it said it. On the way out every sample is cleaned and passes
these guards, cheap ones first; the first that it fails is the reason why it is dropped:

- It is whole, holds something, talks neither about the task nor beside it, declines only where its source
  does, and ends where the turn of the dialogue ends.
- It differs from its source, in about its length and in its language.
- A paraphrase means what its source means. A rewrite is as much about its prompt as the responses that it
  begins with, and leaves the order of its pair as it was, by the current reward model.

None needs a network. The first two lines judge by the text alone; what is done with embeddings and rewards
is timed apart. A few of the dropped texts are kept to be looked at: which ones does not depend on the order
in which answers arrive.
"""

import logging
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from functools import cache, lru_cache
from typing import Literal, NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from pydantic import Field

from mars_core.config import Configuration
from mars_core.data.dialogue import turns
from mars_core.files import digest
from mars_core.generation import CUT_OFF, Answer, Request
from mars_core.generation.cleaning import (
    clean,
    has_markup,
    is_several_versions,
    is_task_talk,
    is_whole,
    whole_sentences,
    without_tokens,
)
from mars_core.generation.instructions import Prompts
from mars_core.generation.interface import DECLINED
from mars_core.generation.refusals import is_refusal
from mars_core.method.semantics import Embedder

logger = logging.getLogger(__name__)

Reason = Literal[
    "cut off", "empty", "refusal", "markup", "talk about the task", "several versions", "another turn",
    "copy", "length", "language", "repetition", "not distinct", "meaning lost", "not farther",
    "beside the prompt", "order flipped", "surplus",
]  # fmt: skip
"""Why a generated text is not used."""


class Sample(NamedTuple):
    """A generated text as it would stand in a pair."""

    pair_id: str
    request: Request
    text: str
    key: str
    """Of the answer that it came in."""
    tokens: float
    """Its share of the answer's tokens, by its length."""
    place: int = 0
    """Which of the answer's samples it is."""


SHOWN = 4
"""Dropped texts that are kept of each reason."""
DIGITS = 4
"""Of what was measured of them: the last ones depend on which texts were embedded together."""
DROPPED = {
    "role": "str",
    "pair_id": "str",
    "source": "str",
    "text": "str",
    "reason": "str",
    "number": "float64",
}
"""Columns of the dropped texts that are shown, and their types."""


class Judge(Protocol):
    """Who knows rewards and margins of texts, such as a `RewardModel`."""

    def readouts(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float32]:
        """What is kept of aligned prompts and responses, [n, q]."""

    def rewards(self, readouts: NDArray[np.float32]) -> NDArray[np.float32]:
        """r(x, y), [n], from readouts [n, q]."""

    def margins(self, chosen: NDArray[np.float32], rejected: NDArray[np.float32]) -> NDArray[np.float32]:
        """logit P(chosen ≻ rejected), [n], from readouts [n, q]."""


CONFIDENCE = 0.9
"""Probability from which a language counts as known; of a short text it seldom is."""
FEW_CHARACTERS = 100
"""Lengths below it count as this one: a short text may well double."""
SHORT_SENTENCE = 15
"""Characters up to which a sentence may stand in a text twice."""
LONGEST_LOOP = 8
"""Words of the longest phrase that is looked for over and over."""
FEW_REPEATS = 3
"""How often a phrase may follow itself."""
_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"[.!?…。！？\n]+")


class GuardsConfig(Configuration):
    """What is asked of a generated text. Every guard is on by default."""

    min_similarity: float = Field(0.8, ge=-1, le=1)
    """Least cosine similarity of a paraphrase to its source; below it the meaning is taken as lost."""
    max_word_overlap: float = Field(0.98, ge=0, le=1)
    """Greatest share of words, in order, that a text has in common with its source; above it is a copy."""
    max_length_ratio: float = Field(2.0, ge=1)
    """How many times longer or shorter than its source a paraphrase may be."""
    relevance_tolerance: float = Field(0.1, ge=0)
    """How much less about its prompt, in cosine similarity, a rewrite may be than the more relevant of the
    pair's responses."""
    max_rewrite_length_ratio: float = Field(4.0, ge=1)
    """How many times longer or shorter than its source a rewrite may be."""
    order_tolerance: float = Field(0.1, ge=0)
    """ε, the margin by which a rewrite may put the rejected response above the chosen one."""
    cut_off: bool = True
    """Drop what ended at the token limit or was broken off; of a rewrite that ended at the limit the whole
    sentences stay."""
    refusals: bool = True
    """Drop a text that declines where its source does not."""
    task_talk: bool = True
    """Drop a text that still speaks of paraphrasing or rewriting after it was cleaned, holds control tokens,
    JSON or a stray code fence, or is a choice of several versions, where its source is none of these."""
    language: bool = True
    """Drop a text in another language than its source, where both are long enough to be told."""
    repetition: bool = True
    """Drop a text that says a sentence twice, or a few words over and over, where its source does not."""


class Guards:
    """Judges generated texts; `dropped` counts reasons and `seconds` the time of each kind of guard."""

    def __init__(
        self,
        config: GuardsConfig,
        embedder: Embedder,
        judge: Judge | None = None,
        prompts: Prompts | None = None,
    ) -> None:
        """Judge by `config`; `judge` is the current reward model, which only some texts need.

        A text that repeats what the model was told by `prompts` talks about the task.
        """
        self.config = config
        self.prompts = prompts
        self._embedder = embedder
        self._judge = judge
        self.dropped: Counter[Reason] = Counter()
        self.dropped_tokens: dict[Reason, float] = defaultdict(float)
        """Tokens that were paid for them."""
        self.seconds: dict[str, float] = defaultdict(float)
        """Seconds spent on `texts`, `embeddings` and `rewards`."""
        self.texts_cut = 0
        """Texts so far of which the embedder saw the beginning only."""
        self._counted: dict[Reason, set[tuple[str, int]]] = defaultdict(set)
        self._shown: dict[Reason, list[tuple[str, Sample, float]]] = defaultdict(list)

    def samples(self, pair_id: str, request: Request, answer: Answer) -> list[Sample]:
        """The samples of an answer that stand by themselves, clean; the others are counted."""
        with self._timed("texts"):
            told = self.prompts.sentences(request.role) if self.prompts else ()
            screened = list(screen(request, answer, self.config, told))
        lengths = [len(text) + 1 for text in answer.texts]
        kept = []
        for place, ((text, fault), length) in enumerate(zip(screened, lengths, strict=True)):
            tokens = answer.completion_tokens * length / sum(lengths)
            sample = Sample(pair_id, request, text, answer.key, tokens, place)
            if fault is None:
                kept.append(sample)
            else:
                self.drop(fault.reason, sample, fault.number)
        return kept

    def distances(self, texts: Sequence[str], others: Sequence[str]) -> NDArray[np.float32]:
        """Semantic distances of aligned texts: [n], [n] → [n]."""
        with self._timed("embeddings"):
            distances = self._embedder.distances(texts, others)
        if self._embedder.texts_cut and not self.texts_cut:
            logger.warning("Some generated texts, or their sources, are longer than the embedder reads")
        self.texts_cut = self._embedder.texts_cut
        return distances

    @property
    def judge(self) -> Judge:
        """The current reward model."""
        if self._judge is None:
            raise ValueError("these guards were made without a reward model")
        return self._judge

    def readouts(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float32]:
        """The current reward model's readouts: [n], [n] → [n, q]."""
        with self._timed("rewards"):
            return self.judge.readouts(prompts, responses)

    def rewards(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float32]:
        """The current reward model's rewards: [n], [n] → [n]."""
        return self.judge.rewards(self.readouts(prompts, responses))

    def drop(self, reason: Reason, sample: Sample, number: float = math.nan) -> None:
        """Count a text that is not used, by reason; `number` is what was measured of it."""
        self.dropped[reason] += 1
        bought = sample.key, sample.place
        if bought not in self._counted[reason]:  # one answer may serve several pairs
            self._counted[reason].add(bought)
            self.dropped_tokens[reason] += sample.tokens
        name = digest(sample.pair_id, sample.request.role, sample.text)
        shown = self._shown[reason]
        shown.append((name, sample, round(number, DIGITS)))
        shown.sort(key=lambda kept: kept[0])
        del shown[SHOWN:]

    def shown(self) -> pd.DataFrame:
        """Some of the dropped texts, `SHOWN` of each reason at most, in the columns of `DROPPED`."""
        rows = [
            (sample.request.role, sample.pair_id, sample.request.source, sample.text, reason, number)
            for reason, kept in sorted(self._shown.items())
            for _, sample, number in kept
        ]
        return pd.DataFrame(rows, columns=list(DROPPED)).astype(DROPPED)

    def reasons(self) -> str:
        """The drops so far, as an error message says them."""
        return ", ".join(f"{n} × {reason}" for reason, n in self.dropped.most_common())

    def metrics(self, section: str) -> dict[str, float]:
        """Drops by reason, seconds by kind of guard, and texts the embedder cut, as metrics of a section."""
        return {
            **{f"{section}/dropped/{reason}": float(n) for reason, n in self.dropped.items()},
            **{f"{section}/dropped_tokens/{reason}": float(n) for reason, n in self.dropped_tokens.items()},
            **{f"{section}/guards/{kind}_seconds": seconds for kind, seconds in self.seconds.items()},
            f"{section}/guards/seconds": sum(self.seconds.values()),
            f"{section}/guards/texts_cut": float(self.texts_cut),
        }

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[kind] += time.perf_counter() - started


class Verdict(NamedTuple):
    """What one guard says of one text."""

    reason: Reason
    """Why it would be dropped."""
    passed: bool
    number: float = math.nan
    """What was measured, where the guard measures."""
    limit: float = math.nan
    """What it was compared with."""


def screen(
    request: Request, answer: Answer, config: GuardsConfig, told: Sequence[str] = ()
) -> Iterator[tuple[str, Verdict | None]]:
    """Clean an answer's samples and judge them by their text: (the whole new text, why it is not used).

    The text is what would stand in the pair: of a longer dialogue, the prompt with its last turn replaced.
    `told` are sentences of what the model was told, which no text may repeat.
    """
    for raw, finish_reason in zip(answer.texts, answer.finish_reasons, strict=True):
        text = cleaned(raw, request, finish_reason)
        judged = verdicts(text, finish_reason, request, config, told)
        fault = next((verdict for verdict in judged if not verdict.passed), None)
        yield text if fault else request.whole(text), fault


def cleaned(raw: str, request: Request, finish_reason: str) -> str:
    """A sample without what a model says around the text that it was asked for.

    Of a rewrite that was cut off at its limit the whole sentences, if it has any.
    """
    if request.role == "respond":  # a text of its own, with whatever the model says in it
        return without_tokens(raw, request.source)
    text = clean(raw, request.source, introduced=request.role != "paraphrase_prompt")
    if finish_reason == "length" and _is_rewrite(request):
        return whole_sentences(text) or text
    return text


def verdicts(
    text: str, finish_reason: str, request: Request, config: GuardsConfig, told: Sequence[str] = ()
) -> Iterator[Verdict]:
    """What the guards that look at a cleaned text alone say of it, one after the other, cheap ones first."""
    source = request.source
    has_ended = finish_reason not in CUT_OFF or (
        finish_reason == "length" and _is_rewrite(request) and is_whole(text)
    )
    yield Verdict("cut off", has_ended or not config.cut_off)
    yield Verdict("empty", bool(text))
    if request.role == "respond":  # it may be long, short or a refusal
        yield Verdict("markup", not (config.task_talk and has_markup(text, source)))
        yield Verdict("another turn", _speakers(text) <= 1)
        return
    declines = finish_reason == DECLINED or (is_refusal(text) and not is_refusal(source))
    yield Verdict("refusal", not (config.refusals and declines))
    yield Verdict("markup", not (config.task_talk and has_markup(text, source)))
    echoes = any(sentence in text and sentence not in source for sentence in told)
    talks = config.task_talk and (echoes or is_task_talk(text, source))
    yield Verdict("talk about the task", not talks)
    several = is_several_versions(text, source, paraphrase=not _is_rewrite(request))
    yield Verdict("several versions", not (config.task_talk and several))
    yield Verdict("another turn", _speakers(text) <= max(1, _speakers(source)) and _fits(text, request))
    most = config.max_word_overlap
    copied = is_copy(text, source, most)
    yield Verdict("copy", not copied, overlap(text, source) if copied else math.nan, most)
    longest = config.max_rewrite_length_ratio if _is_rewrite(request) else config.max_length_ratio
    ratio = length_ratio(text, source)
    yield Verdict("length", ratio <= longest, ratio, longest)
    yield Verdict("language", not (config.language and differ_in_language(text, source)))
    yield Verdict("repetition", not (config.repetition and repeats(text) and not repeats(source)))


def _is_rewrite(request: Request) -> bool:
    return request.role.startswith("rewrite")


def _fits(text: str, request: Request) -> bool:
    """Whether a dialogue keeps its turns with the text in its place."""
    try:
        request.whole(text)
    except ValueError:
        return False
    return True


def folded(text: str) -> str:
    """A text without case and layout, for comparing."""
    return " ".join(text.casefold().split())


def is_copy(text: str, source: str, max_overlap: float) -> bool:
    """Whether two texts have more than this share of their words in common (see `overlap`), or all."""
    first, second = _words(text, source)
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    # Each is an upper bound of the next, and much cheaper.
    overlaps = (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)
    return first == second or all(overlap() > max_overlap for overlap in overlaps)


def overlap(text: str, source: str) -> float:
    """Share of words that two texts have in common, in the same order (`difflib`'s ratio), between 0 and 1.

    Case, layout and punctuation do not count, except in a text that has nothing else.
    """
    first, second = _words(text, source)
    return SequenceMatcher(None, first, second, autojunk=False).ratio()


def _words(text: str, source: str) -> tuple[list[str], list[str]]:
    first, second = (_WORD.findall(one.casefold()) or one.split() for one in (text, source))
    return first, second


def length_ratio(a: str, b: str) -> float:
    """How many times longer one text is than the other; at least 1."""
    short, long = sorted(max(FEW_CHARACTERS, len(text)) for text in (a, b))
    return long / short


def differ_in_language(a: str, b: str) -> bool:
    """Whether two texts are in different languages, as far as both can be told."""
    first, second = _language(a), _language(b)
    return "und" not in (first, second) and first != second


def repeats(text: str) -> bool:
    """Whether a text says a sentence twice, or a phrase of a few words more than `FEW_REPEATS` times on end.

    Case and punctuation do not count, nor do sentences of up to `SHORT_SENTENCE` characters.

    >>> repeats("Larks sing in flight. They are small. Larks sing in flight!")
    True
    """
    said = [" ".join(_WORD.findall(sentence)) for sentence in _SENTENCE_END.split(text.casefold())]
    long = [sentence for sentence in said if len(sentence) > SHORT_SENTENCE]
    return len(set(long)) < len(long) or _loops(_WORD.findall(text.casefold()))


def _loops(words: Sequence[str]) -> bool:
    """Whether words go round in a loop: one of few words may go round more often."""
    for length in range(1, LONGEST_LOOP + 1):
        equal = 0
        for word, earlier in zip(words[length:], words, strict=False):
            equal = equal + 1 if word == earlier else 0
            if equal >= max(FEW_REPEATS * length, LONGEST_LOOP):
                return True
    return False


def flips_order(before: ArrayLike, after: ArrayLike, tolerance: float) -> NDArray[np.bool_]:
    """Whether a rewrite sets the rejected response above the chosen one, beyond what it was.

    With the margins Δ of a pair before and after, [n] each: −Δ' > max(0, −Δ) + ε. A pair that the model had
    in the wrong order may stay so, for hard pairs are what the budget is for.
    """
    wrong_before = np.maximum(0, np.negative(before))
    flipped: NDArray[np.bool_] = np.negative(after) > wrong_before + tolerance
    return flipped


def _speakers(text: str) -> int:
    """Turns that a text holds if it is read as what somebody says in a dialogue."""
    return len(turns(f"Human: {text}"))


@lru_cache(maxsize=16_384)  # the samples of a text have one source, and rounds and arms have the same texts
def _language(text: str) -> str:
    language: str = _languages().classify(text)[0]
    return language


@cache
def _languages() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=CONFIDENCE)
