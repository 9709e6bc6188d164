"""The README, followed by a newcomer: its commands verbatim on a fresh clone, both interfaces in a browser.

Real parts throughout: pip, the Prefect and MLflow servers that `mars ui` starts, Debian's chromium. Only
`make lint` and `make test` are left to whoever runs this test. It is to have the machine to itself, for some
of it is timed. The chapter on services is followed beside the others, which fill the time until its schedule
comes.
"""

import base64
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import httpx
import pandas as pd
import pytest

from deployments import environment

pytestmark = [pytest.mark.services, pytest.mark.timeout(1500)]

PROJECT = Path(__file__).parents[2]
LEFT_OUT = {"make lint", "make test"}
INSTALL = "make --jobs 2 install vllm"
"""What `make run` begins with; apart, so that each is timed."""
RUN_SECONDS = 480
AGAIN_SECONDS = 60
RETRAINING_SECONDS = 600


class Outcome(NamedTuple):
    """What became of a command."""

    status: int
    printed: str
    seconds: float


class Newcomer(NamedTuple):
    """A fresh clone in which the README was followed."""

    folder: Path
    outcomes: dict[str, Outcome]
    """Of each command but those of the chapter on services."""
    again: Outcome
    """Of `make run` once more."""
    changed: set[Path]
    """Files of models that the second `make run` touched."""
    services: Future
    """What `serve` returns, for the schedule takes its time."""


@pytest.fixture(scope="module")
def newcomer():
    place = tempfile.mkdtemp(prefix="mars-newcomer-")
    try:
        with ThreadPoolExecutor() as pool:
            Path(place).chmod(0o711)  # PostgreSQL's user enters the clone, where root runs the services
            folder = Path(place) / "mars"
            subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(folder)], check=True)
            blocks = re.findall(r"```console\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
            quickstart, *chapters = ([line for line in block.splitlines() if line] for block in blocks)
            assert quickstart == ["make run"]
            outcomes = {command: _run(command, folder) for command in (INSTALL, *quickstart)}
            models = _times(folder)
            again = _run("make run", folder)
            changed = {path for path, time in models.items() if _times(folder).get(path) != time}
            [services] = (chapter for chapter in chapters if "make services" in chapter)
            try:
                served = pool.submit(serve, services, folder, outcomes[INSTALL].seconds)
                for command in (line for chapter in chapters if chapter != services for line in chapter):
                    if command not in LEFT_OUT:
                        outcomes[command] = _run(command, folder)
                yield Newcomer(folder, outcomes, again, changed, served)
            finally:
                _run("make services-stop", folder)
    finally:
        # Of two environments that takes minutes, mostly of waiting for the disk: nobody needs to wait for it.
        subprocess.Popen(["rm", "-rf", place], start_new_session=True)


def serve(chapter, folder, seconds):
    """Follow the chapter on services and wait until the schedule has retrained, or until it is too late.

    Args:
        chapter: the commands.
        folder: the clone.
        seconds: how long it took to install.

    Returns:
        The outcome of each command; how many seconds after the beginning of the installation a candidate was
        promoted, or infinitely many.
    """
    started = time.monotonic() - seconds
    outcomes = {command: _run(command, folder) for command in chapter}
    if failed(outcomes):
        return outcomes, float("inf")
    variables = environment.read(folder / ".env")
    address = f"http://127.0.0.1:{variables['PREFECT_PORT']}/api/flow_runs/filter"
    promoted = {"flow_runs": {"state": {"name": {"any_": ["Promoted"]}}}}
    with httpx.Client(auth=("mars", variables["PREFECT_PASSWORD"]), timeout=60) as prefect:
        while (took := time.monotonic() - started) < RETRAINING_SECONDS:
            if prefect.post(address, json=promoted).raise_for_status().json():
                return outcomes, took
            time.sleep(2)
    return outcomes, float("inf")


def failed(outcomes):
    return {command: printed[-2000:] for command, (status, printed, _) in outcomes.items() if status}


def test_every_command_of_the_readme_but_for_services_succeeds(newcomer):
    assert not failed(newcomer.outcomes)
    assert len(newcomer.outcomes) > 5


def test_make_run_is_ready_within_eight_minutes_installing_included(newcomer):
    assert newcomer.outcomes[INSTALL].seconds + newcomer.outcomes["make run"].seconds < RUN_SECONDS


def test_make_run_prints_the_rounds_and_leaves_their_artifacts(newcomer):
    printed = newcomer.outcomes["make run"].printed
    for t in range(2):
        assert f"round {t}" in printed
        assert (newcomer.folder / f"runs/quickstart/round-{t}/model/model.safetensors").exists()
    assert (newcomer.folder / "runs/quickstart/report.md").exists()


def test_the_language_model_writes_texts_that_pass_the_guards(newcomer):
    run = newcomer.folder / "runs/quickstart"
    synthetic, originals = (
        pd.read_parquet(run / name) for name in ("round-1/synthetic.parquet", "train.parquet")
    )
    assert set(synthetic["generator"]) == {"vllm:package://smollm2-135m-instruct"}
    written = set(synthetic["chosen"]) | set(synthetic["rejected"])
    assert written - set(originals["chosen"]) - set(originals["rejected"])


def test_make_run_again_ends_within_a_minute_without_training_or_scoring(newcomer):
    assert newcomer.again.status == 0
    assert newcomer.again.seconds < AGAIN_SECONDS
    assert "texts in" not in newcomer.again.printed  # what scoring says when it is done
    assert "Fitted in" not in newcomer.again.printed
    assert newcomer.changed == set()


def test_prefect_and_mlflow_show_the_run_in_a_browser(newcomer, chromium, tmp_path):
    ui = subprocess.Popen(
        [".venv/bin/mars", "ui"], cwd=newcomer.folder, env=_environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        said = (re.search(r"(http://[^/\s]+)(?:\s+password: (\S+))?", line) for line in ui.stdout)
        (prefect, credentials), (mlflow, _) = (found.groups() for found in islice(filter(None, said), 2))
        api = httpx.Client(timeout=60, auth=tuple(credentials.split(":")))
        login = base64.b64encode(credentials.encode()).decode()
        run = api.post(f"{prefect}/api/flow_runs/filter", json={"sort": "START_TIME_DESC"}).json()[-1]
        rounds_table = api.post(
            f"{prefect}/api/artifacts/filter", json={"artifacts": {"key": {"any_": ["rounds"]}}}
        ).json()[-1]
        runs = api.post(
            f"{mlflow}/api/2.0/mlflow/runs/search", json={"experiment_ids": ["1"], "order_by": ["start_time"]}
        ).json()["runs"]
        rounds = json.dumps([run["info"]["run_id"] for run in runs[1:]], separators=(",", ":"))
        compared = f"{mlflow}/#/compare-runs?runs={rounds}&experiments=[%221%22]"
        curves = f"{mlflow}/#/experiments/1/runs/{runs[0]['info']['run_id']}/model-metrics"
        script = f"localStorage.setItem('prefect-password', '{login}')"
        with chromium(tmp_path / "profile", script=script) as page:
            page(f"{prefect}/runs/flow-run/{run['id']}", "quickstart", picture="prefect")
            table = f"{prefect}/artifacts/artifact/{rounds_table['id']}"
            page(table, "held-out", "(best)")
            page(compared, "quickstart · round 0", "quickstart · round 1")
            by_round = "^(heldout/accuracy|rewardbench/)"
            lines = (f"quickstart ({name})" for name in ("heldout/accuracy", "rewardbench/total"))
            page(curves, *lines, picture="mlflow", search=by_round)
    finally:
        ui.send_signal(signal.SIGINT)
        assert ui.wait(30) == 0


def test_the_schedule_retrains_within_ten_minutes_installing_included(newcomer):
    outcomes, seconds = newcomer.services.result()
    assert not failed(outcomes)
    assert seconds < RETRAINING_SECONDS, (newcomer.folder / "services/worker.log").read_text()[-3000:]
    evaluated = ". deployments/client.sh && .venv/bin/mars evaluate models:/helpful@champion"
    assert _run(evaluated, newcomer.folder).status == 0


def _times(folder):
    """When each file of the quickstart's models was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("runs/quickstart/round-*/model/*")}


def _run(command, folder):
    """Run a command line as a newcomer's shell would, without this environment's own settings."""
    started = time.monotonic()
    done = subprocess.run(
        command, shell=True, cwd=folder, env=_environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, time.monotonic() - started)


def _environment():
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(
            ("HF_", "OMP_", "PREFECT_", "MLFLOW_", "PYTEST_", "PYTHONPATH", "MAKE", "MFLAGS")
        )
    }
