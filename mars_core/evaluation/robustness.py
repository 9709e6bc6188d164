"""Robustness: what changes that keep a pair's ranking do to a model's rewards (docs/robustness.md).

A sample of pairs is changed by each transform, once for all models, and a model scores the pairs as they are
and as they are changed. The headline is *robust accuracy*, the share of changed pairs that the model ranks
right both before and after: accuracy alone would let a change that helps some pairs hide one that hurts
others, and a share of margins that keep their sign would call a constant or collapsed model robust, which
here gets 0. A pair that a transform leaves as it is does not count for it.

Every pair counts once for each transform that changes it. Pairs that share a prompt, and the changes of one
pair, are no independent evidence: intervals take the pairs of a prompt, with all changes, for one draw.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import Dataset
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, field_validator

from mars_core.config import Configuration
from mars_core.evaluation.contamination import Texts, prompt_numbers
from mars_core.evaluation.statistics import (
    Interval,
    PairedDifference,
    accuracy,
    paired_accuracy_difference,
    paired_difference,
)
from mars_core.evaluation.transforms.transform import TRANSFORMS, Models, Pair, Transform
from mars_core.extensions import ExtensionError
from mars_core.generation.backends.backend import Capability

KEY = "robustness"
"""Begins the names of the metrics, and is that of the tables."""
HEADLINE = f"{KEY}/robust_accuracy"
ORIGINAL = "original"
"""Stands for a transform in the rows of pairs as they are."""
ROWS = pa.schema(dict.fromkeys(("pair_id", "transform", "prompt", "chosen", "rejected"), pa.string()))


class RobustnessConfig(Configuration):
    """Whether and on what robustness is measured."""

    rows: int = Field(0, ge=0)
    """Pairs of the sample, drawn by a hash of their ids; 0 measures no robustness. A transform that changes
    all of them costs the scoring of as many pairs, in each round that benchmarks are run after; about a dozen
    transforms change a pair of prose."""
    of: str = "pairs"
    """What the sample is drawn from: `pairs` are the held-out ones, of mars evaluate those of --pairs; or the
    key of a benchmark with one chosen and one rejected response."""
    transforms: list[str] | None = None
    """Names of the transforms, or module:attribute of a class of your own; by default all that need no
    generator."""

    @field_validator("transforms")
    @classmethod
    def _known(cls, names: list[str] | None) -> list[str] | None:
        for name in names or ():
            try:
                TRANSFORMS.find(name)
            except ExtensionError as error:
                raise ValueError(str(error)) from None
        return names

    @property
    def by_key(self) -> dict[str, Transform]:
        """The transforms by their keys: the name, or the attribute of a user's own module."""
        every = {name: TRANSFORMS.find(name) for name in self.transforms or TRANSFORMS.names()}
        return {
            name.rpartition(":")[2]: transform(Configuration())
            for name, transform in every.items()
            if self.transforms or transform.needs in (None, "embedder")
        }

    def check(self, capabilities: Collection[Capability]) -> None:
        """Refuse transforms that a generator with these capabilities cannot serve.

        Raises:
            ValueError: names the transform, and what it needs.
        """
        for name, transform in self.by_key.items():
            if transform.needs == "chat" and "chat" not in capabilities:
                raise ValueError(
                    f"the transform {name} of evaluation.robustness needs a chat model: name one with "
                    "generation.backend and generation.model"
                )

    def identity(self) -> dict[str, str]:
        """What stands for a user's own transforms in the keys of steps, besides their names."""
        found = {name: TRANSFORMS.identity(name) for name in self.transforms or ()}
        return {f"{name} version": version for name, version in found.items() if version is not None}


def sample(texts: Texts, rows: int) -> tuple[list[str], list[Pair]]:
    """Ids and pairs of a sample, in the order of the rows; all where there are fewer.

    Args:
        texts: the responses of n pairs: first all chosen ones, then all rejected ones.
        rows: how many to draw. Mostly the same ones are drawn when rows are added.
    """
    n = len(texts.rows) // 2
    rank = [hashlib.sha256(f"{KEY}:{name}".encode()).digest() for name in texts.rows[:n]]
    drawn = sorted(sorted(range(n), key=rank.__getitem__)[:rows])
    pairs = [Pair(texts.prompts[row], texts.responses[row], texts.responses[n + row]) for row in drawn]
    return [texts.rows[row] for row in drawn], pairs


def transformed(
    ids: Sequence[str], pairs: Sequence[Pair], transforms: Mapping[str, Transform], models: Models
) -> Dataset:
    """The pairs as they are, and then as each transform changes them; the columns of `ROWS`.

    A pair that a transform does not apply to, or leaves as it is, has no row for it.
    """

    def rows() -> Iterator[dict[str, str]]:
        for name, changed in _all(pairs, transforms, models):
            for pair_id, pair, after in zip(ids, pairs, changed, strict=True):
                if after is not None and (name == ORIGINAL or after != pair):
                    yield {"pair_id": pair_id, "transform": name, **after._asdict()}

    return Dataset(pa.Table.from_pylist(list(rows()), schema=ROWS))


def _all(
    pairs: Sequence[Pair], transforms: Mapping[str, Transform], models: Models
) -> Iterator[tuple[str, Sequence[Pair | None]]]:
    yield ORIGINAL, pairs
    for name, transform in transforms.items():
        yield name, transform.apply(pairs, models)


def results(rows: Dataset, rewards: ArrayLike, margins: ArrayLike) -> pd.DataFrame:
    """Each changed pair with its margins before and after.

    Args:
        rows: m rows of `transformed`.
        rewards: [2m] of the chosen and then of the rejected responses.
        margins: [m].

    Returns:
        Columns pair_id, prompt (a number for each prompt), transform, margin_before, margin_after, and
        reward_shift: mean |Δr| of the two responses over the standard deviation of the rewards before, over
        all pairs of the sample; nan where these are all equal.
    """
    chosen, rejected = np.split(np.asarray(rewards, np.float64), 2)
    table = pd.DataFrame(
        {
            "pair_id": rows["pair_id"][:],
            "prompt": prompt_numbers(rows["prompt"][:]),
            "transform": rows["transform"][:],
            "chosen": chosen,
            "rejected": rejected,
            "margin": np.asarray(margins, np.float64),
        }
    )
    as_it_is = table["transform"] == ORIGINAL
    before = table[as_it_is].set_index("pair_id")
    after = table[~as_it_is].reset_index(drop=True)
    was = before.loc[after["pair_id"]].reset_index()
    rewards_before = before[["chosen", "rejected"]].to_numpy()
    spread = float(rewards_before.std()) if np.ptp(rewards_before) else np.nan
    shift = ((after["chosen"] - was["chosen"]).abs() + (after["rejected"] - was["rejected"]).abs()) / 2
    return pd.DataFrame(
        {
            "pair_id": after["pair_id"],
            "prompt": was["prompt"],
            "transform": after["transform"],
            "margin_before": was["margin"],
            "margin_after": after["margin"],
            "reward_shift": shift / spread,
        }
    )


def measures(table: pd.DataFrame) -> dict[str, float]:
    """The measures of a table of `results`, over all transforms and, as TRANSFORM/MEASURE, of each.

    With 95% intervals (`_low`, `_high`): `robust_accuracy`; `sign_kept`, the share of margins that keep their
    sign, where one of zero is broken; `change`, accuracy after minus accuracy before. Without: `before` and
    `after`, these accuracies; `to_wrong` and `to_right`, the shares of pairs that are ranked right only
    before, and only after; `reward_shift`, its mean; `n` changed pairs.
    """
    found = _measures(table) if len(table) else {}
    for name, own in table.groupby("transform", sort=False):
        found |= {f"{name}/{measure}": value for measure, value in _measures(own).items()}
    return found


def _measures(table: pd.DataFrame) -> dict[str, float]:
    before, after = (table[f"margin_{when}"].to_numpy() for when in ("before", "after"))
    prompts = table["prompt"].to_numpy()
    was, now = before > 0, after > 0
    with_ends = {
        "robust_accuracy": accuracy(robust_margins(table), prompts),
        "sign_kept": accuracy(np.sign(before) * np.sign(after), prompts),
        "change": paired_accuracy_difference(now, was, clusters=prompts),
    }
    return {
        **{
            f"{name}{end}": value
            for name, interval in with_ends.items()
            for end, value in zip(("", "_low", "_high"), interval, strict=True)
        },
        "before": float(was.mean()),
        "after": float(now.mean()),
        "to_wrong": float((was & ~now).mean()),
        "to_right": float((now & ~was).mean()),
        "reward_shift": float(table["reward_shift"].mean()),
        "n": float(len(table)),
    }


def robust_margins(table: pd.DataFrame) -> NDArray[np.float64]:
    """The smaller margin of each changed pair, before and after: above zero where it is right both times."""
    margins: NDArray[np.float64] = table[["margin_before", "margin_after"]].to_numpy(np.float64).min(axis=1)
    return margins


def robustness_difference(table: pd.DataFrame, other: pd.DataFrame) -> PairedDifference:
    """Robust accuracy of a model above another's, on the same changed pairs.

    Raises:
        ValueError: the two are not of the same changed pairs.
    """
    return paired_difference(*_both(table, other), clusters=table["prompt"])


def robustness_interval(table: pd.DataFrame, other: pd.DataFrame, confidence: float) -> Interval:
    """The same difference with an interval that few pairs keep wide, as a decision needs it."""
    return paired_accuracy_difference(*_both(table, other), clusters=table["prompt"], confidence=confidence)


def _both(table: pd.DataFrame, other: pd.DataFrame) -> tuple[NDArray[Any], NDArray[Any]]:
    known = ["pair_id", "transform"]
    if not table[known].equals(other[known]):
        raise ValueError("a paired comparison needs the same changed pairs in the same order")
    return robust_margins(table) > 0, robust_margins(other) > 0
