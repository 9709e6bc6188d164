"""A Ray cluster on this machine, a head and two nodes, as `make cluster` starts it: good days and bad ones.

What a run computes there equals what it computes in its own process, whatever is killed meanwhile; that takes
minutes, and is with MARS_BAD_DAYS=1 (`make bad-days`). Tests that score in processes of their own come first:
the actors of this one keep the cluster's CPUs from then on.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml

from deployments import cluster as deployed
from mars_core.data.samples import preferences
from mars_core.fit.specification import FitConfig, FitSpec
from mars_core.fit.train import fit
from mars_core.generation import GenerationConfig, Request
from mars_core.model.reward_model import ModelConfig
from mars_core.model.scoring import ScoreSpec, score
from mars_core.tables import Table
from tasks.compute.compute import ComputeConfig
from tasks.processes.addresses import free_port
from tasks.processes.open_generator import generator_of

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

PROJECT = Path(__file__).parents[2]
bad_day = pytest.mark.skipif(not os.environ.get("MARS_BAD_DAYS"), reason="a bad day: make bad-days")
PATIENCE_SECONDS = 300
EXPERIMENT = {
    "name": "tiny",
    "rounds": 1,
    "data": {"train": "sample://preferences", "subset": 60, "validation_share": 0.05, "heldout_share": 0.08},
    "model": {"max_length": 64, "precision": "float32"},
    "selection": {"tau": 0.5, "budget": 20},
    "generation": {"backend": "rules"},
    "fit": {"learning_rate": 3.0e-3, "batch_pairs": 8},
}
ARMS = {
    "no-augmentation": {"augmentation.scheme": "repeat", "selection.tau": 0},
    "hardest": {"selection.strategy": "hardest", "rewriting.enabled": False},
}
CELL_NAMES = tuple(f"ray::{arm}"[:15] for arm in ARMS)  # a process's name has at most 15 characters
TABLES = ("distances", "round-1/margins", "round-1/allocation", "round-1/augmented", "round-1/synthetic")
SERVER = """
import argparse, http.server, json, os, time
arguments = argparse.ArgumentParser()
for name in ("--model", "--host", "--port"):
    arguments.add_argument(name)
arguments, _ = arguments.parse_known_args()

def note(file, line):
    with open(file, "a") as lines:
        lines.write(line + chr(10))

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.reply({"data": [{"id": arguments.model}]})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.05)
        choice = {"message": {"content": "Larks sing."}, "finish_reason": "stop"}
        self.reply({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})
        note("answered", str(os.getpid()))
    def reply(self, content):
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
server = http.server.ThreadingHTTPServer((arguments.host, int(arguments.port)), Handler)
note("ready", str(os.getpid()))
server.serve_forever()
"""
"""A stand-in of vLLM, which notes who answers."""
START = """
import sys
import time
import ray  # which takes seconds, and is not what is waited for
from tasks.compute.compute import ComputeConfig
from mars_core.model.scoring import ScoreSpec
keys, spec = sys.argv[1:]
spec = ScoreSpec.model_validate_json(spec)
started = time.monotonic()
try:
    ComputeConfig.model_validate_json(keys).open().run(spec, lambda more: None)
except Exception as error:
    sys.exit(f"after {time.monotonic() - started:.0f} s {type(error).__name__}: {error}")
"""


class Cluster:
    """The cluster's processes and what a process that uses it has in its environment."""

    def __init__(self, state):
        self.state = state
        self.variables = deployed.variables(state)
        self.supervisor = psutil.Process(int((state / "pid").read_text()))

    def processes(self):
        """All processes of the cluster."""
        return self.supervisor.children(recursive=True)

    def raylet(self, name):
        [found] = (one for one in self.processes() if is_called(one, "/raylet") and name in node_name(one))
        return found

    def actors(self):
        return [one for one in self.processes() if one.name().startswith("ray::_Worker")]

    def trainers(self):
        return [one for one in self.processes() if one.name().startswith("ray::RayTrain")]

    def cells(self):
        return [one for one in self.processes() if one.name().startswith(CELL_NAMES)]


def is_called(process, end):
    line = process.cmdline()
    return bool(line) and line[0].endswith(end)


def node_name(raylet):
    return next((word.partition("=")[2] for word in raylet.cmdline() if word.startswith("--node-name=")), "")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster that this process and its children use."""
    state = tmp_path_factory.mktemp("cluster")
    command = [sys.executable, "-m", "deployments.cluster"]
    done = subprocess.run(
        [*command, "start", "--state", state],
        cwd=PROJECT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert done.returncode == 0, done.stdout
        running = Cluster(state)
        os.environ |= running.variables  # Ray reads them when it is imported
        yield running
    finally:
        import ray

        ray.shutdown()  # a process that is still connected would be ended some time after the head
        subprocess.run([*command, "stop", "--state", state], cwd=PROJECT, check=True)
        for name in running.variables:
            os.environ.pop(name, None)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A table of 160 pairs."""
    file = tmp_path_factory.mktemp("rows") / "train.parquet"
    pairs = [
        {"pair_id": f"{copy}-{pair['id']}", "prompt": f"{copy}. {pair['prompt'][-60:]}"}
        | {side: pair[side][-60:] for side in ("chosen", "rejected")}
        for copy in range(8)
        for pair in preferences()[:20]
    ]
    pd.DataFrame(pairs).to_parquet(file)
    return file


@pytest.fixture
def spec(rows, tiny_decoder, tmp_path):
    config = ModelConfig(max_length=64, precision="float32")
    return ScoreSpec(
        model=str(tiny_decoder), reward_model=config, pairs={"train": rows}, output=tmp_path / "scores"
    )


@pytest.fixture(scope="module")
def expected(rows, tiny_decoder, tmp_path_factory):
    """The margins that `local` gives."""
    output = tmp_path_factory.mktemp("local") / "scores"
    config = ModelConfig(max_length=64, precision="float32")
    score(ScoreSpec(model=str(tiny_decoder), reward_model=config, pairs={"train": rows}, output=output))
    return Table(output / "train.parquet").read().to_pandas()


def opened(**keys):
    return ComputeConfig.model_validate({"backend": "ray", "rows_of_part": 2, **keys})


def records(spec):
    """The parts that are there, by their rows, with their folders."""
    found = (json.loads(file.read_text()) for file in spec.output.with_name("scores.parts").glob("*/*.json"))
    return {(part["first"], part["end"]): part["folder"] for part in found}


def until(holds, what):
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < PATIENCE_SECONDS, f"still not: {what}"
        time.sleep(0.02)


def assert_as_expected(spec, expected):
    found = Table(spec.output / "train.parquet").read().to_pandas()
    assert found["pair_id"].tolist() == expected["pair_id"].tolist()
    np.testing.assert_allclose(found["margin"], expected["margin"], atol=1e-5)
    assert (np.sign(found["margin"]) == np.sign(expected["margin"])).all()


def driver(spec, environment, **keys):
    """Another process that scores."""
    arguments = [opened(**keys).model_dump_json(), spec.model_dump_json()]
    return subprocess.Popen(
        [sys.executable, "-c", START, *arguments],
        cwd=PROJECT, env=os.environ | environment,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_the_cluster_listens_on_the_loopback_alone(cluster):
    listening = [
        connection.laddr.ip
        for process in cluster.processes()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


def test_its_processes_have_no_secret_but_the_place_of_the_token(cluster):
    token = (cluster.state / "token").read_text()
    assert oct((cluster.state / "token").stat().st_mode)[-3:] == "600"
    for process in cluster.processes():
        assert token not in " ".join([*process.cmdline(), *process.environ().values()])


@pytest.mark.parametrize("how", ["no head", "another token"])
def test_a_cluster_that_cannot_be_used_is_told_within_30_seconds(how, cluster, spec, tmp_path):
    if how == "no head":
        environment = {"RAY_ADDRESS": f"127.0.0.1:{free_port()}"}
    else:
        (tmp_path / "token").write_text("0" * 64)
        environment = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    refused = driver(spec, cluster.variables | environment)
    said, _ = refused.communicate()
    assert refused.returncode == 1
    seconds, error = re.search(r"after (\d+) s (.*)", said).groups()
    assert error.startswith("ComputeError: no Ray cluster can be used at auto")
    assert int(seconds) <= 30


def test_a_comparison_of_8_cells_that_is_killed_computes_no_finished_cell_again(
    cluster, headless, prefect_server, mlflow_store, tmp_path, monkeypatch
):
    from prefect.settings import get_current_settings

    from flows.compare import compare

    experiment = {key: value for key, value in EXPERIMENT.items() if key != "name"}
    experiment["model"] = {"backbone": str(headless), **EXPERIMENT["model"]}
    experiment["fit"] = {"trainable": "head", **EXPERIMENT["fit"]}
    file, folder = tmp_path / "compare.yaml", tmp_path / "runs" / "tiny"
    config = {"name": "tiny", "seeds": 4, "ray": {}, "baselines": ["no-augmentation"], "arms": ARMS}
    file.write_text(yaml.safe_dump({**config, "experiment": experiment}))
    shutil.copy(mlflow_store, tmp_path)

    def finished():
        return {path.stem for path in folder.glob("cells/*.json")}

    def steps(cells):
        records = (path for cell in cells for path in (folder / cell).glob(".steps/*.json"))
        return {path: path.stat().st_mtime_ns for path in records}

    with (tmp_path / "killed.log").open("w") as log:
        first = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "compare", file],
            cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(PROJECT), "PREFECT_API_URL": get_current_settings().api.url},
        )  # fmt: skip
    until(lambda: len(finished()) >= 2 or first.poll() is not None, "cells are finished")
    first.kill()
    first.wait()
    before = finished()
    assert 2 <= len(before) < 8, (tmp_path / "killed.log").read_text()[-3000:]
    kept = steps(before)

    killed = []

    def kill_a_cell():
        until(lambda: len(finished()) > len(before) and cluster.cells(), "another cell runs")
        killed.append(cluster.cells()[0])
        killed[0].kill()

    monkeypatch.chdir(tmp_path)
    killing = threading.Thread(target=kill_a_cell)
    killing.start()
    report = compare(str(file))
    killing.join()
    assert len(killed) == 1
    assert report.failed == {}
    assert len(report.results) == 8
    assert steps(before) == kept
    assert len(list(folder.glob("*/cell.log"))) == 8  # each was a task of the cluster


def test_a_server_that_dies_is_replaced_while_the_other_goes_on(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "serve.py").write_text(SERVER)
    launch = {"command": f"{sys.executable} serve.py", "replicas": 2, "cpus": 1}
    config = GenerationConfig.model_validate(
        {"backend": "vllm", "model": "m", "launch": launch, "store": "store", "options": {"concurrency": 2}}
    )
    killed, asked = [], 0

    def servers():
        return [int(line) for line in Path("ready").read_text().split()]

    def answered():
        return Path("answered").read_text().split()

    def kill():
        if not killed:
            killed.append(servers()[0])
            os.kill(killed[0], signal.SIGKILL)

    with generator_of(config, tmp_path / "vllm.log") as generator:

        def ask(count, on_answer=lambda: None):
            nonlocal asked
            some = [
                Request("paraphrase_chosen", "What is a lark?", f"Lark {n}.", "A fish.", 1)
                for n in range(asked, asked + count)
            ]
            asked += count
            assert not any(answer.error for answer in generator.generate(some, on_answer))

        ask(1)
        until(lambda: len(servers()) == 2, "two servers run")
        ask(100, kill)
        until(lambda: len(servers()) == 3, "the killed one is replaced")
        until(lambda: ask(8) or str(servers()[2]) in answered(), "the new one is asked")
    assert len(answered()) == asked  # no answered request was sent twice
    assert str(servers()[1]) in answered()
    until(lambda: not any(map(psutil.pid_exists, servers())), "the servers have ended with the block")


def test_a_fit_on_two_nodes_whose_process_is_killed_goes_on_from_its_snapshot(
    cluster, rows, tiny_decoder, tmp_path
):
    spec = FitSpec(
        model=str(tiny_decoder), pairs=[rows], output=tmp_path / "fitted", log=tmp_path / "fitted.jsonl",
        seed=3, reward_model=ModelConfig(max_length=64, precision="float32"),
        fit=FitConfig(
            learning_rate=1e-4, batch_pairs=16, epochs=6, dropout=0.0, snapshot_minutes=0, launch="ray"
        ),
    )  # fmt: skip
    (tmp_path / "fit.json").write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "tasks.cluster.fit", tmp_path / "fit.json"]
    fitting = subprocess.Popen(
        command, cwd=PROJECT, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    lines = [json.loads(fitting.stdout.readline()) for _ in range(3)]
    cluster.trainers()[-1].kill()
    *again, last = map(json.loads, fitting.stdout)
    assert fitting.wait() == 0
    steps = [line["step"] for line in [*lines, *again]]
    assert sorted(set(steps)) == list(range(1, 61))
    assert len(steps) <= 61, "more than the step in flight was computed again"
    assert last["result"]["processes"] == 2
    alone = []
    fit(spec.model_copy(update={"output": tmp_path / "alone"}), alone.append)
    together = [json.loads(line) for line in spec.log.read_text().splitlines()]
    for figure in ("loss", "gradient_norm", "learning_rate"):
        expected = pytest.approx([step[figure] for step in alone], rel=1e-4)
        assert [step[figure] for step in together] == expected


@bad_day
def test_a_run_on_the_cluster_gives_the_tables_of_one_without(cluster, tmp_path):
    for name, compute in (("local", {"backend": "local"}), ("ray", {"backend": "ray", "rows_of_part": 8})):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(EXPERIMENT | {"name": name, "compute": compute}))
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "refine", file],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]
    for name in TABLES:
        a, b = (
            Table(tmp_path / "runs" / run / f"{name}.parquet").read().to_pandas() for run in ("local", "ray")
        )
        assert list(a) == list(b)
        for column in a:
            if a[column].dtype.kind == "f":
                np.testing.assert_allclose(a[column], b[column], atol=1e-5)
                assert (np.sign(a[column]) == np.sign(b[column])).all()
            else:
                assert a[column].astype(str).tolist() == b[column].astype(str).tolist()


@bad_day
def test_what_a_killed_driver_has_left_is_not_computed_again(cluster, spec, expected):
    first = driver(spec, cluster.variables, rows_of_part=1)
    until(lambda: len(records(spec)) >= 10 or first.poll() is not None, "parts are there")
    first.kill()
    said, _ = first.communicate()
    before = records(spec)
    assert 10 <= len(before) < 160, said
    opened().open().run(spec, lambda more: None)
    after = records(spec)
    assert before.items() <= after.items()
    assert_as_expected(spec, expected)
    folders = [place for place in spec.output.with_name("scores.parts").glob("*/*") if place.is_dir()]
    assert len(folders) - len(after) <= 2, "more than the parts in flight were computed twice"


@bad_day
def test_a_killed_actor_and_a_killed_node_are_replaced(cluster, spec, expected):
    killed, done = [], []

    def kill(more):
        done.append(more)
        if len(done) in (5, 20):
            killed.append(cluster.actors()[0] if len(done) == 5 else cluster.raylet("node-1"))
            killed[-1].kill()

    opened().open().run(spec, kill)
    assert len(killed) == 2
    assert_as_expected(spec, expected)
    assert sum(done) == 320
