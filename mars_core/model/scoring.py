"""Scoring: a specification in, a folder of results out.

    score(ScoreSpec(model="runs/a/round-1/model", pairs={"heldout": "heldout.parquet"}, output="scores"))

The numbers are the same wherever a specification runs. The folder appears when it is complete. It holds

- for pairs: `NAME.parquet`, the table of `PairRewards`; if asked for, and if the objective defines a
  curvature, `NAME_moments.npz`, the `Moments` of their features; if asked for, `NAME_features.npy`, [n, d],
  φ(x, y⁺) − φ(x, y⁻);
- for texts: `NAME.npz`, with `rewards` [m] and, if they are paired, `margins` [m / 2];
- `cut.json`: by name, the `Cut`.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny

from mars_core.config import Configuration, Operational
from mars_core.files import write_whole
from mars_core.model.moments import Moments
from mars_core.model.reward_model import ModelConfig, RewardModel, pair_rewards
from mars_core.objectives.objective import ObjectiveConfig, curvature_of
from mars_core.tables import Table, write


class Cut(NamedTuple):
    """What a limit of tokens, and a tokenizer, took from some texts."""

    prompts: int
    """Texts that lost the beginning of their prompt."""
    responses: int
    """Texts that lost the end of their response."""
    same_tokens: list[int]
    """The pairs, by their place, whose two responses are the same tokens: no model can tell them apart."""


class TextsSpec(Configuration):
    """Texts to score: a Parquet file with the columns prompt and response."""

    file: Path
    """The file."""
    paired: bool = False
    """Whether the first half are chosen responses and the second half the rejected ones of the same rows."""


class ScoreSpec(Configuration):
    """What to score, and with which model."""

    model: str
    """Reference of the checkpoint."""
    reward_model: ModelConfig = ModelConfig()
    """How texts go through it."""
    objective: SerializeAsAny[ObjectiveConfig] | None = None
    """By default the one that the checkpoint names."""
    pairs: dict[str, Path] = Field(default={})
    """Name → Parquet file of pairs: pair_id or synthetic_id, prompt, chosen, rejected."""
    texts: dict[str, TextsSpec] = Field(default={})
    """Name → texts; those of all names are scored in one pass, each distinct one once."""
    moments: bool = False
    """Whether to sum up the features of the pairs."""
    features: bool = False
    """Whether to keep them."""
    vectors: Annotated[Path | None, Operational()] = None
    """File of features that fits and scoring share: a `FeatureStore`."""
    readouts: Annotated[Path | None, Operational()] = None
    """File that keeps what is computed of each text, so that scoring which was interrupted goes on."""
    rows: dict[str, tuple[int, int]] | None = None
    """Name → the first of its rows to score, and the first one after them; by default all rows of all names.
    A row of paired texts is a chosen and a rejected response."""
    output: Annotated[Path, Operational()]
    """Folder of the results."""


def score(
    spec: ScoreSpec, on_scored: Callable[[int], None] | None = None, model: RewardModel | None = None
) -> None:
    """Score what a specification names, into its folder.

    Args:
        spec: the model, and what it scores.
        on_scored: told how many more texts are done.
        model: what `model_of` gave for a specification of this model; by default it is loaded.

    Raises:
        ModelError: the model cannot be loaded, or a reward of a pair is NaN or infinite; names the pairs.
        OutOfMemoryError: one text alone does not fit into memory.
    """
    scorer = model or model_of(spec)
    if spec.vectors:
        scorer.keep_features(spec.vectors)
    if spec.readouts:
        scorer.keep_readouts(spec.readouts)

    def put(folder: Path) -> None:
        folder.mkdir()
        cut = {
            name: _score_pairs(scorer, spec, name, folder, on_scored) for name in _wanted(spec, spec.pairs)
        }
        cut |= _score_texts(scorer, spec, folder, on_scored)
        (folder / "cut.json").write_text(json.dumps(cut))

    write_whole(spec.output, put)


def model_of(spec: ScoreSpec) -> RewardModel:
    """The model that a specification names.

    Raises:
        ModelError: it cannot be loaded.
    """
    return RewardModel.load(spec.model, spec.reward_model, spec.objective)


def pairs_of(file: Path, rows: tuple[int, int] | None = None) -> Iterator[pa.RecordBatch]:
    """The pairs of a table, or those from one row up to another, some at a time; synthetic ones are known by
    their synthetic_id."""
    table, texts = Table(file), ("prompt", "chosen", "rejected")
    columns = "synthetic_id" if "synthetic_id" in table.columns else "pair_id", *texts
    for batch in table.batches(*columns) if rows is None else table.between(*rows, *columns):
        yield batch.rename_columns(["pair_id", *texts])


def texts_of(spec: TextsSpec, rows: tuple[int, int] | None = None) -> tuple[list[str], list[str]]:
    """Prompts and responses of a file, or of some of its rows: of paired texts the chosen ones first."""
    table = Table(spec.file)
    starts = [0, len(table) // 2] if spec.paired else [0]
    first, end = rows or (0, len(table) // len(starts))
    prompts, responses = list[str](), list[str]()
    for start in starts:
        for batch in table.between(start + first, start + end, "prompt", "response"):
            prompts += batch["prompt"].to_pylist()
            responses += batch["response"].to_pylist()
    return prompts, responses


def rows_of(spec: ScoreSpec) -> dict[str, int]:
    """The number of rows of each name, the names of pairs first."""
    found = {name: len(Table(file)) for name, file in spec.pairs.items()}
    for name, texts in spec.texts.items():
        found[name] = len(Table(texts.file)) // (2 if texts.paired else 1)
    return found


def _wanted(spec: ScoreSpec, names: Iterable[str]) -> list[str]:
    """The names of which rows are scored."""
    return [name for name in names if spec.rows is None or name in spec.rows]


def _rows(spec: ScoreSpec, name: str) -> tuple[int, int] | None:
    return spec.rows[name] if spec.rows else None


def _score_pairs(
    model: RewardModel,
    spec: ScoreSpec,
    name: str,
    folder: Path,
    on_scored: Callable[[int], None] | None,
) -> Cut:
    moments, features = Moments(), list[NDArray[np.float32]]()

    def take(differences: NDArray[np.float32], margins: NDArray[np.float32]) -> None:
        curvature = curvature_of(model.objective, margins) if spec.moments else None
        if curvature is not None:
            moments.add(differences, curvature)
        if spec.features:
            features.append(differences)

    wanted = spec.features or (spec.moments and curvature_of(model.objective, []) is not None)
    pairs = pairs_of(spec.pairs[name], _rows(spec, name))
    scored = pair_rewards(model, pairs, on_scored, take if wanted else None)
    write(folder / f"{name}.parquet", scored.table)
    if moments.n:
        moments.save(folder / f"{name}_moments.npz")
    if spec.features:
        np.save(folder / f"{name}_features.npy", np.concatenate(features), allow_pickle=False)
    return Cut(scored.prompts_cut, scored.responses_cut, scored.same_tokens)


def _score_texts(
    model: RewardModel, spec: ScoreSpec, folder: Path, on_scored: Callable[[int], None] | None
) -> dict[str, Cut]:
    names, cut = _wanted(spec, spec.texts), {}
    windows = (texts_of(spec.texts[name], _rows(spec, name)) for name in names)
    for name, window in zip(names, model.score_windows(windows, on_scored), strict=True):
        numbers = {"rewards": model.rewards(window.readouts)}
        same: list[int] = []
        if spec.texts[name].paired:
            numbers["margins"] = model.margins(*np.split(window.readouts, 2))
            same = np.flatnonzero(np.equal(*np.split(window.sequences, 2))).tolist()
        np.savez(folder / f"{name}.npz", allow_pickle=False, **numbers)
        cut[name] = Cut(window.prompts_cut, window.responses_cut, same)
    return cut
