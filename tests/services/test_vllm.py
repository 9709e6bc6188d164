"""A real vLLM server in the environment that `make vllm` makes.

Where requests are counted in the server's access log, its model is a tiny one of random weights: it is quick,
and its answers mean nothing, so the guards are opened wide by configuration. The server that a run launches
has SmolLM2, and the guards are at their defaults.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import httpx
import pandas as pd
import psutil
import pytest
import yaml

from mars_core.generation import Role
from mars_core.model.reward_model import ModelConfig, RewardModel

pytestmark = [pytest.mark.services, pytest.mark.timeout(1500)]

PROJECT = Path(__file__).parents[2]
PYTHON = PROJECT / ".venv-vllm/bin/python"
ARGUMENTS = "--dtype bfloat16 --enforce-eager --gpu-memory-utilization 0.2 --max-model-len 2048"
ENVIRONMENT = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": str(PROJECT)}
ROLES = {"rewrite_rejected", "paraphrase_chosen", "paraphrase_rejected"}
"""What small budgets ask for: they keep their prompt."""
PATIENCE_SECONDS = 300
CONCURRENCY = 8


@pytest.fixture(scope="module")
def vllm():
    """`make vllm` was run; its Python."""
    subprocess.run(["make", "vllm"], cwd=PROJECT, check=True)
    return PYTHON


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, tiny_chat_model, tiny_decoder):
    """Folder with the file of a small experiment of one round, its guards open for meaningless texts."""
    folder = tmp_path_factory.mktemp("vllm-run")
    values = {
        "name": "served",
        "rounds": 1,
        "data": {"train": "sample://preferences", "subset": 100},
        "model": {"backbone": str(tiny_decoder), "max_length": 64, "precision": "float32"},
        "selection": {"budget": 200},
        "guards": {
            "min_similarity": -1,
            "max_word_overlap": 1,
            "max_length_ratio": 10_000,
            "max_rewrite_length_ratio": 10_000,
            "order_tolerance": 10_000,
            **dict.fromkeys(("cut_off", "refusals", "task_talk", "language"), False),
        },
        "generation": {
            "backend": "vllm",
            "model": str(tiny_chat_model),
            "options": {"concurrency": CONCURRENCY},
            **{role: {"max_tokens": 24} for role in get_args(Role)},
        },
    }
    (folder / "experiment.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture(scope="module")
def server(vllm, tiny_chat_model, experiment):
    """Address of a server that no test kills."""
    port = free_port()
    with serving(vllm, tiny_chat_model, port, experiment / "server.log"):
        yield f"http://127.0.0.1:{port}/v1"


class Mars:
    """`mars refine` in the experiment's folder, as a process of its own."""

    def __init__(self, folder, *overrides):
        self.log = folder / "mars.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "refine", "experiment.yaml", *overrides],
            cwd=folder,
            env=ENVIRONMENT,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )

    def wait_until(self, seen):
        started = time.monotonic()
        while not seen():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() - started < PATIENCE_SECONDS, self.log.read_text()[-3000:]
            time.sleep(0.02)

    def said(self):
        status = self.process.wait(PATIENCE_SECONDS)
        return status, self.log.read_text()


@contextmanager
def serving(python, model, port, log):
    """A server that the test starts itself; ended by SIGKILL, as by a node that fails."""
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), *ARGUMENTS.split()],
        env=ENVIRONMENT, stdout=log.open("a"), stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        started = time.monotonic()
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() - started < PATIENCE_SECONDS, log.read_text()[-3000:]
            time.sleep(0.1)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(address):
    try:
        return httpx.get(address, timeout=5).is_success
    except httpx.HTTPError:
        return False


def answered(log):
    """Requests that a server answered, by its access log."""
    return len(re.findall(r'"POST /v1/chat/completions HTTP/1.1" 200', log.read_text()))


def records(store):
    lines = [line for segment in store.glob("*.jsonl") for line in segment.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def test_a_run_whose_server_was_killed_resumes_at_another_and_sends_nothing_twice(
    vllm, tiny_chat_model, experiment, request
):
    log, store = experiment / "server.log", experiment / "generations"
    port = free_port()
    patience = "generation.options.patience_seconds=10"
    with serving(vllm, tiny_chat_model, port, log):
        mars = Mars(experiment, f"generation.options.base_url=http://127.0.0.1:{port}/v1", patience)
        mars.wait_until(lambda: store.exists() and len(records(store)) >= 30)
    status, said = mars.said()
    assert status != 0
    assert "nobody answers at" in said
    kept = len(records(store))
    on_their_way = answered(log) - kept  # what the server had logged as sent, and was killed over
    assert 0 <= on_their_way <= CONCURRENCY

    other = request.getfixturevalue("server")
    status, said = Mars(experiment, f"generation.options.base_url={other}", patience).said()
    assert status == 0, said[-3000:]
    written = records(store)
    assert len({record["key"] for record in written}) == len(written) == answered(log) - on_their_way > kept
    assert {record["role"] for record in written} >= ROLES
    assert all(len(record["texts"]) == record["sampling"]["n"] for record in written)
    synthetic = pd.read_parquet(experiment / "runs/served/round-1/synthetic.parquet")
    assert len(synthetic) == 200
    assert set(synthetic["generator"]) == {f"vllm:{tiny_chat_model}"}


def test_west_of_n_pairs_the_best_with_the_worst_of_the_sampled_responses(server, experiment):
    store = experiment / "generations-west"
    west = [
        "name=west", "augmentation.scheme=west_of_n", "selection.tau=0", "rewriting.enabled=false",
        "data.subset=20", "selection.budget=20", f"generation.options.base_url={server}",
        f"generation.store={store}",
    ]  # fmt: skip
    status, said = Mars(experiment, *west).said()
    assert status == 0, said[-3000:]
    sampled = records(store)
    assert {record["role"] for record in sampled} == {"respond"}
    run = experiment / "runs/west"
    pairs = pd.read_parquet(run / "round-1/synthetic.parquet")
    assert len(pairs) == len(sampled) == 20
    model = RewardModel.load(str(run / "round-0/model"), ModelConfig(max_length=64, precision="float32"))
    usable = [frozenset(filter(None, map(str.strip, record["texts"]))) for record in sampled]
    for pair in pairs.to_dict("records"):
        (texts,) = (list(texts) for texts in usable if {pair["chosen"], pair["rejected"]} <= texts)
        rewards = dict(zip(texts, model.score([pair["prompt"]] * len(texts), texts), strict=True))
        assert rewards[pair["chosen"]] == max(rewards.values()) > rewards[pair["rejected"]]
        assert rewards[pair["rejected"]] == min(rewards.values())


def test_a_run_launches_its_server_and_takes_it_along_when_it_is_killed(vllm, experiment):
    store = experiment / "generations-launched"
    sampling = "{temperature: 0.4, top_p: 1, max_growth: 1.3}"
    launched = [
        "name=launched", "data.subset=60", "selection.budget=12", "rewriting.tries=1", "guards={}",
        "generation.model=package://smollm2-135m-instruct", "generation.prompts=small",
        *(f"generation.paraphrase_{part}={sampling}" for part in ("prompt", "chosen", "rejected")),
        "augmentation.min_characters=60", f"generation.store={store}",
        f"generation.launch.command={vllm} -m vllm.entrypoints.openai.api_server",
    ]  # fmt: skip
    mars = Mars(experiment, *launched)
    mars.wait_until(lambda: store.exists() and len(records(store)) >= 3)
    family = psutil.Process(mars.process.pid).children(recursive=True)
    assert any("vllm" in " ".join(process.cmdline()) for process in family)
    mars.process.kill()
    mars.process.wait()
    _, alive = psutil.wait_procs(family, timeout=15)
    assert alive == []

    status, said = Mars(experiment, *launched).said()
    assert status == 0, said[-3000:]
    assert "The server answers after" in said
    keys = [record["key"] for record in records(store)]
    assert len(set(keys)) == len(keys)
    synthetic = pd.read_parquet(experiment / "runs/launched/round-1/synthetic.parquet")
    assert set(synthetic["generator"]) == {"vllm:package://smollm2-135m-instruct"}
    originals = pd.read_parquet(experiment / "runs/launched/train.parquet")
    written = set(synthetic["chosen"]) | set(synthetic["rejected"])
    assert written - set(originals["chosen"]) - set(originals["rejected"])

    status, said = Mars(experiment, *launched, "name=offline", "generation.offline=true").said()
    assert status == 0, said[-3000:]
    assert "Starting a server" not in said
