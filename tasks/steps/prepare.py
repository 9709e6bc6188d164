"""Read, check and divide the pairs, and read the benchmarks: all that can be wrong with data is said here."""

import hashlib
import logging
from contextlib import closing
from pathlib import Path
from typing import Any

from datasets import Dataset
from prefect import task
from prefect.cache_policies import NO_CACHE

from mars_core.data import pairs, samples
from mars_core.data.pairs import DataConfig
from mars_core.evaluation.suite import BENCHMARKS, EvaluationConfig, read_benchmarks, sources
from mars_core.experiment import ExperimentConfig, scientific
from mars_core.files import digest
from mars_core.generation import open_backend
from mars_core.method.augmentation import capacity
from mars_core.method.selection import check_budget
from mars_core.model.checkpoints import locate
from mars_core.model.loading import has_trained_head
from tasks.run.run_folder import Outputs, RunFolder, claimed_run
from tasks.run.step import step, tell


@step("prepare", version=1, reads=("seed", "data"))
def _prepare(run: RunFolder, round: None, contents: dict[str, str]) -> Outputs:
    """Write the train, validation and held-out pairs of a run."""
    sets = pairs.three_sets(run.config.data, run.config.seed)
    for reason, count in sets.dropped.items():
        tell("Left out %s rows: %s.", f"{count:,}", reason)
    both_ways = pairs.exchanged(sets.train)
    if both_ways:
        tell(
            "%s originals contradict another one: chosen and rejected are exchanged. Both are trained on.",
            f"{both_ways:,}", level=logging.WARNING,
        )  # fmt: skip
    outputs = {}
    for name, table in (("train", sets.train), ("validation", sets.validation), ("heldout", sets.heldout)):
        outputs[name] = run.write_table(f"{name}.parquet", table)
    outputs["train"] = outputs["train"].model_copy(
        update={"figures": {reason: float(count) for reason, count in sets.dropped.items()}}
    )
    return outputs


@step("benchmarks", version=1)
def _prepare_benchmarks(run: RunFolder, round: None, contents: dict[str, str], strict: bool) -> Outputs:
    """Write the rows of the benchmarks of a run; say where their numbers are not the official ones."""
    tables, warnings = read_benchmarks(run.config.evaluation)
    for warning in warnings:
        tell("%s", warning)
    return {name: run.write_table(f"{name}_rows.parquet", table) for name, table in tables.items()}


def check(*configs: ExperimentConfig) -> None:
    """Say what is wrong with runs before a server is started, or a model loaded, for them.

    What several have in common, such as the data of a comparison's arms, is read once.

    Raises:
        RunFolderError: its folder is in use, or was made with other scientific keys.
        PairsError: the data cannot be used.
        RewardBenchError: a benchmark cannot be used.
        SelectionError: the budget exceeds what the originals can take.
        ModelError: backbone or embedder are not there, or a trained head has other than one output.
        GenerationError: texts are still to be written, and nobody who could is there.
    """
    originals: dict[str, int] = {}
    for config in configs:
        generation = config.generation
        with claimed_run(config) as run:
            if not run.path("round-0/metrics.json").exists():  # later starts know their data to be good
                data = digest(config.seed, scientific(config.data), scientific(config.evaluation))
                if data not in originals:
                    originals[data] = len(read_sources(config)[0].train)
                _check_budget(originals[data], config)
            has_trained_head(config.model.backbone)
            locate(config.semantics.embedder)
            written = run.path(f"round-{config.rounds}/augmented.parquet").exists()
            if not (written or generation.launch or generation.offline):
                with closing(open_backend(generation)) as backend:
                    list(backend.answers([]))


def read_sources(config: ExperimentConfig) -> tuple[pairs.ThreeSets, dict[str, Dataset]]:
    """The three sets and the benchmarks by name; raises what `check` raises of data and budget."""
    sets = pairs.three_sets(config.data, config.seed)
    _check_budget(len(sets.train), config)
    benchmarks, _ = read_benchmarks(config.evaluation)
    return sets, benchmarks


def _check_budget(originals: int, config: ExperimentConfig) -> None:
    most = capacity(config.augmentation, config.selection.budget_unit)
    check_budget(originals, config.selection, most)


def prepare(run: RunFolder) -> Outputs:
    """References to the three sets `train`, `validation`, `heldout`, and to the rows of each benchmark.

    Sources are read when a run is new and when what they hold has changed.

    Raises:
        PairsError: the data cannot be used.
        RewardBenchError: a benchmark cannot be used.
        SelectionError: the budget exceeds what the originals can take.
    """
    config = run.config
    sets = _prepare(run, None, contents(config))
    tell(
        "%s originals, %s validation and %s held-out pairs.",
        *(f"{sets[name].rows:,}" for name in ("train", "validation", "heldout")),
    )
    _check_budget(sets["train"].rows or 0, config)
    benchmarks = {name: source_digest(source) for name, source in sources(config.evaluation).items()}
    if benchmarks:
        sets |= _prepare_benchmarks(run, None, benchmarks, config.evaluation.strict)
    return sets


@task(name="read sources", task_run_name="read sources", cache_policy=NO_CACHE, persist_result=False)
def read_evaluation_sources(
    evaluation: EvaluationConfig, data: DataConfig
) -> tuple[dict[str, Dataset], dict[str, dict[str, Any]], list[str]]:
    """Tables by name to measure one model on (`pairs` is `data.heldout`), what each is, and remarks.

    Raises:
        RewardBenchError: a benchmark cannot be used.
        PairsError: the pairs cannot be used.
    """
    tables, remarks = read_benchmarks(evaluation)
    named = sources(evaluation)
    if data.heldout:
        named["pairs"] = data.heldout
        tables["pairs"], left_out = pairs.read(data.heldout, where=data.where, invalid=data.invalid)
        remarks += [f"{data.heldout}: left out {count:,} rows: {why}" for why, count in left_out.items()]
    remarks += [
        f"{source} is a built-in miniature: its scores compare with no published ones"
        for name, source in named.items()
        if name in BENCHMARKS and source == BENCHMARKS[name].ORIGIN.sample
    ]
    about = {
        name: {"source": source, "content": source_digest(source), "rows": len(tables[name])}
        for name, source in named.items()
    }
    for remark in remarks:
        tell("%s", remark)
    return tables, about, remarks


def contents(config: ExperimentConfig) -> dict[str, str]:
    """Digest of what each source of pairs holds now: a run whose files changed prepares them anew."""
    named = {
        "train": config.data.train,
        "validation": config.data.validation,
        "heldout": config.data.heldout,
    }
    return {name: source_digest(source) for name, source in named.items() if source}


def source_digest(source: str) -> str:
    """Digest of a file, a folder's files or the built-in data; a hub dataset is its name and revision."""
    if source.startswith("sample://preferences"):
        return digest(samples.preferences())
    if source == "sample://rewardbench":
        return digest(samples.rewardbench())
    if source == "sample://rewardbench2":
        return digest(samples.rewardbench2())
    path = Path(source).expanduser()
    if not path.exists():
        return source
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            whole.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()
