"""What Ray costs beside the scoring itself: the same pairs on the same cores, with `local` and with `ray`."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from material import BACKBONE
from measuring import alternately, apart

PAIRS = 20_000
ROUNDS = 3
PROJECT = Path(__file__).parents[2]


def overhead(_: Path | None) -> dict[str, Any]:
    """20,000 short pairs, scored by this machine's cores in one process, and by a cluster of two nodes on it.

    The start of the cluster, and of its actors, is measured apart.
    """
    with tempfile.TemporaryDirectory(prefix="mars-bench-") as folder:
        state, rows = Path(folder, "cluster"), Path(folder, "pairs.parquet")
        words = ["lark", "loire", "river", "bird", "sky", "sentence", "answer", "scatter"]
        texts = [f"{words[n % 8]} {n} {words[n // 8 % 8]}" for n in range(PAIRS)]
        pairs = {"pair_id": map(str, range(PAIRS)), "prompt": texts, "chosen": texts[::-1]}
        pd.DataFrame(pairs | {"rejected": texts[1:] + texts[:1]}).to_parquet(rows)
        command = [sys.executable, "-m", "deployments.cluster"]
        started = time.perf_counter()
        subprocess.run([*command, "start", "--state", state], cwd=PROJECT, check=True, stdout=sys.stderr)
        cluster = time.perf_counter() - started
        try:
            return apart(_measured, rows, state) | {"cluster_start_seconds": cluster}
        finally:
            subprocess.run([*command, "stop", "--state", state], cwd=PROJECT, check=True, stdout=sys.stderr)


def _measured(rows: Path, state: Path) -> dict[str, Any]:
    from deployments import cluster

    os.environ |= cluster.variables(state)
    started = time.perf_counter()
    _seconds(rows, "ray", -1, pairs=64)
    pool = time.perf_counter() - started
    turns = {name: iter(range(ROUNDS)) for name in ("local", "ray")}
    sides = {name: partial(lambda name: _seconds(rows, name, next(turns[name])), name) for name in turns}
    seconds = {name: statistics.median(times) for name, times in alternately(sides, ROUNDS).items()}
    return {
        "ratio": seconds["local"] / seconds["ray"],
        "wanted": "≥ .87",
        "local_seconds": seconds["local"],
        "ray_seconds": seconds["ray"],
        "pool_start_seconds": pool,
        "pairs": PAIRS,
        "median_of": ROUNDS,
    }


def _seconds(rows: Path, backend: str, turn: int, pairs: int = PAIRS) -> float:
    """How long it takes to score the first `pairs` of a table."""
    from mars_core.model.reward_model import ModelConfig
    from mars_core.model.scoring import ScoreSpec
    from tasks.compute.compute import ComputeConfig

    output = rows.parent / f"{backend}-{turn}" / "scores"
    some = rows.with_name(f"{pairs}.parquet")
    if not some.exists():
        pd.read_parquet(rows)[:pairs].to_parquet(some)
    output.parent.mkdir()
    spec = ScoreSpec(
        model=BACKBONE, reward_model=ModelConfig(max_length=64), pairs={"pairs": some}, output=output
    )
    compute = ComputeConfig.model_validate({"backend": backend}).open()
    started = time.perf_counter()
    compute.run(spec, lambda more: None)
    return time.perf_counter() - started


BENCHMARKS = {"compute/overhead": overhead}
