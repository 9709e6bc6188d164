"""Scoring for the steps of a run: write a specification, run it on the backend of `compute`, read the
results."""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from mars_core.evaluation.contamination import Texts
from mars_core.evaluation.measure import told_alike
from mars_core.model.scoring import Cut, ScoreSpec, TextsSpec
from mars_core.tables import Table
from tasks.compute.compute import Compute
from tasks.run.progress import progress
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import tell


class Scored(NamedTuple):
    """The results of a specification; they exist during a `with` block."""

    folder: Path
    cut: dict[str, Cut]
    """By name, what texts lost to the limit of tokens."""

    def table(self, name: str) -> Table:
        """The table of a set of pairs, as in `PairRewards`."""
        return Table(self.folder / f"{name}.parquet")

    def pairs(self, name: str) -> pd.DataFrame:
        """The same in memory."""
        return self.table(name).read().to_pandas()

    def texts(self, name: str) -> dict[str, NDArray[np.float32]]:
        """`rewards` of texts and, if they are paired, `margins`."""
        with np.load(self.folder / f"{name}.npz") as numbers:
            return dict(numbers)


@contextmanager
def scored(compute: Compute, spec: ScoreSpec, title: str, texts: int) -> Iterator[Scored]:
    """Run a specification into its folder, which exists during a `with` block.

    Args:
        compute: where it runs.
        spec: what it scores; leftovers of a killed start in its folder are removed.
        title: the title of its progress bar.
        texts: the number of texts it scores.
    """
    shutil.rmtree(spec.output, ignore_errors=True)
    try:
        with progress(title, texts, "texts") as advance:
            compute.run(spec, advance)
        cut = json.loads((spec.output / "cut.json").read_text())
        results = Scored(spec.output, {name: Cut(*counts) for name, counts in cut.items()})
        yield results
    finally:
        shutil.rmtree(spec.output, ignore_errors=True)


@contextmanager
def score_pairs(
    run: RunFolder,
    model: ArtifactRef,
    pairs: Mapping[str, ArtifactRef],
    title: str,
    *,
    moments: bool = False,
    features: bool = False,
) -> Iterator[Scored]:
    """Score tables of pairs of a run with one of its models."""
    spec = spec_of(run, model).model_copy(
        update={
            "pairs": {name: run.verified(part) for name, part in pairs.items()},
            "moments": moments,
            "features": features,
        }
    )
    texts = 2 * sum(part.rows or 0 for part in pairs.values())
    with scored(run.config.compute.open(), spec, title, texts) as results:
        for name in pairs:
            ids = results.table(name).read("pair_id").to_pandas()["pair_id"]
            for note in told_alike(ids, results.cut[name]):
                tell("%s, %s: %s.", title, name, note, level=logging.WARNING)
        yield results


def spec_of(run: RunFolder, model: ArtifactRef) -> ScoreSpec:
    """A specification that scores nothing yet, for a model of a run."""
    config = run.config
    return ScoreSpec(
        model=str(run.path(model)),
        reward_model=config.model,
        objective=config.fit.objective,
        vectors=run.vectors if config.fit.trainable == "head" else None,
        output=run.path(".scores"),
    )


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """An empty folder during a `with` block; leftovers of a killed start are removed first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_texts(texts: Texts, file: Path, *, paired: bool) -> TextsSpec:
    """Write texts for a specification; of `paired` ones first all chosen, then all rejected responses."""
    table = pa.table(
        {"prompt": pa.array(texts.prompts, pa.string()), "response": pa.array(texts.responses, pa.string())}
    )
    pyarrow.parquet.write_table(table, file)
    return TextsSpec(file=file, paired=paired)
