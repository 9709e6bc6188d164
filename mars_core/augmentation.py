"""Augmentation: a pair's budget → paraphrases of its texts → synthetic pairs (METHOD.md step 5).

Variant 0 of a text is the text itself. With v_c chosen and v_r rejected variants a pair can give
v_c·v_r − 1 distinct synthetic pairs, so a budget b needs only the smallest v_c + v_r that suffices:
no text is paraphrased for nothing. A synthetic pair (c, r) joins chosen variant c, rejected variant r
and prompt variant (c + r) mod v_p, and inherits the order of its original.

`scheme: grid` is the paper's: every text of a synthetic pair is a paraphrase, c and r count from 1.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import pandas as pd
from pydantic import Field

from mars_core.configurable import Configuration
from mars_core.errors import MarsError
from mars_core.generation import Generator, Request
from mars_core.semantics import Embedder, cosine_distances

Part = Literal["prompt", "chosen", "rejected"]
PARTS: tuple[Part, ...] = ("prompt", "chosen", "rejected")


class AugmentationError(MarsError, RuntimeError):
    """No synthetic pair could be made; the message counts the reasons."""


class AugmentationConfig(Configuration):
    """How paraphrases become synthetic pairs."""

    scheme: Literal["minimal", "grid"] = "minimal"
    """`minimal` buys the fewest paraphrases that give a pair its budget, `grid` is the paper's k × k."""
    max_paraphrases: int = Field(5, ge=1)
    """k, the most paraphrases of one text."""
    min_similarity: float = Field(0.8, ge=-1, le=1)
    """Least cosine similarity of a paraphrase to its source; below it the meaning is taken as lost."""
    draws: int = Field(3, ge=1)
    """How often more paraphrases of a text are asked for when filters left too few."""


class Variants(NamedTuple):
    """How many variants of each text a pair needs, the text itself included."""

    prompt: int
    chosen: int
    rejected: int


def capacity(config: AugmentationConfig, unit: Literal["pairs", "paraphrases"]) -> int:
    """Most budget units that one pair can take."""
    if unit == "paraphrases":
        return 2 * config.max_paraphrases
    if config.scheme == "grid":
        return config.max_paraphrases**2
    return (config.max_paraphrases + 1) ** 2 - 1


def variants_for(budget: int, config: AugmentationConfig, *, chosen_first: bool) -> Variants:
    """The smallest number of chosen plus rejected variants that give `budget` pairs.

    Where the two numbers differ, `chosen_first` says which side has one more. It alternates over pairs:
    were it always the rejected side, being a paraphrase would tell the model which response lost.
    """
    grid = config.scheme == "grid"
    needed = budget if grid else budget + 1
    total = math.isqrt(4 * needed - 1) + 1  # ⌈2√needed⌉, the least sum of two factors that reach it
    small, large = total // 2, total - total // 2
    chosen, rejected = (large, small) if chosen_first else (small, large)
    if grid:
        return Variants(large + 1, chosen + 1, rejected + 1)
    return Variants(large, chosen, rejected)


def cells(variants: Variants, config: AugmentationConfig) -> Iterator[tuple[int, int, int]]:
    """(prompt, chosen, rejected) variant numbers of a pair's synthetic pairs, by rising c + r."""
    first = 1 if config.scheme == "grid" else 0
    grid = sorted(
        ((c, r) for c in range(first, variants.chosen) for r in range(first, variants.rejected)),
        key=lambda cell: (sum(cell), cell),
    )
    for c, r in grid:
        if first:
            yield 1 + (c + r) % max(1, variants.prompt - 1) if variants.prompt > 1 else 0, c, r
        elif (c, r) != (0, 0):
            yield (c + r) % variants.prompt, c, r


@dataclass
class Parent:
    """An original with a budget, its responses as rewriting left them."""

    pair_id: str
    prompt: str
    chosen: str
    rejected: str
    budget: int
    texts: dict[Part, list[str]] = field(default_factory=dict)
    """Variants of each text so far, number 0 being the text itself."""
    requests: dict[Part, list[str]] = field(default_factory=dict)
    """Key of the request that gave each variant; empty for the text itself."""
    draws: Counter[Part] = field(default_factory=Counter)
    """How often paraphrases of each text were asked for."""

    def __post_init__(self) -> None:
        """Begin with the texts themselves."""
        self.texts = {part: [getattr(self, part)] for part in PARTS}
        self.requests = {part: [""] for part in PARTS}

    def have(self) -> Variants:
        """How many variants there are."""
        return Variants(*(len(self.texts[part]) for part in PARTS))


class Augmentation(NamedTuple):
    """What a round's budget bought."""

    pairs: pd.DataFrame
    """synthetic_id, parent_id, prompt, chosen, rejected, prompt_variant, chosen_variant, rejected_variant,
    generator."""
    variants: pd.DataFrame
    """parent_id, part, variant, text, request: every text that was bought."""
    dropped: dict[str, int]
    """Generated texts that were not used, by reason."""
    moved: int
    """Budget that went to other pairs because filters ate too much."""
    shortfall: int
    """Budget that could not be spent at all."""


def augment(
    parents: Sequence[Parent],
    generator: Generator,
    embedder: Embedder,
    config: AugmentationConfig,
    *,
    unit: Literal["pairs", "paraphrases"] = "pairs",
    label: str = "",
    on_answer: Callable[[int], None] | None = None,
) -> Augmentation:
    """Spend each parent's budget.

    Args:
        parents: originals with a budget, hardest first: budget that a pair cannot use goes to the
            next ones that can.
        generator: writes the paraphrases.
        embedder: judges whether they keep their source's meaning.
        config: scheme, k, threshold, draws.
        unit: what a budget counts; n⁺ + n⁻ = b paraphrases give (n⁺ + 1)(n⁻ + 1) − 1 pairs.
        label: begins every synthetic id, so that the ids of rounds differ.
        on_answer: called once for every request that is answered.

    Raises:
        AugmentationError: not one pair could be made; counts the reasons.
    """
    dropped: Counter[str] = Counter()
    if unit == "paraphrases":
        for parent in parents:
            parent.budget = (parent.budget // 2 + 1) * ((parent.budget + 1) // 2 + 1) - 1
    wanted = sum(parent.budget for parent in parents)

    _buy(parents, generator, embedder, config, dropped, on_answer)
    short = wanted - sum(_made(parent, config) for parent in parents)
    if _move_budget(parents, config):
        _buy(parents, generator, embedder, config, dropped, on_answer)

    rows = [
        row for parent in parents for row in _synthetic_pairs(parent, generator.backend.name, config, label)
    ]
    if not rows:
        raise AugmentationError(
            f"{generator.backend.name} gave no usable paraphrase; not used: {dict(dropped)}"
        )
    bought = [
        (parent.pair_id, part, number, text, request)
        for parent in parents
        for part in PARTS
        for number, (text, request) in enumerate(zip(parent.texts[part], parent.requests[part], strict=True))
        if number > 0
    ]
    columns = ["parent_id", "part", "variant", "text", "request"]
    shortfall = wanted - len(rows)
    return Augmentation(
        pd.DataFrame(rows), pd.DataFrame(bought, columns=columns), dict(dropped), short - shortfall, shortfall
    )


def _wanted(parent: Parent, config: AugmentationConfig) -> Variants:
    if parent.budget == 0:
        return Variants(1, 1, 1)
    odd = hash_parity(parent.pair_id)
    return variants_for(parent.budget, config, chosen_first=odd)


def hash_parity(pair_id: str) -> bool:
    """A coin that falls the same way for a pair on every machine."""
    return bool(sum(pair_id.encode()) & 1)


def _made(parent: Parent, config: AugmentationConfig) -> int:
    return min(parent.budget, sum(1 for _ in cells(parent.have(), config)))


def _buy(
    parents: Sequence[Parent],
    generator: Generator,
    embedder: Embedder,
    config: AugmentationConfig,
    dropped: Counter[str],
    on_answer: Callable[[int], None] | None,
) -> None:
    """Ask for the variants that the parents lack, at most `draws` times; all samples of a text at once."""
    for _ in range(config.draws):
        requests, places = [], []
        for parent in parents:
            for part, wanted, have in zip(PARTS, _wanted(parent, config), parent.have(), strict=True):
                if wanted > have:
                    requests.append(_request(parent, part, wanted - have))
                    places.append((parent, part, wanted))
        if not requests:
            return
        answers = generator.generate(requests, on_answer)
        texts = [text for answer in answers for text in answer.texts]
        sources = [
            parent.texts[part][0]
            for (parent, part, _), a in zip(places, answers, strict=True)
            for _ in a.texts
        ]
        vectors = embedder.embed([*texts, *sources])
        similarities = iter(1 - cosine_distances(vectors[: len(texts)], vectors[len(texts) :]))
        for (parent, part, wanted), answer in zip(places, answers, strict=True):
            for text in answer.texts:
                if next(similarities) < config.min_similarity:
                    dropped["meaning lost"] += 1
                elif _taken(text, parent, part):
                    dropped["not distinct"] += 1
                elif len(parent.texts[part]) < wanted:
                    parent.texts[part].append(text)
                    parent.requests[part].append(answer.key)


def _request(parent: Parent, part: Part, n: int) -> Request:
    """Ask for n more paraphrases; every further request for a text is another draw."""
    draw = parent.draws[part]
    parent.draws[part] += 1
    texts = (parent.prompt, parent.chosen, parent.rejected)
    if part == "prompt":
        return Request("paraphrase_prompt", *texts, n, draw)
    return Request("paraphrase_chosen" if part == "chosen" else "paraphrase_rejected", *texts, n, draw)


def _taken(text: str, parent: Parent, part: Part) -> bool:
    """Whether a text is a variant already: of its own part, or of the response it must differ from."""
    others = (
        parent.texts["prompt"] if part == "prompt" else [*parent.texts["chosen"], *parent.texts["rejected"]]
    )
    folded = " ".join(text.lower().split())
    return any(folded == " ".join(other.lower().split()) for other in others)


def _move_budget(parents: Sequence[Parent], config: AugmentationConfig) -> bool:
    """Give what some parents could not use to the hardest ones that got all they asked for."""
    made = [_made(parent, config) for parent in parents]
    left = sum(parent.budget for parent in parents) - sum(made)
    moved = False
    for parent, pairs in zip(parents, made, strict=True):
        if pairs < parent.budget:
            parent.budget = pairs
        elif pairs:
            extra = min(left, capacity(config, "pairs") - pairs)
            parent.budget += extra
            left -= extra
            moved = moved or extra > 0
    return moved


def _synthetic_pairs(
    parent: Parent, generator: str, config: AugmentationConfig, label: str
) -> Iterator[dict[str, str | int]]:
    made = _made(parent, config)
    for (p, c, r), _ in zip(cells(parent.have(), config), range(made), strict=False):
        yield {
            "synthetic_id": f"{label}{parent.pair_id}-p{p}c{c}r{r}",
            "parent_id": parent.pair_id,
            "prompt": parent.texts["prompt"][p],
            "chosen": parent.texts["chosen"][c],
            "rejected": parent.texts["rejected"][r],
            "prompt_variant": p,
            "chosen_variant": c,
            "rejected_variant": r,
            "generator": generator,
        }
