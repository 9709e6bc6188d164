"""A real vLLM server in the environment that `make vllm` makes.

Its model is a tiny one of random weights: it is quick, and its answers mean nothing, so the guards are opened
wide by configuration; test_readme.py has SmolLM2, and guards at their defaults. A server takes most of a
minute to start, so there are two: one that the tests start, and one that a run launches.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, get_args

import httpx
import pandas as pd
import psutil
import pytest
import yaml

from mars_core.generation import Role
from mars_core.model.reward_model import ModelConfig, RewardModel

pytestmark = [pytest.mark.services, pytest.mark.timeout(1500)]

PROJECT = Path(__file__).parents[2]
ARGUMENTS = "--dtype bfloat16 --enforce-eager --gpu-memory-utilization 0.2 --max-model-len 2048"
ENVIRONMENT = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": str(PROJECT)}
ROLES = {"rewrite_rejected", "paraphrase_chosen", "paraphrase_rejected"}
"""What small budgets ask for: they keep their prompt."""
PATIENCE_SECONDS = 600
CONCURRENCY = 8
BUDGET = 120


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, tiny_chat_model, tiny_decoder, prefect_server):
    """Folder with the file of a small experiment of one round, its guards open for meaningless texts."""
    folder = tmp_path_factory.mktemp("vllm-run")
    values = {
        "name": "served",
        "rounds": 1,
        "data": {"train": "sample://preferences", "subset": 100},
        "model": {"backbone": str(tiny_decoder), "max_length": 64, "precision": "float32"},
        "selection": {"budget": BUDGET},
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


class Mars:
    """`mars refine` in the experiment's folder, as a process of its own; all use one Prefect server."""

    def __init__(self, folder, *overrides):
        from prefect.settings import get_current_settings

        self.log = folder / "mars.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "refine", "experiment.yaml", *overrides],
            cwd=folder,
            env=ENVIRONMENT | {"PREFECT_API_URL": get_current_settings().api.url},
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


class Server:
    """A server that the test starts itself; ended by SIGKILL, as by a node that fails."""

    def __init__(self, python, model, log):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address, self.log = f"http://127.0.0.1:{port}/v1", log
        place = ["--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
        self.process = subprocess.Popen(
            [str(python), "-m", "vllm.entrypoints.openai.api_server", *place, *ARGUMENTS.split()],
            env=ENVIRONMENT, stdout=log.open("w"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def wait(self):
        """Return when it answers."""
        started = time.monotonic()
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() - started < PATIENCE_SECONDS, self.log.read_text()[-3000:]
            time.sleep(0.1)

    def _answers(self):
        try:
            return httpx.get(self.address.replace("/v1", "/health"), timeout=5).is_success
        except httpx.HTTPError:
            return False

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def server(vllm, tiny_chat_model, experiment):
    """A server, which `served` kills at last."""
    started = Server(vllm, tiny_chat_model, experiment / "server.log")
    try:
        started.wait()
        yield started
    finally:
        started.kill()


def answered(log):
    """Requests that a server answered, by its access log."""
    return len(re.findall(r'"POST /v1/chat/completions HTTP/1.1" 200', log.read_text()))


def records(store):
    lines = [line for segment in store.glob("*.jsonl") for line in segment.read_text().splitlines()]
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def west(server, experiment):
    """The folder of a run of West-of-N, and what was sampled for it."""
    store = experiment / "generations-west"
    arguments = [
        "name=west", "augmentation.scheme=west_of_n", "selection.tau=0", "rewriting.enabled=false",
        "data.subset=20", "selection.budget=20", f"generation.options.base_url={server.address}",
        f"generation.store={store}",
    ]  # fmt: skip
    status, said = Mars(experiment, *arguments).said()
    assert status == 0, said[-3000:]
    return experiment / "runs/west", records(store)


def test_west_of_n_pairs_the_best_with_the_worst_of_the_sampled_responses(west):
    run, sampled = west
    assert {record["role"] for record in sampled} == {"respond"}
    pairs = pd.read_parquet(run / "round-1/synthetic.parquet")
    assert len(pairs) == len(sampled) == 20
    model = RewardModel.load(str(run / "round-0/model"), ModelConfig(max_length=64, precision="float32"))
    usable = [frozenset(filter(None, map(str.strip, record["texts"]))) for record in sampled]
    for pair in pairs.to_dict("records"):
        (texts,) = (list(texts) for texts in usable if {pair["chosen"], pair["rejected"]} <= texts)
        rewards = dict(zip(texts, model.score([pair["prompt"]] * len(texts), texts), strict=True))
        assert rewards[pair["chosen"]] == max(rewards.values()) > rewards[pair["rejected"]]
        assert rewards[pair["rejected"]] == min(rewards.values())


class Attempt(NamedTuple):
    """What a command that was started once more left behind."""

    status: int
    said: str
    stored: int
    """Answers in the store."""
    answered: int
    """Requests that the servers had answered, by their access logs."""


@pytest.fixture(scope="module")
def served(vllm, server, west, experiment):
    """A run whose server is killed; it goes on with one of its own, is killed, and goes on without any.

    The attempts, and the processes that lived on after the second one was killed.
    """
    run, store = experiment / "runs/served", experiment / "generations"
    before = answered(server.log)  # by the run of `west`, which has ended

    def attempt(mars):
        status, said = mars.said()
        own = run / "vllm.log"
        sent = answered(server.log) - before + (answered(own) if own.exists() else 0)
        return Attempt(status, said, len(records(store)), sent)

    patience = "generation.options.patience_seconds=10"
    mars = Mars(experiment, f"generation.options.base_url={server.address}", patience)
    mars.wait_until(lambda: store.exists() and len(records(store)) >= 10)
    server.kill()
    attempts = [attempt(mars)]

    # The step writes into a pipe that nobody reads: all texts are stored, and the server still runs.
    pipe = run / "round-1/.augmented.parquet.partial"
    os.mkfifo(pipe)
    launch = f"generation.launch.command={vllm} -m vllm.entrypoints.openai.api_server"
    mars = Mars(experiment, launch)
    mars.wait_until(lambda: " synthetic pairs of " in mars.log.read_text())
    family = psutil.Process(mars.process.pid).children(recursive=True)
    assert any("vllm" in " ".join(process.cmdline()) for process in family)
    mars.process.kill()
    _, alive = psutil.wait_procs(family, timeout=15)
    attempts.append(attempt(mars))
    pipe.unlink()

    attempts.append(attempt(Mars(experiment, launch, "generation.offline=true")))
    return attempts, alive


def test_a_run_whose_server_was_killed_says_so_and_keeps_what_was_answered(served):
    [first, *_], _ = served
    assert first.status != 0
    assert "nobody answers at" in first.said
    assert first.stored > 0
    tried = 1  # the small request that tries the fields
    assert 0 <= first.answered - tried - first.stored <= CONCURRENCY  # what the server was killed over


def test_a_run_launches_its_server_and_takes_it_along_when_it_is_killed(served):
    [_, second, _], alive = served
    assert "The server answers after" in second.said
    assert alive == []


def test_a_run_that_goes_on_sends_nothing_twice_and_nothing_at_all_once_every_text_is_stored(
    served, experiment, tiny_chat_model
):
    [first, second, last], _ = served
    assert last.status == 0, last.said[-3000:]
    assert "Starting a server" not in last.said
    written = records(experiment / "generations")
    assert len({record["key"] for record in written}) == len(written) == second.stored > first.stored
    assert second.answered - first.answered == second.stored - first.stored
    assert last.answered == second.answered
    assert {record["role"] for record in written} >= ROLES
    assert all(len(record["texts"]) == record["sampling"]["n"] for record in written)
    synthetic = pd.read_parquet(experiment / "runs/served/round-1/synthetic.parquet")
    assert len(synthetic) == BUDGET
    assert set(synthetic["generator"]) == {f"vllm:{tiny_chat_model}"}
