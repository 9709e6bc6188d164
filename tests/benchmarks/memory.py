"""Peak memory and seconds of the steps that stream over tables, at 200,000 and 1,000,000 short pairs.

Vectors and margins, which take hours to compute, are drawn instead. Each step runs in a process of its own on
tables that another process wrote, as it runs in a flow but without Prefect.
"""

import inspect
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from measuring import apart, peak_memory

from mars_core.evaluation.evaluation_config import read_benchmarks
from mars_core.report.run_report import write as write_report
from mars_core.tables import write
from tasks.inspect.estimate import estimate
from tasks.inspect.export import export_pairs
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import open_run
from tasks.run.sources import LEFT_OUT
from tasks.steps import prepare, select_hard_pairs
from tasks.steps.measure_contamination import measure_contamination
from tasks.steps.write_report import run_report

SIZES = (200_000, 1_000_000)
BYTES = 100
"""What a pair may take."""
NOISE = 20.0
"""MiB by which the peaks of two runs of one step may differ."""
MANY = 10_000_000
SECONDS = 30.0
"""What the selection of `MANY` may take."""
AT_ONCE = 20_000
WORDS = np.array(["lark", "river", "stone", "seven", "lamp", "under", "quiet", "green", "sail", "harbour"])


def _rows(pairs: int, first: int = 0) -> Iterator[pa.RecordBatch]:
    """Short pairs, each with its number in the prompt."""
    for start in range(first, first + pairs, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, first + pairs))
        words = WORDS[np.random.default_rng(start).integers(len(WORDS), size=(len(numbers), 30))]
        texts = [" ".join(row) for row in words]
        yield pa.record_batch(
            {
                "pair_id": [f"{number:016x}" for number in numbers],
                "prompt": [
                    f"Human: {number} {text[:60]}?" for number, text in zip(numbers, texts, strict=True)
                ],
                "chosen": [text[:110] for text in texts],
                "rejected": [text[20:150] for text in texts],
                "source": ["drawn"] * len(numbers),
            }
        )


Drawn = Callable[[int, np.random.Generator], dict[str, Any]]
"""From a number of rows and a generator to their columns."""


def _with(columns: Drawn, pairs: int) -> Iterator[pa.RecordBatch]:
    """The ids of `_rows` and drawn columns."""
    for batch in _rows(pairs):
        drawn = columns(len(batch), np.random.default_rng(len(batch)))
        yield pa.record_batch({"pair_id": batch["pair_id"]} | drawn)


def _config(folder: Path, pairs: int, name: str = "large", tau: float = 0.5) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": name,
            "folder": str(folder),
            "rounds": 1,
            "data": {"train": str(folder / "pairs.jsonl")},
            "selection": {"budget": pairs // 4, "tau": tau},
            "evaluation": {"benchmarks": {"rewardbench": "sample://rewardbench"}},
        }
    )


def material(folder: Path, pairs: int) -> None:
    """A source, and the tables of a run of one round on it."""
    with (folder / "pairs.jsonl").open("w") as lines:
        for batch in _rows(pairs):
            lines.writelines(json.dumps(row) + "\n" for row in batch.to_pylist())
    config = _config(folder, pairs)
    with open_run(config) as run:
        heldout = run.write_table("heldout.parquet", _rows(pairs // 10, pairs))
        train = run.write_table("train.parquet", _rows(pairs))
        left_out = run.write_json("left_out.json", {})
        run.record("prepare", "key", {"train": train, "heldout": heldout, LEFT_OUT: left_out}, 1.0)
        paths = run.of_round(1)
        run.write_table(
            paths.margins,
            _with(
                lambda n, draw: {
                    name: draw.normal(size=n).astype(np.float32)
                    for name in ("reward_chosen", "reward_rejected", "margin")
                },
                pairs,
            ),
        )
        run.write_table(
            paths.allocation,
            _with(
                lambda n, draw: {
                    "margin": draw.normal(size=n).astype(np.float32),
                    "probability": draw.random(n),
                    "budget": draw.integers(4, size=n),
                },
                pairs,
            ),
        )
        run.write_table(paths.synthetic, map(_synthetic, _rows(pairs)))
        for t in (0, 1):
            rewards = _with(lambda n, draw: {"margin": draw.normal(size=n).astype(np.float32)}, pairs // 10)
            run.write_table(run.of_round(t).rewards("heldout"), rewards)
            run.write_json(run.of_round(t).metrics, _metrics(t))
        [table] = read_benchmarks(config.evaluation)[0].values()
        run.write_table("rewardbench_rows.parquet", table)
        run.record("round-1-x", "key", {}, 1.0)
        text, number = pa.string(), pa.int64()
        rewrites = dict.fromkeys(("pair_id", "rewritten", "chosen", "rejected"), text)
        variants = {"parent_id": text, "part": text, "variant": number, "text": text}
        run.write_table(paths.rewrites, pa.schema(rewrites).empty_table())
        run.write_table(paths.variants, pa.schema(variants).empty_table())


def _synthetic(batch: pa.RecordBatch) -> pa.RecordBatch:
    n = len(batch)
    drawn = np.random.default_rng(n).normal(size=(2, n)).astype(np.float32)
    columns = {name: batch[name] for name in ("prompt", "chosen", "rejected")}
    return pa.record_batch(
        {"synthetic_id": batch["pair_id"], "parent_id": batch["pair_id"]}
        | columns
        | {f"{part}_variant": np.ones(n, dtype=np.int64) for part in columns}
        | {"margin_before": drawn[0], "margin_after": drawn[1]}
    )


def _metrics(t: int) -> dict[str, float]:
    ends = ("accuracy", "accuracy_low", "accuracy_high", "chance_low", "chance_high")
    heldout = {f"heldout/{end}": 0.5 for end in ends}
    return {"round": t, "validation/accuracy": 0.5 + t / 10, "synthetic/low_limit": 0.3, **heldout}


def measured(step: str, folder: Path, pairs: int) -> tuple[float, float]:
    """Peak MiB and seconds of a step on the tables of `material`."""
    config = _config(folder, pairs, "prepared" if step == "prepare" else "large")
    with open_run(config) as run:
        paths, started = run.of_round(1), time.perf_counter()
        if step == "dry run":
            estimate(config)
        elif step == "prepare":
            inspect.unwrap(prepare._prepare)(run=run, round=None, contents=prepare.contents_of(config))
        elif step == "selection":
            margins = run.adopt(paths.margins)
            inspect.unwrap(select_hard_pairs._select)(run=run, round=1, margins=margins, signals={})
        elif step == "contamination":
            inspect.unwrap(measure_contamination)(
                run=run, round=0, training=run.adopt("train.parquet"), earlier=[], evaluation={},
                unseen={"rewardbench": run.adopt("rewardbench_rows.parquet")},
            )  # fmt: skip
        elif step == "export":
            export_pairs(run.root, "trl", folder / "export.jsonl")
        else:
            write_report(run_report(run), folder / "report")
        return peak_memory(), time.perf_counter() - started


STEPS = ("prepare", "selection", "contamination", "export", "report", "dry run")


def at_sizes(_: Path | None) -> dict[str, Any]:
    """Peaks of each step at both sizes; `ratio` is what more pairs may take over what they take at worst."""
    figures: dict[str, Any] = {}
    peaks: dict[str, list[float]] = {step: [] for step in STEPS}
    seconds: dict[str, list[float]] = {step: [] for step in STEPS}
    for pairs in SIZES:
        with tempfile.TemporaryDirectory(prefix="mars-bench-") as folder:
            apart(material, Path(folder), pairs)
            for step in STEPS:
                peak, took = apart(measured, step, Path(folder), pairs)
                peaks[step].append(peak)
                seconds[step].append(took)
    allowed = BYTES * (SIZES[1] - SIZES[0]) / 2**20 + NOISE
    for step in STEPS:
        small, large = peaks[step]
        figures[f"{step}_mib"] = [round(small), round(large)]
        figures[f"{step}_seconds"] = [round(value, 1) for value in seconds[step]]
        figures[f"{step}_bytes_a_pair"] = round((large - small) * 2**20 / (SIZES[1] - SIZES[0]))
    worst = max(large - small for small, large in peaks.values())
    return figures | {"ratio": round(allowed / max(worst, 1.0), 2)}


def _many(folder: Path) -> None:
    def drawn(n: int, draw: np.random.Generator) -> dict[str, Any]:
        return {"margin": draw.normal(size=n).astype(np.float32)}

    write(folder / "margins.parquet", _ids_and(drawn))


def _ids_and(drawn: Drawn) -> Iterator[pa.RecordBatch]:
    for start in range(0, MANY, 100_000):
        ids = [f"{number * 11400714819323198485 % 2**64:016x}" for number in range(start, start + 100_000)]
        yield pa.record_batch({"pair_id": ids} | drawn(100_000, np.random.default_rng(start)))


def _select_many(folder: Path, tau: float) -> tuple[float, float]:
    config = _config(folder, MANY, tau=tau)
    with open_run(config) as run:
        margins = run.take_over("round-1/margins.parquet", folder / "margins.parquet")
        started = time.perf_counter()
        inspect.unwrap(select_hard_pairs._select)(run=run, round=1, margins=margins, signals={})
        return peak_memory(), time.perf_counter() - started


def ten_million(_: Path | None) -> dict[str, Any]:
    """The selection alone, from margins on disk to budgets on disk; with τ = 0 all remainders are equal."""
    figures, slowest = dict[str, Any](), 0.0
    with tempfile.TemporaryDirectory(prefix="mars-bench-") as folder:
        apart(_many, Path(folder))
        for tau in (0.5, 0.0):
            peak, took = apart(_select_many, Path(folder), tau)
            figures |= {f"tau_{tau:g}_mib": round(peak), f"tau_{tau:g}_seconds": round(took, 1)}
            slowest = max(slowest, took)
    return figures | {"ratio": round(SECONDS / slowest, 2)}


BENCHMARKS = {"memory/steps": at_sizes, "memory/ten_million": ten_million}
