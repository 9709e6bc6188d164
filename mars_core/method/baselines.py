"""Baselines of the method that need other pairs, and not only another allocation.

docs/results.md lists them. *No augmentation* is compute-matched here: it repeats each original as often as
its budget says, so that no other arm gains from more optimizer steps.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from datasets import Dataset, concatenate_datasets
from numpy.typing import ArrayLike, NDArray

from mars_core.generation import Answer, Generator, Request
from mars_core.method.augmentation import PAIRS, VARIANTS, Augmentation, AugmentationError, Parent, table
from mars_core.method.guards import Guards, folded


def repeated(parents: Sequence[Parent], label: str = "") -> Augmentation:
    """Each original, repeated as often as its budget says; no text is generated.

    Args:
        parents: originals with a budget.
        label: begins every synthetic id.
    """
    rows = (
        (f"{label}{parent.pair_id}-n{copy}", parent.pair_id, *_texts(parent), 0, 0, 0, "repeat")
        for parent in parents
        for copy in range(parent.budget)
    )
    return Augmentation(table(PAIRS, rows), table(VARIANTS, iter(())), moved=0, shortfall=0, tokens=0)


def topped_up(pairs: Dataset, originals: Sequence[Parent], wanted: int, label: str = "") -> Dataset:
    """Synthetic pairs, with originals repeated in turn for those that are missing.

    Args:
        pairs: the synthetic pairs that could be made.
        originals: those with a budget, which is changed.
        wanted: the number of pairs to return.
        label: begins every added id.
    """
    missing = max(0, wanted - len(pairs))
    for row, parent in enumerate(originals):
        parent.budget = missing // len(originals) + (row < missing % len(originals))
    return concatenate_datasets([pairs, repeated(originals, label).pairs]) if missing else pairs


def easiest(pairs: Dataset, margins: ArrayLike, budgets: Mapping[str, int]) -> Dataset:
    """The pairs with the greatest signed margins, for each original as many as its budget says.

    This is "WoN" as the authors coded it: a pool is generated, and its *easiest* variants are trained on.

    Args:
        pairs: the pool, with a column parent_id.
        margins: [n] margins of the pool by the current model.
        budgets: pair id of each original → its budget.
    """
    pool = pd.DataFrame({"parent": pairs["parent_id"][:], "margin": np.asarray(margins)})
    rank = pool.groupby("parent")["margin"].rank(method="first", ascending=False)
    kept: NDArray[np.intp] = np.flatnonzero(rank.to_numpy() <= pool["parent"].map(budgets).to_numpy())
    return pairs.select(kept)


def west_of_n(
    parents: Sequence[Parent],
    generator: Generator,
    guards: Guards,
    n: int,
    label: str = "",
    on_answer: Callable[[], object] | None = None,
) -> Augmentation:
    """West-of-N (Pace et al., 2024): the best and the worst of N sampled responses to a prompt are a pair.

    Args:
        parents: originals with a budget; each unit of it is N samples and one pair.
        generator: samples the responses; the policy, in the paper's words.
        guards: judge them, and know the current reward model.
        n: N, the responses sampled for one pair.
        label: begins every synthetic id.
        on_answer: called once for every request that is answered.

    Raises:
        AugmentationError: no pair could be made; the message counts the reasons.
    """
    draws = Counter[str]()  # of a prompt, which several originals may have
    asked = []
    for parent in parents:
        asked += [(parent, draws[parent.prompt] + unit) for unit in range(parent.budget)]
        draws[parent.prompt] += parent.budget
    requests = [
        Request("respond", parent.prompt, parent.chosen, parent.rejected, n, draw) for parent, draw in asked
    ]
    answers = generator.generate(requests, on_answer)
    found = _best_and_worst([parent for parent, _ in asked], requests, answers, guards)
    name = generator.backend.name

    def rows() -> Iterator[tuple[str | int, ...]]:
        for (parent, draw), pair in zip(asked, found, strict=True):
            if pair:
                synthetic_id = f"{label}{parent.pair_id}-w{draw}"
                yield synthetic_id, parent.pair_id, parent.prompt, *pair, 0, draw + 1, draw + 1, name

    def bought() -> Iterator[tuple[str | int, ...]]:
        for (parent, draw), pair, answer in zip(asked, found, answers, strict=True):
            for part, text in zip(("chosen", "rejected"), pair or (), strict=False):
                yield parent.pair_id, part, draw + 1, text, answer.key

    pairs = table(PAIRS, rows())
    if not len(pairs):
        raise AugmentationError(f"{name} gave no two usable responses to a prompt: {guards.reasons()}")
    tokens = sum(answer.prompt_tokens + answer.completion_tokens for answer in answers)
    return Augmentation(pairs, table(VARIANTS, bought()), 0, len(asked) - len(pairs), tokens)


def _best_and_worst(
    parents: Sequence[Parent], requests: Sequence[Request], answers: Sequence[Answer], guards: Guards
) -> list[tuple[str, str] | None]:
    """The usable responses with the greatest and the least reward of each answer that has two."""
    usable = [
        list(
            {
                folded(sample.text): sample.text for sample in guards.samples(parent.pair_id, request, answer)
            }.values()
        )
        for parent, request, answer in zip(parents, requests, answers, strict=True)
    ]
    prompts = [request.prompt for request, texts in zip(requests, usable, strict=True) for _ in texts]
    rewards = guards.rewards(prompts, [text for texts in usable for text in texts])
    pairs: list[tuple[str, str] | None] = []
    start = 0
    for texts in usable:
        own = rewards[start : start + len(texts)]
        start += len(texts)
        best, worst = (int(own.argmax()), int(own.argmin())) if len(texts) else (0, 0)
        pairs.append((texts[best], texts[worst]) if best != worst else None)
    return pairs


def _texts(parent: Parent) -> tuple[str, str, str]:
    return parent.prompt, parent.chosen, parent.rejected
