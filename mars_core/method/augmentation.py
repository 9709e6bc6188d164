"""Augmentation: a pair's budget → paraphrases of its texts → synthetic pairs (docs/method.md, step 5).

Variant 0 of a text is the text itself. With v_c chosen and v_r rejected variants a pair can give
v_c·v_r − 1 distinct synthetic pairs, so a budget b needs only the smallest v_c + v_r that suffices:
no text is paraphrased for nothing. A synthetic pair (c, r) joins chosen variant c, rejected variant r
and prompt variant (c + r) mod v_p, and inherits the order of its original.

`scheme: grid` is the paper's: every text of a synthetic pair is a paraphrase, c and r count from 1.

Guards may leave a pair with fewer texts than its budget needs. So more is asked for than is missing, by the
share of each role's samples that was dropped so far, and what is missing still is drawn again; at the last
draw one response may make up for the other. What a few draws do not give goes, in proportion to q, to the
pairs that got all they asked for; what none of these can take is the shortfall. A request follows from the
configuration and the answers before it alone, so that a run that is started again asks for what the store
has. Where requests failed before, the drop rate is another one now; stored samples that are enough are then
taken all the same, unless they cost nothing.
"""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset
from pydantic import Field

from mars_core.config import Configuration
from mars_core.data.dialogue import last_user_turn
from mars_core.errors import MarsError
from mars_core.generation import Generator, Request, Role
from mars_core.method.guards import Guards, folded
from mars_core.method.selection import capped_shares, largest_remainder

Part = Literal["prompt", "chosen", "rejected"]
PARTS: tuple[Part, ...] = ("prompt", "chosen", "rejected")
RESPONSES: tuple[Part, ...] = ("chosen", "rejected")
ROLES: dict[Part, Role] = {
    "prompt": "paraphrase_prompt",
    "chosen": "paraphrase_chosen",
    "rejected": "paraphrase_rejected",
}
PILOT_REQUESTS = 128
"""Requests of a step that are answered before the others, which then ask for more where texts are dropped."""
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
    """`minimal` buys the fewest paraphrases that give a pair its budget, `grid` is the paper's k × k. Two are
    baselines: `repeat` generates nothing and takes the originals again, `west_of_n` pairs the best and the
    worst of several sampled responses."""
    pool: int | None = Field(None, ge=1)
    """Make this many pairs of each original with a budget and keep the easiest, those of the greatest margin
    by the current model (the published code's "WoN"); by default what is made is the budget."""
    top_up: bool = False
    """Fill what could not be made with originals again, so that the arms of a comparison train on equally
    many pairs."""
    samples: int = Field(8, ge=2)
    """N of `west_of_n`: the responses sampled for one pair."""
    max_paraphrases: int = Field(5, ge=1)
    """k, the most paraphrases of one text."""
    draws: int = Field(3, ge=1)
    """How often paraphrases of a text are asked for, the first time included, before its pair counts as
    exhausted and its budget moves on. A pair that takes moved budget is asked for as often again."""
    max_overasking: float = Field(3.0, ge=1)
    """Most samples asked for each text that is missing, however many were dropped so far; 1 never asks for
    more than is missing."""

    @property
    def writes_variants(self) -> bool:
        """Whether synthetic pairs are made of the texts of an original, rewritten ones if it was."""
        return self.scheme in ("minimal", "grid")


class Variants(NamedTuple):
    """How many variants of each text a pair needs, the text itself included."""

    prompt: int
    chosen: int
    rejected: int


def capacity(config: AugmentationConfig, unit: Literal["pairs", "paraphrases"]) -> int:
    """Most budget units that one pair can take; where no paraphrases are made, any number."""
    if not config.writes_variants:
        return sys.maxsize
    paraphrases = 2 * config.max_paraphrases
    return paraphrases if unit == "paraphrases" else pairs_of(paraphrases, config)


def pairs_of(paraphrases: int, config: AugmentationConfig) -> int:
    """Synthetic pairs that n⁺ + n⁻ paraphrases of a pair's responses give: (n⁺ + 1)(n⁻ + 1) − 1.

    In the grid, which takes no originals, it is n⁺·n⁻; one paraphrase, which alone gives none, counts as two.
    """
    original = 0 if config.scheme == "grid" else 1
    if not original and paraphrases == 1:
        paraphrases = 2
    return (paraphrases // 2 + original) * ((paraphrases + 1) // 2 + original) - original


def variants_for(budget: int, config: AugmentationConfig, *, chosen_first: bool) -> Variants:
    """The smallest number of chosen plus rejected variants that give `budget` pairs.

    Where variants of one response alone give it with as few texts, the other is not paraphrased at all, which
    saves a request. The prompt gets half as many variants as the less varied response: a pair of small budget
    keeps its prompt. Where the two numbers differ, `chosen_first` says which side has more. It alternates
    over pairs: were it always the rejected side, a paraphrase would tell the model which response lost.
    """
    grid = config.scheme == "grid"
    needed = budget if grid else budget + 1
    total = math.isqrt(4 * needed - 1) + 1  # ⌈2√needed⌉, the least sum of two factors that reach it
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
    """How many distinct synthetic pairs some variants give: the number of `cells`."""
    first = 1 if config.scheme == "grid" else 0
    of_responses = (variants.chosen - first) * (variants.rejected - first) - (1 - first)
    return of_responses if variants.prompt > first else 0


@dataclass
class Parent:
    """An original with a budget, its responses as rewriting left them."""

    pair_id: str
    prompt: str
    chosen: str
    rejected: str
    budget: int
    log_q: float = 0.0
    """Logarithm of its probability, up to a constant: in proportion to it budget moves."""
    texts: dict[Part, list[str]] = field(default_factory=dict)
    """Variants of each text so far, number 0 being the text itself; at times more than the budget needs."""
    requests: dict[Part, list[str]] = field(default_factory=dict)
    """Key of the request that gave each variant; empty for the text itself."""
    draws: Counter[Part] = field(default_factory=Counter)
    """How often paraphrases of each text were asked for."""
    failed: dict[Part, Request] = field(default_factory=dict)
    """The last request for paraphrases of a text, if it got no answer; it is sent again before any other."""
    refused: set[Part] = field(default_factory=set)
    """Texts of which the generator takes no request, such as those too long for it; none is sent again."""
    exhausted: bool = False
    """Whether guards left it with less than its budget; then it can take no more."""

    def __post_init__(self) -> None:
        """Begin with the texts themselves."""
        self.texts = {part: [getattr(self, part)] for part in PARTS}
        self.requests = {part: [""] for part in PARTS}

    def have(self) -> Variants:
        """How many variants there are."""
        return Variants(*(len(self.texts[part]) for part in PARTS))

    def wanted(self, config: AugmentationConfig) -> Variants:
        """How many variants the budget needs."""
        coin = bool(sum(self.pair_id.encode()) & 1)  # falls the same way on every machine
        return variants_for(self.budget, config, chosen_first=coin)

    def used(self, config: AugmentationConfig) -> Variants:
        """The variants that become pairs: those the budget needs, or all where some of these are missing."""
        have = self.have()
        planned = Variants(*map(min, have, self.wanted(config)))
        return planned if room(planned, config) >= self.budget else have

    def lacks(self, config: AugmentationConfig, *, last: bool = False) -> Iterator[tuple[Part, int]]:
        """The parts of which the budget needs more variants, and how many more.

        At the `last` draw, where one response alone still has too few, the other makes up for it.
        """
        if not self.budget:
            return
        have, wanted = self.have(), self.wanted(config)
        if wanted.prompt > have.prompt and "prompt" not in self.refused:
            yield "prompt", wanted.prompt - have.prompt
        if room(have, config) >= self.budget:  # more of the one response made up for the other already
            return
        short = [part for part in RESPONSES if getattr(wanted, part) > getattr(have, part)]
        others = set(RESPONSES) - set(short) - self.refused
        if last and len(short) == 1 and others:
            (other,) = others
            for number in range(getattr(have, other) + 1, config.max_paraphrases + 2):
                if room(have._replace(**{other: number}), config) >= self.budget:
                    yield other, number - getattr(have, other)
                    return
        for part in short:
            if part not in self.refused:
                yield part, getattr(wanted, part) - getattr(have, part)


class Augmentation(NamedTuple):
    """What a round's budget bought."""

    pairs: Dataset
    """The columns of `PAIRS`: synthetic pairs, the numbers of the variants in them, and who wrote them."""
    variants: Dataset
    """The columns of `VARIANTS`: every new text in them, and the key of the request that gave it."""
    moved: int
    """Budget that went to other pairs because guards ate too much."""
    shortfall: int
    """Budget that could not be spent at all."""
    tokens: int
    """Tokens in and out of all answers, those that were in the store included."""


def augment(
    parents: Sequence[Parent],
    generator: Generator,
    guards: Guards,
    config: AugmentationConfig,
    *,
    unit: Literal["pairs", "paraphrases"] = "pairs",
    cap: int | None = None,
    label: str = "",
    on_answer: Callable[[int], None] | None = None,
) -> Augmentation:
    """Spend each parent's budget.

    Args:
        parents: originals with a budget. They are changed: their texts and, in pairs, their budgets.
        generator: writes the paraphrases.
        guards: judge them.
        config: scheme, k, draws.
        unit: what a budget counts; see `pairs_of` for paraphrases.
        cap: most units that one parent may have once budget was moved (see `selection.effective_cap`); by
            default its capacity.
        label: begins every synthetic id, so that the ids of rounds differ.
        on_answer: called once for every request that is answered.

    Raises:
        AugmentationError: not one pair could be made; counts the reasons.
    """
    most = cap or capacity(config, unit)
    if unit == "paraphrases":
        most = pairs_of(most, config)
        for parent in parents:
            parent.budget = pairs_of(parent.budget, config)
    wanted = sum(parent.budget for parent in parents)

    purchase = _Purchase(generator, guards, config, on_answer)
    purchase.buy(parents)
    short = wanted - _settle(parents, config)
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
    shortfall = wanted - len(pairs)
    return Augmentation(
        pairs=pairs,
        variants=table(VARIANTS, (row for parent in parents for row in _new_texts(parent, config))),
        moved=short - shortfall,
        shortfall=shortfall,
        tokens=sum(purchase.paid.values()),
    )


class _Purchase:
    """Buys paraphrases, and remembers what share of each role's samples could be used."""

    def __init__(
        self,
        generator: Generator,
        guards: Guards,
        config: AugmentationConfig,
        on_answer: Callable[[int], None] | None,
    ) -> None:
        self.generator = generator
        self.guards = guards
        self.config = config
        self.on_answer = on_answer
        self.asked: Counter[Role] = Counter()
        self.kept: Counter[Role] = Counter()
        self.wanted: set[str] = set()
        self.paid: dict[str, int] = {}
        """Tokens of each answer by its key; one answer serves every pair of a text."""

    def buy(self, parents: Sequence[Parent]) -> None:
        """Ask for the variants that the parents lack, `draws` times; all samples of a text at once."""
        for draw in range(self.config.draws):
            is_last = 0 < draw == self.config.draws - 1
            lacking = [
                (parent, part, n) for parent in parents for part, n in parent.lacks(self.config, last=is_last)
            ]
            pilot = 0 if self.asked else PILOT_REQUESTS
            for wave in (lacking[:pilot], lacking[pilot:]):
                self._draw(wave)

    def _draw(self, lacking: Sequence[tuple[Parent, Part, int]]) -> None:
        """Send one request for each text of which variants are missing, and keep what passes the guards."""
        requests = [self._request(*lack) for lack in lacking]
        self.wanted.update(map(self.generator.backend.key, requests))
        requests = [self._stored(request, n) for request, (_, _, n) in zip(requests, lacking, strict=True)]
        answers = self.generator.generate(requests, self.on_answer) if requests else []
        drawn: list[tuple[Parent, Part, str, str]] = []
        for (parent, part, _), request, answer in zip(lacking, requests, answers, strict=True):
            self.paid[answer.key] = answer.prompt_tokens + answer.completion_tokens
            if answer.refused:
                parent.refused.add(part)
                continue
            if answer.error is not None:
                parent.failed[part] = request
                continue
            self.asked[request.role] += request.n
            drawn += [(parent, part, text, answer.key) for text in self.guards.texts(request, answer)]
        for (parent, part, text, key), similarity in zip(drawn, self._similarities(drawn), strict=True):
            if similarity < self.guards.config.min_similarity:
                self.guards.drop("meaning lost")
            elif _taken(text, parent, part):
                self.guards.drop("not distinct")
            else:
                self.kept[ROLES[part]] += 1
                parent.texts[part].append(text)
                parent.requests[part].append(key)

    def _request(self, parent: Parent, part: Part, missing: int) -> Request:
        """Ask for the paraphrases that are missing; every further request for a text is another draw."""
        if part in parent.failed:
            return parent.failed.pop(part)
        role, draw = ROLES[part], parent.draws[part]
        parent.draws[part] += 1
        n = samples_for(missing, self.asked[role], self.kept[role], self.config.max_overasking)
        return Request(role, parent.prompt, parent.chosen, parent.rejected, n, draw)

    def _stored(self, request: Request, missing: int) -> Request:
        """The same request with as many samples as the store has of it, where these are enough.

        Those that another pair of the same text wants are left to it, lest it matters when a run is stopped.
        Of texts that cost nothing as many are asked for as are wanted: what a run makes then does not depend
        on what others have asked for.
        """
        if self.generator.backend.free or self.generator.has(request):
            return request
        most = math.floor(self.config.max_paraphrases * self.config.max_overasking)
        others = (replace(request, n=n) for n in range(missing, most + 1))
        key = self.generator.backend.key
        stored = (other for other in others if self.generator.has(other) and key(other) not in self.wanted)
        return next(stored, request)

    def _similarities(self, drawn: Sequence[tuple[Parent, Part, str, str]]) -> list[float]:
        """Cosine similarity of each text to its source."""
        if not drawn:
            return []
        texts = [_meant(part, text) for _, part, text, _ in drawn]
        sources = [_meant(part, parent.texts[part][0]) for parent, part, _, _ in drawn]
        similarities: list[float] = (1 - self.guards.distances(texts, sources)).tolist()
        return similarities


def samples_for(missing: int, asked: int, kept: int, most: float) -> int:
    """Samples to ask for so that `missing` texts may be expected, when of `asked` so far `kept` were good.

    missing / (1 − d) with the drop rate d so far (as if one more sample had been good, for the first ones say
    little), to the nearest whole number, and at most `most` times what is missing. Rounding up would double
    the price of a single text for the sake of any drop at all.
    """
    expected = missing * (asked + 1) / (kept + 1)
    return max(missing, math.floor(min(expected + 0.5, missing * most)))


def _meant(part: Part, text: str) -> str:
    """What a paraphrase may change: in a long dialogue the turns before it would hide a lost meaning."""
    return last_user_turn(text) if part == "prompt" else text


def _taken(text: str, parent: Parent, part: Part) -> bool:
    """Whether a text is a variant already: of its own part, or of the response it must differ from."""
    others = (
        parent.texts["prompt"] if part == "prompt" else [*parent.texts["chosen"], *parent.texts["rejected"]]
    )
    return folded(text) in map(folded, others)


def _settle(parents: Sequence[Parent], config: AugmentationConfig) -> int:
    """Lower each budget to what the parent's variants give; returns the sum."""
    for parent in parents:
        possible = room(parent.have(), config)
        if possible < parent.budget:
            parent.budget, parent.exhausted = possible, True
    return sum(parent.budget for parent in parents)


def _give(parents: Sequence[Parent], left: int, most: int) -> list[Parent]:
    """Divide what is left among the parents that have a budget and can take more, by q; who took."""
    takers: dict[str, Parent] = {}
    while left and (able := [p for p in parents if 0 < p.budget < most and not p.exhausted]):
        shares = capped_shares(np.array([parent.log_q for parent in able]), left, left)
        names = np.array([parent.pair_id for parent in able])
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
    """Rows as an Arrow table, some thousand at a time."""
    batches = []
    while some := list(islice(rows, 10_000)):
        batches.append(pa.record_batch(list(zip(*some, strict=True)), schema=schema))
    return Dataset(pa.Table.from_batches(batches, schema))
