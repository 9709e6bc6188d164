"""A server that a run launches, with a small stand-in for vLLM as a real process."""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from mars_core.generation import GenerationConfig, GenerationError, Request
from tasks.processes.open_generator import open_generator
from tasks.run.vllm_command import ForCpu

STAND_IN = """
import argparse, http.server, json, os, subprocess, sys, time
arguments = argparse.ArgumentParser()
for name in ("--model", "--host", "--port", "--die"):
    arguments.add_argument(name)
arguments, _ = arguments.parse_known_args()
open("started", "w").write(json.dumps([sys.argv[1:], dict(os.environ)]))
if arguments.die:
    sys.exit("no memory left for the weights")
child = subprocess.Popen(["sleep", "1000"])
open("pids", "a").write(f"{child.pid} ")
time.sleep(0.3)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.reply({"data": [{"id": arguments.model}]})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != "Bearer " + os.environ["VLLM_API_KEY"]:
            self.send_error(401)
            return
        choice = {"message": {"content": "Larks sing."}, "finish_reason": "stop"}
        self.reply({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})
    def reply(self, content):
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
http.server.ThreadingHTTPServer((arguments.host, int(arguments.port)), Handler).serve_forever()
"""
REQUESTS = [
    Request("paraphrase_chosen", "What is a lark?", f"Lark {n} sings.", "A fish.", 1) for n in range(3)
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose configuration launches the stand-in; further keys of `launch` by name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    (tmp_path / "serve.py").write_text(STAND_IN)

    def made(offline=False, **launch):
        launch = {"command": f"{sys.executable} serve.py"} | launch
        config = GenerationConfig.model_validate(
            {"backend": "vllm", "model": "m", "launch": launch, "store": "store", "offline": offline}
        )
        return SimpleNamespace(config=SimpleNamespace(generation=config), path=lambda uri: tmp_path / uri)

    return made


OF_CPU = {"CACHE": "2"}


def started(run, text="A lark."):
    """The arguments and the environment with which the stand-in of a run is started."""
    with open_generator(run) as generator:
        generator.generate([replace(REQUESTS[0], chosen=text)])
    return json.loads(Path("started").read_text())


def pids():
    return [int(pid) for pid in Path("pids").read_text().split()] if Path("pids").exists() else []


def gone(pid):
    for _ in range(200):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_a_launched_server_starts_with_the_first_request_and_ends_with_the_block(run):
    with open_generator(run()) as generator:
        assert pids() == []
        first, second = generator.afresh(), generator.afresh()
        answers = first.generate(REQUESTS)
        assert first.counts.metrics("rewriting")["rewriting/completion_tokens"] == 9
        second.generate([Request("rewrite_chosen", "p", "c", "r", 1)])
        assert second.counts.metrics("augmentation")["augmentation/sent"] == 1
        (child,) = pids()
        assert psutil.pid_exists(child)
    assert gone(child)
    with open_generator(run()) as generator:
        assert generator.generate(REQUESTS) == answers
    assert pids() == [child], "a server was started for answers that are in the store"


@pytest.mark.parametrize("gpu", [False, True])
def test_a_launched_server_gets_what_a_cpu_needs_where_there_is_no_gpu(run, monkeypatch, gpu):
    monkeypatch.setattr("tasks.processes.vllm_server.has_gpu", lambda: gpu)
    monkeypatch.setattr("tasks.processes.vllm_server.for_cpu", lambda: ForCpu(OF_CPU, ["--enforce-eager"]))
    arguments, environment = started(run())
    assert ("--enforce-eager" in arguments, environment.get("CACHE") == "2") == (not gpu, not gpu)


def test_arguments_of_the_configuration_come_after_those_for_a_cpu_and_so_count(run, monkeypatch):
    monkeypatch.setattr("tasks.processes.vllm_server.has_gpu", lambda: False)
    monkeypatch.setattr("tasks.processes.vllm_server.for_cpu", lambda: ForCpu({}, ["--dtype", "float32"]))
    arguments, _ = started(run(arguments="--dtype bfloat16"))
    assert arguments[-4:] == ["--dtype", "float32", "--dtype", "bfloat16"]


def test_what_the_environment_says_counts_before_what_a_cpu_needs(run, monkeypatch):
    monkeypatch.setattr("tasks.processes.vllm_server.has_gpu", lambda: False)
    monkeypatch.setattr("tasks.processes.vllm_server.for_cpu", lambda: ForCpu(OF_CPU, []))
    monkeypatch.setenv("CACHE", "9")
    assert started(run())[1]["CACHE"] == "9"


def test_every_launched_server_asks_for_a_key_of_its_own(run, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "of another server")
    keys = {started(run(), text)[1]["VLLM_API_KEY"] for text in ("One lark.", "Two larks.")}
    assert len(keys - {"of another server"}) == 2


def test_answers_of_a_model_whose_folder_has_changed_are_not_the_new_models(run, tmp_path):
    (tmp_path / "m").mkdir()
    for weights in ("old", "old", "new"):
        (tmp_path / "m/model.safetensors").write_text(weights)
        with open_generator(run()) as generator:
            generator.generate(REQUESTS)
    assert len(pids()) == 2


def test_a_launched_server_finds_the_memory_free_that_earlier_steps_freed(run, monkeypatch):
    pids_when_cleared = []
    monkeypatch.setattr(
        "tasks.processes.launched_backend.clear_device_cache", lambda **_: pids_when_cleared.append(pids())
    )
    with open_generator(run()) as generator:
        generator.generate(REQUESTS)
    assert pids_when_cleared == [[]]


def test_a_launched_server_ends_when_the_block_is_interrupted(run):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_generator(run()) as generator:
        generator.generate(REQUESTS, interrupt)
    assert gone(pids()[0])


def test_a_server_that_dies_at_its_start_is_an_error_with_its_last_words(run):
    with (
        open_generator(run(arguments="--die now")) as generator,
        pytest.raises(GenerationError, match=r"ended before it answered.*vllm\.log:\nno memory left"),
    ):
        generator.generate(REQUESTS)


def test_a_server_that_dies_at_work_ends_the_step_soon_and_keeps_what_it_answered(run):
    many = [replace(REQUESTS[0], chosen=f"Lark {n} sings.") for n in range(2000)]
    killed = []

    def kill():
        if not killed:  # answers still come when it is dead
            killed.append(psutil.Process(pids()[0]).parent())
            killed[0].kill()

    started = time.monotonic()
    with (
        open_generator(run()) as generator,
        pytest.raises(GenerationError, match=r"nobody answers at .* any more.*Its last words"),
    ):
        generator.generate(many, kill)
    assert time.monotonic() - started < 30
    assert 0 < len(generator.store) < len(many)


def test_a_server_that_takes_too_long_is_an_error_that_names_the_deadline(run):
    with (
        open_generator(run(start_seconds=0.1)) as generator,
        pytest.raises(GenerationError, match=r"not answer within 0\.1 s .*start_seconds"),
    ):
        generator.generate(REQUESTS)


def test_a_command_that_is_not_there_is_an_error_that_says_how_to_get_it(run):
    with (
        open_generator(run(command="no/such/python -m vllm")) as generator,
        pytest.raises(GenerationError, match=r"no/such/python .*`make vllm`"),
    ):
        generator.generate(REQUESTS)


def test_offline_no_server_is_started(run):
    with open_generator(run(offline=True)) as generator, pytest.raises(GenerationError, match="offline"):
        generator.generate(REQUESTS)
    assert pids() == []
