"""`kill -9` in the middle of a step, with real processes; then the same command again.

Here the fit's, which has processes of its own, of a command that has a Prefect server of its own, too; with
MARS_BAD_DAYS=1 (`make bad-days`) every kind of step.
"""

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

pytestmark = pytest.mark.timeout(600)


class Kill(NamedTuple):
    """When to kill a command, so that it is in the middle of a step."""

    seen: Callable[[], bool]
    """What is seen when the step begins or has begun."""
    seconds: float = 0
    """How much later the kill comes."""
    held_up: str | None = None
    """An artifact that the step cannot finish to write, however late the kill comes."""


class Aftermath(NamedTuple):
    """What there is after a kill, and what there was before."""

    server: str | None
    """The address of the Prefect server that the command had started, if it was to start one."""
    left: list[str]
    """Command lines of its processes that live on."""
    finished: set[str]
    """Its finished steps."""


def kills(root, store, log):
    """Kind of step → its kill, in the order of the flow."""

    def finished(step):
        return (root / f".steps/{step}.json").exists

    def asked(role):
        return lambda: any(f'"role": "{role}' in segment.read_text() for segment in store.glob("*.jsonl"))

    def trained():
        curve = root / "round-1/training.jsonl"
        return curve.exists() and curve.read_text().count("\n") >= 2

    return {
        "prepare": Kill((root / "train.parquet").exists, 0, "heldout.parquet"),
        "benchmarks": Kill(finished("prepare"), 0.1, "rewardbench_rows.parquet"),
        "track": Kill(finished("prepare"), 0.5),
        "distances": Kill(lambda: "track run" in log.read_text(), 0.5, "distances.parquet"),
        "adopt": Kill(finished("distances"), 0.1, ".steps/round-0-adopt.json"),
        "evaluation": Kill(finished("round-0-adopt"), 0.2, "round-0/heldout_rewards.parquet"),
        "contamination": Kill(finished("round-0-evaluation"), 0.2, "round-0/contamination.parquet"),
        "metrics": Kill(finished("round-0-contamination"), 0.2, "round-0/metrics.json"),
        "margins": Kill(finished("round-0-metrics"), 0.2, "round-1/margins.parquet"),
        "selection": Kill(finished("round-1-margins"), 0.1, "round-1/allocation.parquet"),
        "rewriting": Kill(asked("rewrite"), 0, "round-1/rewrites.parquet"),
        "augmentation": Kill(asked("paraphrase"), 0, "round-1/augmented.parquet"),
        "fit": Kill(trained, 0, ".steps/round-1-fit.json"),
        "synthetic": Kill(finished("round-1-fit"), 0.2, "round-1/synthetic.parquet"),
        "curvature": Kill(finished("round-1-synthetic"), 0.2, "round-1/curvature.parquet"),
        "report": Kill(finished("round-1-metrics"), 0.2, "report.md"),
    }


KINDS = list(kills(Path(), Path(), Path())) if os.environ.get("MARS_BAD_DAYS") else ["fit"]


def refined(made, name):
    """The arguments by which `start` refines in an experiment's folder."""
    return made.folder, name, "refine", str(made.file), f"name={name}", f"generation.store=generations-{name}"


def server_of(command):
    """The address of the Prefect server that a command starts, once it answers."""
    command.wait_until(lambda: re.search(r"Prefect: (http://\S+)", command.log.read_text()))
    address = re.search(r"Prefect: (http://\S+)", command.log.read_text())[1]
    assert httpx.get(f"{address}/api/health").is_success
    assert any("prefect server start" in line for line in command.processes())
    return address


@pytest.fixture(scope="module")
def runs(start, held_up, prefect_server, experiment, tiny_decoder):
    """A run that nothing disturbed, and one whose command was killed in the middle of steps.

    The third value says for each kill what lived on after it, and which steps were finished.
    """
    from prefect.settings import get_current_settings

    made = [experiment(rounds=1, model={"backbone": str(tiny_decoder)}, fit={"epochs": 4}) for _ in range(2)]
    made[0].start("name=undisturbed", "generation.store=generations-undisturbed")
    killed = made[1].run("killed")
    places = (killed.root, made[1].folder / "generations-killed", made[1].folder / "killed.log")
    shared, own = ({"PREFECT_API_URL": address} for address in (get_current_settings().api.url, ""))
    aftermath = {}
    for kind in KINDS:
        kill = kills(*places)[kind]
        with held_up(killed.root / kill.held_up) if kill.held_up else nullcontext():
            command = start(*refined(made[1], "killed"), **(own if kind == "fit" else shared))
            server = server_of(command) if kind == "fit" else None
            command.wait_until(kill.seen)
            time.sleep(kill.seconds)
            aftermath[kind] = Aftermath(server, command.kill(), set(killed.steps()))
    again = start(*refined(made[1], "killed"), **own)
    again.ends()
    return made[0], made[1], aftermath, again


@pytest.mark.parametrize("kind", KINDS)
def test_no_process_lives_on_after_kill_9_in_the_middle_of(runs, kind):
    _, left, finished = runs[2][kind]
    assert left == []
    assert not any(step.endswith(kind) for step in finished), "the kill came too late to be in this step"


def test_the_resumed_run_has_every_table_of_the_undisturbed_one_row_for_row(runs):
    undisturbed, killed = runs[0].run("undisturbed"), runs[1].run("killed")
    assert len(undisturbed.tables()) == 23
    killed.check_tables_equal(undisturbed)


@pytest.mark.parametrize("t", [0, 1])
def test_the_resumed_run_has_the_same_weights_to_the_bit(runs, t):
    assert runs[1].run("killed").weights(t) == runs[0].run("undisturbed").weights(t)


def test_no_text_is_asked_for_twice(runs):
    stores = (runs[0].folder / "generations-undisturbed", runs[1].folder / "generations-killed")
    undisturbed, killed = (
        Counter(
            json.loads(line)["key"]
            for segment in store.glob("*.jsonl")
            for line in segment.open(encoding="utf-8")
        )
        for store in stores
    )
    assert set(killed.values()) == {1}
    assert set(killed) == set(undisturbed)


def test_mlflow_has_one_run_of_each_round_however_often_the_command_was_killed(runs):
    assert runs[1].runs_in_mlflow() == {("run", "FINISHED"): 1, ("round", "FINISHED"): 2}


def test_a_server_of_its_own_ends_with_a_killed_command_and_the_next_start_has_another(runs):
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{runs[2]['fit'].server}/api/health")
    assert "Prefect: http://" in runs[3].log.read_text()
    assert runs[3].processes() == []
