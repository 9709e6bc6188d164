"""Find the evaluation rows that a round's model has seen in training, and score it without them."""

import threading
from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd
from cachetools import LRUCache, cached
from datasets import Dataset

from mars_core.evaluation.benchmarks.benchmark import Benchmark
from mars_core.evaluation.contamination import (
    Measured,
    blocks_of_pairs,
    contaminated_rows,
    greatest,
    prompt_numbers,
)
from mars_core.evaluation.statistics import accuracy
from tasks.run.run_folder import ArtifactRef, RunFolder
from tasks.run.step import Made, step, tell


@step("contamination", version=4, reads=("evaluation",))
def measure_contamination(
    run: RunFolder,
    round: int,
    training: ArtifactRef,
    earlier: Sequence[ArtifactRef],
    unseen: dict[str, ArtifactRef],
    evaluation: dict[str, ArtifactRef],
) -> Made[ArtifactRef]:
    """Look for the rows of `unseen` in the `training` texts that this round added to those of `earlier`
    rounds.

    The metrics are counts of rows by set and subset, and the scores in `evaluation` without these rows.
    """
    suite = run.config.evaluation.suite
    measured = {name: _ready(run, name, part) for name, part in unseen.items()}
    now = contaminated_rows(measured, blocks_of_pairs(run.open(training)))
    before = [run.table(table) for table in earlier]
    found, metrics = [], dict[str, float]()
    for name in unseen:
        here = [table[table["set"] == name].drop(columns="set") for table in before]
        rows = greatest([*here, now[name]])
        found.append(rows.assign(set=name))
        counts = {
            "exact": float(rows["exact"].sum()),
            "near": float((~rows["exact"]).sum()),
            **(_by_subset(rows) if name in suite else {}),
        }
        if name in evaluation:
            scored, seen = run.table(evaluation[name]), set(rows["row"])
            if name in suite:
                counts |= _score_without(suite[name], scored, seen)
            else:
                counts |= _accuracy_without(run.open(unseen[name]).texts("prompt"), scored, seen)
        metrics |= {f"contamination/{name}/{metric}": value for metric, value in counts.items()}
    table = pd.concat(found, ignore_index=True)
    listed = ", ".join(f"{len(rows)} of {name}" for name, rows in table.groupby("set")) or "none"
    tell("Rows that were seen in training: %s.", listed)
    return Made(run.write_table(run.of_round(round).contamination, table), metrics)


@cached(
    LRUCache(8),
    key=lambda run, name, part: (name, part.sha256, str(run.config.evaluation.identity())),
    condition=threading.Condition(),
)
def _ready(run: RunFolder, name: str, part: ArtifactRef) -> Measured:
    """A prepared set, cached for the rounds and cells of this process."""
    benchmark = run.config.evaluation.suite.get(name)
    table = run.open(part)
    return Measured(benchmark.texts(Dataset(table.read())).blocks() if benchmark else blocks_of_pairs(table))


def _by_subset(rows: pd.DataFrame) -> dict[str, float]:
    """Number of rows found in each subset of a benchmark; rows are named subset/id."""
    subsets = Counter(row.partition("/")[0] for row in rows["row"])
    return {f"subset/{subset}": float(count) for subset, count in subsets.items()}


def _score_without(benchmark: Benchmark, results: pd.DataFrame, seen: set[str]) -> dict[str, float]:
    """The headline, with the ends of its interval, on the rows of a benchmark that were not seen."""
    clean = results[~(results["subset"] + "/" + results["id"].astype(str)).isin(seen)]
    if clean.empty:
        return {}
    scores = benchmark.score(clean)
    return {
        f"{benchmark.headline}{end}": scores[f"{benchmark.headline}{end}"] for end in ("", "_low", "_high")
    }


def _accuracy_without(prompts: Iterable[str], rewards: pd.DataFrame, seen: set[str]) -> dict[str, float]:
    """Accuracy, with the ends of its interval, on pairs that were not seen; `prompts` are those of all."""
    clean = rewards.assign(prompt=prompt_numbers(prompts))[~rewards["pair_id"].isin(seen)]
    if clean.empty:
        return {}
    value, low, high = accuracy(clean["margin"], clean["prompt"])
    return {"accuracy": value, "accuracy_low": low, "accuracy_high": high}
