"""What a step costs beyond its own work: with Prefect and the run folder's records, against a plain call."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import alternately

STEPS = 20
ROUNDS = 3
EXPECTED_SECONDS = 0.05
"""What a task was seen to cost with Prefect's own temporary server."""


def overhead(_: Path | None) -> dict[str, Any]:
    """20 steps that write one small file each, in one flow with this project's own local server."""
    from prefect import flow

    from tasks.processes.prefect_server import prefect_api
    from tasks.run.run_config import RunConfig
    from tasks.run.run_folder import ArtifactRef, RunFolder, open_run
    from tasks.run.step import Made, step

    def note(run: RunFolder, round: int) -> Made[ArtifactRef]:
        return Made(run.write_json(f"round-{round}/note.json", {"round": round}))

    stepped, rounds = step("note", version=1)(note), iter(range(2 * ROUNDS * STEPS))

    def seconds_each(call: Callable[[RunFolder, int], Any], run: RunFolder) -> float:
        started = time.perf_counter()
        for _ in range(STEPS):
            call(run, next(rounds))
        return (time.perf_counter() - started) / STEPS

    @flow(name="overhead", persist_result=False)
    def measured(run: RunFolder) -> dict[str, list[float]]:
        sides = {"steps": lambda: seconds_each(stepped, run), "calls": lambda: seconds_each(note, run)}
        return alternately(sides, ROUNDS)

    with tempfile.TemporaryDirectory(prefix="mars-bench-") as folder, contextlib.chdir(folder):
        started = time.perf_counter()
        with prefect_api(), open_run(RunConfig(name="overhead")) as run:
            start = time.perf_counter() - started
            seconds = {side: statistics.median(times) for side, times in measured(run).items()}
    cost = seconds["steps"] - seconds["calls"]
    return {
        "ratio": EXPECTED_SECONDS / cost,
        "wanted": "≥ 1",
        "seconds_per_step": seconds["steps"],
        "seconds_per_call": seconds["calls"],
        "server_start_seconds": start,
        "steps": STEPS,
        "median_of": ROUNDS,
    }


BENCHMARKS = {"orchestration/overhead": overhead}
