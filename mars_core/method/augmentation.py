"""Augmentation: a pair's budget → paraphrases of its texts → synthetic pairs (docs/method.md, step 5).

Variant 0 of a text is the text itself. With v_c chosen and v_r rejected variants a pair can give
v_c·v_r − 1 distinct synthetic pairs, so a budget b needs only the smallest v_c + v_r that suffices:
no paraphrase is wasted. A synthetic pair (c, r) joins chosen variant c, rejected variant r
and prompt variant (c + r) mod v_p, and inherits the order of its original.

`scheme: grid` is the paper's: every text of a synthetic pair is a paraphrase, c and r count from 1.

Guards may leave a pair with fewer texts than its budget needs. Missing texts are drawn again; the share of
the text's samples that was dropped decides how many more are asked for than are missing. At the last draw one
response may make up for the other. A text without a usable sample is given up early. Budget that is unused
after a few draws goes, in proportion to q, to the pairs that got all they asked for; what these cannot take
is the shortfall. That of a pair whose responses are both too short goes before anything is asked.

A pair proceeds as soon as its own answers have arrived, and those of the pairs that share a text with it. A
request depends on the configuration and these answers only, never on the order in which they arrive: a run
that is restarted finds its requests in the store. Samples that were stored for another budget are used if
they are enough, unless texts are free.
"""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset
from pydantic import Field, model_validator
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mars_core.config import Configuration
from mars_core.data.dialogue import last_user_turn
from mars_core.errors import MarsError
from mars_core.generation import Answer, Generator, Request, Role
from mars_core.generation.generator import Arrived
from mars_core.method.guards import Guards, Sample, folded
from mars_core.method.selection import capped_shares, largest_remainder

Part = Literal["prompt", "chosen", "rejected"]
PARTS: tuple[Part, ...] = ("prompt", "chosen", "rejected")
RESPONSES: tuple[Part, ...] = ("chosen", "rejected")
ROLES: dict[Part, Role] = {
    "prompt": "paraphrase_prompt",
    "chosen": "paraphrase_chosen",
    "rejected": "paraphrase_rejected",
}
HOPELESS_SAMPLES = 6
"""A text is given up after so many samples if all of them were dropped."""
PAIRS = pa.schema(
    {
        **dict.fromkeys(("synthetic_id", "parent_id", *PARTS), pa.string()),
        **{f"{part}_variant": pa.int64() for part in PARTS},
        "generator": pa.string(),
    }
)
VARIANTS = pa.schema(
    dict.fromkeys(("parent_id", "part"), pa.string())
    | {"variant": pa.int64()}
    | dict.fromkeys(("text", "request"), pa.string())
)


class AugmentationError(MarsError, RuntimeError):
    """No synthetic pair could be made; the message counts the reasons."""


class AugmentationConfig(Configuration):
    """How paraphrases become synthetic pairs."""

    scheme: Literal["minimal", "grid", "repeat", "west_of_n"] = "minimal"
    """`minimal` asks for the fewest paraphrases that give a pair its budget, `grid` is the paper's k × k. Two
    are baselines: `repeat` generates nothing and repeats the originals, `west_of_n` pairs the best and the
    worst of several sampled responses."""
    pool: int | None = Field(None, ge=1)
    """Make so many pairs of each original with a budget, and keep the easiest, those with the greatest margin
    under the current model (the published code's "WoN"); by default only the budget is made."""
    top_up: bool = False
    """Replace pairs that could not be made by originals, so that the arms of a comparison train on equally
    many pairs."""
    samples: int = Field(8, ge=2)
    """N of `west_of_n`: the responses sampled for one pair."""
    max_paraphrases: int = Field(5, ge=1)
    """k, the most paraphrases of one text."""
    draws: int = Field(3, ge=1)
    """How often paraphrases of a text are asked for, the first time included, before its pair counts as
    exhausted and its budget goes to other pairs. A pair that gets such budget has as many draws again."""
    min_characters: int = Field(0, ge=0)
    """Shorter texts are not paraphrased: a small model answers a short question instead of rewording it."""
    max_overasking: float = Field(3.0, ge=1)
    """Most samples to ask for each missing text, however many were dropped so far; 1 asks for exactly the
    missing ones."""

    @model_validator(mode="after")
    def _grid_takes_paraphrases_alone(self) -> "AugmentationConfig":
        if self.scheme == "grid" and self.min_characters:
            raise ValueError("the scheme grid paraphrases every text: set augmentation.min_characters=0")
        return self

    @property
    def writes_variants(self) -> bool:
        """Whether synthetic pairs are made from the texts of an original, rewritten or not."""
        return self.scheme in ("minimal", "grid")


class Variants(NamedTuple):
    """How many variants of each text a pair needs, the text itself included."""

    prompt: int
    chosen: int
    rejected: int


def capacity(config: AugmentationConfig, unit: Literal["pairs", "paraphrases"]) -> int:
    """Most budget units that one pair can take; any number if no paraphrases are made."""
    if not config.writes_variants:
        return sys.maxsize
    paraphrases = 2 * config.max_paraphrases
    return paraphrases if unit == "paraphrases" else pairs_of(paraphrases, config)


def pairs_of(paraphrases: int, config: AugmentationConfig) -> int:
    """Synthetic pairs that n⁺ + n⁻ paraphrases of a pair's responses give: (n⁺ + 1)(n⁻ + 1) − 1.

    In the grid, which uses no originals, it is n⁺·n⁻; one paraphrase, which alone gives no pair, counts as
    two.
    """
    original = 0 if config.scheme == "grid" else 1
    if not original and paraphrases == 1:
        paraphrases = 2
    return (paraphrases // 2 + original) * ((paraphrases + 1) // 2 + original) - original


def variants_for(budget: int, config: AugmentationConfig, *, chosen_first: bool) -> Variants:
    """The smallest number of chosen plus rejected variants that give `budget` pairs.

    If variants of one response alone suffice with as few texts, the other is not paraphrased, which saves a
    request. The prompt gets half as many variants as the less varied response, so that a pair with a small
    budget keeps its prompt. If the two numbers differ, `chosen_first` says which side has more. It alternates
    over pairs: if it were always the rejected side, a paraphrase would reveal which response lost.
    """
    grid = config.scheme == "grid"
    needed = budget if grid else budget + 1
    total = math.isqrt(4 * needed - 1) + 1  # ⌈2√needed⌉, the least a + b with a·b ≥ needed
    small, large = total // 2, total - total // 2
    if not grid and needed < total <= config.max_paraphrases + 2:
        small, large = 1, total - 1
    chosen, rejected = (large, small) if chosen_first else (small, large)
    if grid:
        return Variants(large + 1, chosen + 1, rejected + 1)
    return Variants((small + 1) // 2, chosen, rejected)


def cells(variants: Variants, config: AugmentationConfig) -> Iterator[tuple[int, int, int]]:
    """(prompt, chosen, rejected) variant numbers of a pair's synthetic pairs, by rising c + r."""
    first = 1 if config.scheme == "grid" else 0
    prompts = range(first, variants.prompt)
    grid = sorted(
        ((c, r) for c in range(first, variants.chosen) for r in range(first, variants.rejected)),
        key=lambda cell: (sum(cell), cell),
    )
    for c, r in grid:
        if prompts and (c, r) != (0, 0):
            yield prompts[(c + r) % len(prompts)], c, r


def room(variants: Variants, config: AugmentationConfig) -> int:
    """The number of distinct synthetic pairs that variants give: the number of `cells`."""
    first = 1 if config.scheme == "grid" else 0
    of_responses = (variants.chosen - first) * (variants.rejected - first) - (1 - first)
    return of_responses if variants.prompt > first else 0


@dataclass
class Parent:
    """An original with a budget; its responses may be rewritten."""

    pair_id: str
    prompt: str
    chosen: str
    rejected: str
    budget: int
    log_q: float = 0.0
    """Logarithm of its probability, up to a constant; unused budget is divided in proportion to it."""
    texts: dict[Part, list[str]] = field(default_factory=dict)
    """Variants of each text so far; number 0 is the text itself. There may be more than the budget needs."""
    requests: dict[Part, list[str]] = field(default_factory=dict)
    """Key of the request that gave each variant; empty for the text itself."""
    tokens: dict[Part, list[float]] = field(default_factory=dict)
    """Tokens that each variant cost; none for the text itself."""
    draws: Counter[Part] = field(default_factory=Counter)
    """How often paraphrases of each text were asked for."""
    asked: Counter[Part] = field(default_factory=Counter)
    """Number of samples of each text."""
    kept: Counter[Part] = field(default_factory=Counter)
    """Number of samples of each text that became variants."""
    failed: dict[Part, Request] = field(default_factory=dict)
    """The last request for paraphrases of a text if it failed; it is sent again before any other."""
    given_up: set[Part] = field(default_factory=set)
    """Texts that are given up: too long for the generator, or without a usable sample."""
    exhausted: bool = False
    """Whether the guards left it with less than its budget; then it takes no further budget."""

    def __post_init__(self) -> None:
        """Start with the texts themselves."""
        self.texts = {part: [getattr(self, part)] for part in PARTS}
        self.requests = {part: [""] for part in PARTS}
        self.tokens = {part: [0.0] for part in PARTS}

    @property
    def longest_response(self) -> int:
        """Characters of the longer response."""
        return max(len(self.chosen), len(self.rejected))

    def give_up_short(self, min_characters: int) -> None:
        """Give up the texts that are shorter, and the budget if both responses are."""
        self.given_up |= {part for part in PARTS if len(_meant(part, getattr(self, part))) < min_characters}
        if self.given_up.issuperset(RESPONSES):
            self.budget, self.exhausted = 0, True

    def have(self) -> Variants:
        """How many variants there are."""
        return Variants(*(len(self.texts[part]) for part in PARTS))

    def wanted(self, config: AugmentationConfig) -> Variants:
        """How many variants the budget needs."""
        coin = bool(sum(self.pair_id.encode()) & 1)  # the same on every machine
        return variants_for(self.budget, config, chosen_first=coin)

    def used(self, config: AugmentationConfig) -> Variants:
        """The variants that become pairs: those the budget needs, or all if some of these are missing."""
        have = self.have()
        planned = Variants(*map(min, have, self.wanted(config)))
        return planned if room(planned, config) >= self.budget else have

    def surplus(self, config: AugmentationConfig) -> float:
        """Tokens of the variants that are in no pair."""
        used = self.used(config) if self.budget else Variants(1, 1, 1)
        return sum(sum(self.tokens[part][number:]) for part, number in zip(PARTS, used, strict=True))

    def lacks(self, config: AugmentationConfig, *, last: bool = False) -> Iterator[tuple[Part, int]]:
        """The parts that need more variants for the budget, and how many.

        At the `last` draw, or if a response was given up, the other one makes up for it.
        """
        if not self.budget:
            return
        have, wanted = self.have(), self.wanted(config)
        if wanted.prompt > have.prompt and "prompt" not in self.given_up:
            yield "prompt", wanted.prompt - have.prompt
        if room(have, config) >= self.budget:  # extra variants of one response already made up for the other
            return
        short = [part for part in RESPONSES if getattr(wanted, part) > getattr(have, part)]
        others = set(RESPONSES) - set(short) - self.given_up
        if (last or self.given_up.intersection(short)) and len(short) == 1 and others:
            (other,) = others
            for number in range(getattr(have, other) + 1, config.max_paraphrases + 2):
                if room(have._replace(**{other: number}), config) >= self.budget:
                    yield other, number - getattr(have, other)
                    return
        for part in short:
            if part not in self.given_up:
                yield part, getattr(wanted, part) - getattr(have, part)


class Augmentation(NamedTuple):
    """The result of spending a round's budget."""

    pairs: Dataset
    """The columns of `PAIRS`: synthetic pairs, the numbers of the variants in them, and who wrote them."""
    variants: Dataset
    """The columns of `VARIANTS`: every new text in them, and the key of the request that gave it."""
    moved: int
    """Budget that went to other pairs because texts were too short, or the guards dropped too many."""
    shortfall: int
    """Budget that could not be spent at all."""
    tokens: int
    """Tokens read and written for all answers, stored ones included."""
    surplus_tokens: float = 0.0
    """Tokens of texts that passed the guards and that no pair needed."""


def augment(
    parents: Sequence[Parent],
    generator: Generator,
    guards: Guards,
    config: AugmentationConfig,
    *,
    unit: Literal["pairs", "paraphrases"] = "pairs",
    cap: int | None = None,
    label: str = "",
    on_answer: Callable[[], object] | None = None,
) -> Augmentation:
    """Spend each parent's budget.

    Args:
        parents: originals with a budget. They are changed: their texts and, in pairs, their budgets.
        generator: writes the paraphrases.
        guards: judge them.
        config: scheme, k, draws.
        unit: what a budget counts; see `pairs_of` for paraphrases.
        cap: most units that one parent may have, budget from other pairs included (see
            `selection.effective_cap`); by default its capacity.
        label: begins every synthetic id, so that the ids of rounds differ.
        on_answer: called once for every request that is answered.

    Raises:
        AugmentationError: no pair could be made; the message counts the reasons.
    """
    most = cap or capacity(config, unit)
    if unit == "paraphrases":
        most = pairs_of(most, config)
        for parent in parents:
            parent.budget = pairs_of(parent.budget, config)
    planned = [parent.budget for parent in parents]
    wanted = sum(planned)
    for parent in parents:
        parent.give_up_short(config.min_characters)
    _give(parents, wanted - sum(parent.budget for parent in parents), most)

    purchase = _Purchase(generator, guards, config, on_answer)
    purchase.buy(parents)
    _settle(parents, config)
    while takers := _give(parents, wanted - sum(parent.budget for parent in parents), most):
        purchase.buy(takers)
        _settle(takers, config)

    name = generator.backend.name
    pairs = table(PAIRS, (row for parent in parents for row in _synthetic_pairs(parent, name, config, label)))
    if not len(pairs):
        raise AugmentationError(
            f"{name} gave no usable paraphrase of {len(parents)} pairs: "
            f"{guards.reasons() or 'it returned no text'}; look at its texts in the store of generations, "
            "or loosen the guards that dropped them (guards.*)"
        )
    gained = sum(max(0, parent.budget - before) for parent, before in zip(parents, planned, strict=True))
    return Augmentation(
        pairs=pairs,
        variants=table(VARIANTS, (row for parent in parents for row in _new_texts(parent, config))),
        moved=gained,
        shortfall=wanted - len(pairs),
        tokens=sum(purchase.paid.values()),
        surplus_tokens=sum(parent.surplus(config) for parent in parents),
    )


@dataclass
class _Group:
    """Parents that share texts; they proceed together from one draw to the next."""

    parents: list[Parent]
    draw: int = 0
    waiting: int = 0
    """Number of answers that have not arrived yet."""
    answered: list[tuple[int, Parent, Part, Request, Answer]] = field(default_factory=list)
    """The answers of this draw: the place of each request in it, its topic, and its answer."""


Topic = tuple[_Group, int, Parent, Part]


class _Purchase:
    """Buys paraphrases, group by group."""

    def __init__(
        self,
        generator: Generator,
        guards: Guards,
        config: AugmentationConfig,
        on_answer: Callable[[], object] | None,
    ) -> None:
        self.generator = generator
        self.guards = guards
        self.config = config
        self.on_answer = on_answer
        self.paid: dict[str, int] = {}
        """Tokens of each answer by its key; one answer serves every pair of a text."""

    def buy(self, parents: Sequence[Parent]) -> None:
        """Ask for the variants that the parents lack, up to `draws` times; all samples of a text at once."""
        # The longest texts first: otherwise the servers wait for them and their further draws at the end.
        groups = [_Group(members) for members in _with_texts_in_common(parents)]
        groups.sort(key=lambda group: -max(parent.longest_response for parent in group.parents))
        first = [asked for group in groups for asked in self._draw(group)]
        self.generator.converse(first, self._take, self.on_answer)

    def _take(self, arrived: Sequence[Arrived[Topic]]) -> Iterator[tuple[Topic, Request]]:
        """Judge the groups whose answers have all arrived, and return the next requests."""
        complete = []
        for (group, place, parent, part), request, answer in arrived:
            group.answered.append((place, parent, part, request, answer))
            group.waiting -= 1
            if not group.waiting:
                complete.append(group)
        self._judge(complete)
        for group in complete:
            group.draw += 1
            yield from self._draw(group)

    def _draw(self, group: _Group) -> list[tuple[Topic, Request]]:
        """The requests of a group's next draw: one for each text that lacks variants."""
        group.answered = []
        while group.draw < self.config.draws:
            is_last = 0 < group.draw == self.config.draws - 1
            lacking = [
                (parent, part, n)
                for parent in group.parents
                for part, n in parent.lacks(self.config, last=is_last)
            ]
            if lacking:
                requests = [self._request(*lack) for lack in lacking]
                own = set(map(self.generator.backend.key, requests))
                requests = [
                    self._stored(request, n, own)
                    for request, (_, _, n) in zip(requests, lacking, strict=True)
                ]
                group.waiting = len(requests)
                return [
                    ((group, place, parent, part), request)
                    for place, (request, (parent, part, _)) in enumerate(zip(requests, lacking, strict=True))
                ]
            group.draw += 1
        return []

    def _judge(self, groups: Sequence[_Group]) -> None:
        """Keep the texts that pass the guards; a draw's answers are judged in the order of the requests."""
        drawn: list[tuple[Parent, Part, Sample]] = []
        for group in groups:
            for _, parent, part, request, answer in sorted(group.answered, key=lambda answered: answered[0]):
                self.paid[answer.key] = answer.prompt_tokens + answer.completion_tokens
                if answer.refused:
                    parent.given_up.add(part)
                elif answer.error is not None:
                    parent.failed[part] = request
                else:
                    parent.asked[part] += request.n
                    drawn += [
                        (parent, part, sample)
                        for sample in self.guards.samples(parent.pair_id, request, answer)
                    ]
        for (parent, part, sample), similarity in zip(drawn, self._similarities(drawn), strict=True):
            if similarity < self.guards.config.min_similarity:
                self.guards.drop("meaning lost", sample, similarity)
            elif _taken(sample.text, parent, part):
                self.guards.drop("not distinct", sample)
            else:
                parent.kept[part] += 1
                parent.texts[part].append(sample.text)
                parent.requests[part].append(sample.key)
                parent.tokens[part].append(sample.tokens)
        for parent in (parent for group in groups for parent in group.parents):
            parent.given_up |= {
                part for part in PARTS if parent.asked[part] >= HOPELESS_SAMPLES and not parent.kept[part]
            }

    def _request(self, parent: Parent, part: Part, missing: int) -> Request:
        """Ask for the paraphrases that are missing; every further request for a text is another draw."""
        if part in parent.failed:
            return parent.failed.pop(part)
        draw = parent.draws[part]
        parent.draws[part] += 1
        n = samples_for(missing, parent.asked[part], parent.kept[part], self.config.max_overasking)
        return Request(ROLES[part], parent.prompt, parent.chosen, parent.rejected, n, draw)

    def _stored(self, request: Request, missing: int, own: Set[str]) -> Request:
        """The same request with as many samples as the store has, if these are enough.

        Samples that another pair of the group asks for, with keys in `own`, are left to that pair, so that an
        interruption of the run changes nothing. Free texts are asked for as wanted: so a run's results do not
        depend on other runs.
        """
        if self.generator.backend.free or self.generator.has(request):
            return request
        most = math.floor(self.config.max_paraphrases * self.config.max_overasking)
        others = (replace(request, n=n) for n in range(missing, most + 1))
        key = self.generator.backend.key
        return next(
            (other for other in others if self.generator.has(other) and key(other) not in own), request
        )

    def _similarities(self, drawn: Sequence[tuple[Parent, Part, Sample]]) -> list[float]:
        """Cosine similarity of each text to its source."""
        if not drawn:
            return []
        texts = [_meant(part, sample.text) for _, part, sample in drawn]
        sources = [_meant(part, parent.texts[part][0]) for parent, part, _ in drawn]
        similarities: list[float] = (1 - self.guards.distances(texts, sources)).tolist()
        return similarities


def _with_texts_in_common(parents: Sequence[Parent]) -> list[list[Parent]]:
    """Parents in groups: two that share a text are in one group, such as all pairs of a prompt."""
    places: dict[tuple[Part, str], int] = {}
    texts = [
        (row, places.setdefault((part, getattr(parent, part)), len(places)))
        for row, parent in enumerate(parents)
        for part in PARTS
    ]
    rows, columns = (np.array(of_texts, dtype=np.intp) for of_texts in zip(*texts, strict=True))
    size = len(parents) + len(places)
    links = coo_array((np.ones(len(rows)), (rows, columns + len(parents))), shape=(size, size))
    _, labels = connected_components(links, directed=False)
    groups: dict[int, list[Parent]] = {}
    for parent, label in zip(parents, labels, strict=False):
        groups.setdefault(int(label), []).append(parent)
    return list(groups.values())


def samples_for(missing: int, asked: int, kept: int, most: float) -> int:
    """Samples to ask for so that `missing` texts can be expected, if `kept` of `asked` so far were kept.

    missing / (1 − d) with the drop rate d so far (counted with one more kept sample, because the first few
    say little), rounded to the nearest whole number, and at most `most` times what is missing. Rounding up
    would double the price of a single text after any drop.
    """
    expected = missing * (asked + 1) / (kept + 1)
    return max(missing, math.floor(min(expected + 0.5, missing * most)))


def _meant(part: Part, text: str) -> str:
    """The part that a paraphrase may change: in a long dialogue earlier turns would hide a lost meaning."""
    return last_user_turn(text) if part == "prompt" else text


def _taken(text: str, parent: Parent, part: Part) -> bool:
    """Whether a text is already a variant of its own part, or of the response it must differ from."""
    others = (
        parent.texts["prompt"] if part == "prompt" else [*parent.texts["chosen"], *parent.texts["rejected"]]
    )
    return folded(text) in map(folded, others)


def _settle(parents: Sequence[Parent], config: AugmentationConfig) -> None:
    """Lower each budget to the number of pairs that the parent's variants give."""
    for parent in parents:
        possible = room(parent.have(), config)
        if possible < parent.budget:
            parent.budget, parent.exhausted = possible, True


def _give(parents: Sequence[Parent], left: int, most: int) -> list[Parent]:
    """Divide the rest by q among the parents that have a budget and can take more; returns those that did."""
    takers: dict[str, Parent] = {}
    while left and (able := [p for p in parents if 0 < p.budget < most and not p.exhausted]):
        shares = capped_shares(np.array([parent.log_q for parent in able]), left, left)
        names = [parent.pair_id for parent in able]
        for parent, share in zip(able, largest_remainder(shares, left, left, names), strict=True):
            extra = min(int(share), most - parent.budget)
            if extra:
                parent.budget += extra
                left -= extra
                takers[parent.pair_id] = parent
    return list(takers.values())


def _synthetic_pairs(
    parent: Parent, generator: str, config: AugmentationConfig, label: str
) -> Iterator[tuple[str | int, ...]]:
    if not parent.budget:
        return
    for p, c, r in islice(cells(parent.used(config), config), parent.budget):
        texts = (parent.texts[part][number] for part, number in zip(PARTS, (p, c, r), strict=True))
        yield f"{label}{parent.pair_id}-p{p}c{c}r{r}", parent.pair_id, *texts, p, c, r, generator


def _new_texts(parent: Parent, config: AugmentationConfig) -> Iterator[tuple[str | int, ...]]:
    if not parent.budget:
        return
    for part, number_used in zip(PARTS, parent.used(config), strict=True):
        for number in range(1, number_used):
            text, request = parent.texts[part][number], parent.requests[part][number]
            yield parent.pair_id, part, number, text, request


def table(schema: pa.Schema, rows: Iterator[tuple[str | int, ...]]) -> Dataset:
    """Rows as an Arrow table, converted some thousand at a time."""
    batches = []
    while some := list(islice(rows, 10_000)):
        batches.append(pa.record_batch(list(zip(*some, strict=True)), schema=schema))
    return Dataset(pa.Table.from_batches(batches, schema))
