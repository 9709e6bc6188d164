"""The README, followed by a newcomer: its commands verbatim on a fresh clone, both interfaces in a browser.

Real parts throughout: pip, the Prefect and MLflow servers that `mars ui` starts, Debian's chromium. Only
`make lint` and `make test` are left to whoever runs this test. MARS_SCREENSHOTS names a folder to keep
the pictures in.
"""

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from itertools import islice
from pathlib import Path

import httpx
import pytest

pytestmark = [pytest.mark.services, pytest.mark.timeout(1500)]

PROJECT = Path(__file__).parents[2]
LEFT_OUT = {"make lint", "make test"}
INSTALL = "make --jobs 2 install vllm"
"""What `make run` begins with; apart, so that each is timed."""
PATH_TO_A_RETRAINING = (INSTALL, "make services", "make deploy")


@pytest.fixture(scope="module")
def clone():
    """A fresh clone in which every command of the README ran; gives its folder and each command's outcome."""
    with tempfile.TemporaryDirectory(prefix="mars-newcomer-") as place:
        Path(place).chmod(0o711)  # PostgreSQL's user enters the clone, where root runs the services
        folder = Path(place) / "mars"
        subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(folder)], check=True)
        blocks = re.findall(r"```console\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
        commands = [line for block in blocks for line in block.splitlines() if line and line not in LEFT_OUT]
        outcomes = {}
        for command in [INSTALL, *commands]:
            started = time.monotonic()
            outcome = _run(command, folder)
            outcomes[command] = (outcome, time.monotonic() - started)
        yield folder, outcomes
        _run("make services-stop", folder)


def test_every_command_of_the_readme_succeeds(clone):
    _, outcomes = clone
    failed = {command: text[-2000:] for command, ((status, text), _) in outcomes.items() if status}
    assert not failed
    assert "make run" in outcomes


def test_make_run_is_ready_within_eight_minutes_installing_included(clone):
    _, outcomes = clone
    assert outcomes[INSTALL][1] + outcomes["make run"][1] < 480


def test_make_run_prints_the_rounds_and_leaves_their_artifacts(clone):
    folder, outcomes = clone
    (_, printed), _ = outcomes["make run"]
    for t in range(2):
        assert f"round {t}" in printed
        assert (folder / f"runs/quickstart/round-{t}/model/model.safetensors").exists()
    assert (folder / "runs/quickstart/report.md").exists()


def test_the_schedule_retrains_within_ten_minutes_installing_included(clone):
    folder, outcomes = clone
    started = time.monotonic()
    seconds = sum(outcomes[command][1] for command in PATH_TO_A_RETRAINING)
    promoted = ". deployments/client.sh && COLUMNS=200 .venv/bin/prefect flow-run ls --state Promoted"
    while "helpful" not in _run(promoted, folder)[1]:
        log = (folder / "services/worker.log").read_text()[-3000:]
        assert seconds + time.monotonic() - started < 600, log
        time.sleep(5)
    evaluated = ". deployments/client.sh && .venv/bin/mars evaluate models:/helpful@champion"
    assert _run(evaluated, folder)[0] == 0


def test_make_run_again_ends_within_a_minute_without_training_or_scoring(clone):
    folder, _ = clone
    models = {path: path.stat().st_mtime_ns for path in folder.glob("runs/quickstart/round-*/model/*")}
    started = time.monotonic()
    status, printed = _run("make run", folder)
    assert status == 0
    assert time.monotonic() - started < 60
    assert "texts in" not in printed  # what scoring says when it is done
    assert "Fitted in" not in printed
    assert {path: path.stat().st_mtime_ns for path in models} == models


def test_prefect_and_mlflow_show_the_run_in_a_browser(clone, chromium, tmp_path):
    folder, _ = clone
    pictures = Path(os.environ.get("MARS_SCREENSHOTS", tmp_path))
    api = httpx.Client(timeout=60)
    ui = subprocess.Popen(
        [".venv/bin/mars", "ui"], cwd=folder, env=_environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        said = (re.search(r"http://[^/\s]+", line) for line in ui.stdout)
        prefect, mlflow = (found.group() for found in islice(filter(None, said), 2))
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
        with chromium(tmp_path / "profile") as page:
            page(f"{prefect}/runs/flow-run/{run['id']}", "quickstart", pictures / "prefect.png")
            table = f"{prefect}/artifacts/artifact/{rounds_table['id']}"
            assert "(best)" in page(table, "held-out", tmp_path / "rounds.png")
            shown = page(compared, "quickstart · round 0", tmp_path / "compared.png")
            assert "quickstart · round 1" in shown
            by_round = "^(heldout/accuracy|rewardbench/)"
            shown = page(curves, "quickstart (rewardbench/total)", pictures / "mlflow.png", search=by_round)
            assert "quickstart (heldout/accuracy)" in shown
    finally:
        ui.send_signal(signal.SIGINT)
        assert ui.wait(30) == 0


def _run(command, folder):
    """Run a command line as a newcomer's shell would, without this environment's own settings."""
    done = subprocess.run(
        command, shell=True, cwd=folder, env=_environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


def _environment():
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(
            ("HF_", "OMP_", "PREFECT_", "MLFLOW_", "PYTEST_", "PYTHONPATH", "MAKE", "MFLAGS")
        )
    }
