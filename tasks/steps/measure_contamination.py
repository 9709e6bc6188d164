"""Find the evaluation rows that a round's model has seen in training, and score it without them."""

import threading
from collections import Counter
from collections.abc import Sequence

import pandas as pd
from cachetools import LRUCache, cached
from datasets import Dataset

from mars_core.evaluation.contamination import Measured, Texts, contaminated_rows, greatest
from mars_core.evaluation.statistics import accuracy
from mars_core.evaluation.suite import BENCHMARKS
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import step, tell


@step("contamination", version=2)
def measure_contamination(
    run: RunFolder,
    round: int,
    training: ArtifactRef,
    earlier: Sequence[ArtifactRef],
    unseen: dict[str, ArtifactRef],
    evaluation: dict[str, ArtifactRef],
) -> ArtifactRef:
    """Look for the rows of `unseen` in the `training` texts that this round added to those of `earlier` ones.

    Figures are counts of rows by set and subset, and the scores of those in `evaluation` without them.
    """
    measured = {name: _ready(run, name, part) for name, part in unseen.items()}
    now = contaminated_rows(measured, _texts("train", run.dataset(training)))
    before = [run.table(table) for table in earlier]
    found, figures = [], dict[str, float]()
    for name in unseen:
        here = [table[table["set"] == name].drop(columns="set") for table in before]
        rows = greatest([*here, now[name]])
        found.append(rows.assign(set=name))
        counts = {
            "exact": float(rows["exact"].sum()),
            "near": float((~rows["exact"]).sum()),
            **_by_subset(name, rows),
        }
        if name in evaluation:
            counts |= _scores_without(name, run.table(evaluation[name]), set(rows["row"]))
        figures |= {f"contamination/{name}/{figure}": value for figure, value in counts.items()}
    table = pd.concat(found, ignore_index=True)
    listed = ", ".join(f"{len(rows)} of {name}" for name, rows in table.groupby("set")) or "none"
    tell("Rows that were seen in training: %s.", listed)
    return run.write_table(f"round-{round}/contamination.parquet", table, figures)


@cached(LRUCache(8), key=lambda _, name, part: (name, part.sha256), condition=threading.Condition())
def _ready(run: RunFolder, name: str, part: ArtifactRef) -> Measured:
    """A set made ready once for the rounds of this process, and for its cells; a run has at most four."""
    return Measured(_texts(name, run.dataset(part)))


def _texts(name: str, rows: Dataset) -> Texts:
    """Each response with its row and prompt: of a benchmark as it is scored, of pairs chosen and rejected."""
    if name in BENCHMARKS:
        return Texts(*BENCHMARKS[name].texts(rows))
    ids = rows["pair_id" if "pair_id" in rows.column_names else "synthetic_id"][:]
    return Texts(ids * 2, rows["prompt"][:] * 2, rows["chosen"][:] + rows["rejected"][:])


def _by_subset(name: str, rows: pd.DataFrame) -> dict[str, float]:
    """Rows found in each subset of a benchmark, whose rows are named subset/id."""
    if name not in BENCHMARKS:
        return {}
    subsets = Counter(row.partition("/")[0] for row in rows["row"])
    return {f"subset/{subset}": float(count) for subset, count in subsets.items()}


def _scores_without(name: str, results: pd.DataFrame, seen: set[str]) -> dict[str, float]:
    """Accuracy or total, with the ends of its interval, on the rows that were not seen."""
    rows = results["subset"] + "/" + results["id"] if name in BENCHMARKS else results["pair_id"]
    clean = results[~rows.isin(seen)]
    if clean.empty:
        return {}
    if name in BENCHMARKS:
        scores = BENCHMARKS[name].score(clean)
        return {key: scores[key] for key in ("total", "total_low", "total_high")}
    value, low, high = accuracy(clean["margin"])
    return {"accuracy": value, "accuracy_low": low, "accuracy_high": high}
