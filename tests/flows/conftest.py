"""One small experiment, run to its end in process, which the tests of the flow and of the command look at."""

import copy
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml

# The commands under test run elsewhere, and find the packages whether or not they are installed.
os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])

MARK = "MARS_TEST_COMMAND"
"""Environment variable by which every process of a command is known, whoever its parent is by now."""
PATIENCE_SECONDS = 180
FAREWELL_SECONDS = 10
EXPERIMENT = {
    "name": "tiny",
    "rounds": 2,
    "data": {
        "train": "sample://preferences",
        "subset": 60,
        "validation_share": 0.05,
        "heldout_share": 0.08,
    },
    "model": {"max_length": 64, "precision": "float32"},
    "selection": {"tau": 0.5, "budget": 40},
    "fit": {"learning_rate": 3.0e-3, "batch_pairs": 8},
    "evaluation": {"benchmarks": {"rewardbench": "sample://rewardbench"}},
}
CHATS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
ALIGNMENT = {
    "name": "tiny",
    "reward_model": {"max_length": 64, "precision": "float32"},
    "generation": {"backend": "transformers", "respond": {"max_tokens": 8}},
}


@dataclass
class Experiment:
    """A configuration file in a folder of its own, where its runs, generations and numbers go too."""

    folder: Path
    file: Path

    def start(self, *overrides):
        """Run the flow in this process; what it returns."""
        from flows.refine import refine

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            return refine(str(self.file), list(overrides))

    def run(self, name="tiny"):
        return Run(self.folder / "runs" / name)

    def runs_in_mlflow(self):
        """How many runs of each kind MLflow has, by kind and status."""
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.folder}/mlflow.db")
        found = client.search_runs([client.get_experiment_by_name("mars").experiment_id])
        return Counter((run.data.tags["mars.kind"], run.info.status) for run in found)


@dataclass
class Run:
    """The folder of a run, and its tables."""

    root: Path

    def table(self, uri):
        return pd.read_parquet(self.root / uri)

    def tables(self):
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*.parquet"))

    def weights(self, round):
        return (self.root / f"round-{round}/model/model.safetensors").read_bytes()

    def check_tables_equal(self, other):
        """Fail unless both runs have the same tables, row for row."""
        assert self.tables() == other.tables()
        for uri in self.tables():
            pd.testing.assert_frame_equal(self.table(uri), other.table(uri), check_exact=True, obj=uri)

    def steps(self):
        """Every step's record, and when it was written."""
        records = sorted((self.root / ".steps").glob("*.json"))
        return {path.stem: (path.read_text(), path.stat().st_mtime_ns) for path in records}


@dataclass
class Alignment:
    """align.yaml in a folder of its own, where its runs, generations and numbers go too."""

    folder: Path
    report: object = None

    @property
    def root(self):
        return self.folder / "runs/tiny"

    def start(self, *overrides):
        """Run the flow in this process; what it returns."""
        from flows.align import align

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            return align("align.yaml", overrides)

    def run(self):
        return Run(self.root)

    def table(self, name):
        return pd.read_parquet(self.root / f"{name}.parquet")

    def steps(self):
        """When every step's record was written."""
        return {path.stem: path.stat().st_mtime_ns for path in (self.root / ".steps").glob("*.json")}

    def asked(self):
        """The requests that were bought."""
        lines = [line for file in self.folder.glob("generations/*.jsonl") for line in file.open()]
        return sorted(json.loads(line)["key"] for line in lines)


class Command:
    """`mars ARGUMENTS` in a folder, as a process of its own."""

    def __init__(self, folder, name, *arguments, **environment):
        self.mark = f"{folder}:{name}:{time.monotonic_ns()}"
        self.log = folder / f"{name}.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=folder,
            env=os.environ | {MARK: self.mark} | environment,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )

    def wait_until(self, seen):
        started = time.monotonic()
        while not seen():
            assert self.process.poll() is None, f"ended too early:\n{self.log.read_text()[-3000:]}"
            assert time.monotonic() - started < PATIENCE_SECONDS, "what the kill waits for never came"
            time.sleep(0.002)

    def kill(self):
        """End the command, and it alone, by SIGKILL; the command lines of its processes that live on."""
        self.process.kill()
        self.process.wait()
        killed = time.monotonic()
        while (left := self.processes()) and time.monotonic() - killed < FAREWELL_SECONDS:
            time.sleep(0.1)
        return left

    def ends(self):
        assert self.process.wait(PATIENCE_SECONDS) == 0, self.log.read_text()[-3000:]

    def processes(self):
        """Command lines of its living processes."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found


@pytest.fixture(scope="session")
def start():
    """Start a command with a folder, a name for its log, and arguments; none outlives the tests."""
    commands = []

    def begin(*arguments, **environment):
        commands.append(Command(*arguments, **environment))
        return commands[-1]

    yield begin
    for command in commands:
        command.kill()


@pytest.fixture(scope="session")
def held_up():
    """Let whoever writes an artifact wait for ever: where it writes first is a pipe that nobody reads."""

    @contextmanager
    def hold(place):
        pipe = place.with_name(f".{place.name}.partial")
        pipe.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(pipe)
        yield
        pipe.unlink()

    return hold


@pytest.fixture(scope="session")
def experiment(tmp_path_factory, headless, tiny_embedder, mlflow_store):
    """Write a folder with an experiment that differs from `EXPERIMENT` by some keys of some sections."""

    def write(**changes):
        folder = tmp_path_factory.mktemp("experiment")
        file = folder / "experiment.yaml"
        values = copy.deepcopy(EXPERIMENT)
        values["model"]["backbone"] = str(headless)
        values["semantics"] = {"embedder": str(tiny_embedder)}
        for key, value in changes.items():
            values[key] = values.get(key, {}) | value if isinstance(value, dict) else value
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        shutil.copy(mlflow_store, folder)
        return Experiment(folder, file)

    return write


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory, tiny_chat_model):
    """The tiny chat model with a template of whole chats, which training needs."""
    policy = shutil.copytree(tiny_chat_model, tmp_path_factory.mktemp("policy") / "policy")
    (policy / "chat_template.jinja").write_text(CHATS)
    return policy


@pytest.fixture(scope="session")
def alignment(tmp_path_factory, mlflow_store, tiny_chat_model, tiny_decoder, tiny_chat_decoder):
    """Write a folder with an alignment of some prompts, each with as many samples, and further keys."""

    def write(prompts, samples, **changes):
        folder = tmp_path_factory.mktemp("alignment")
        values = ALIGNMENT | {
            "policy": str(tiny_chat_model),
            "prompts": {"source": "sample://preferences", "number": prompts},
            "samples": samples,
            "rewards": {"models": [str(tiny_decoder)], "gold": str(tiny_chat_decoder)},
        }
        (folder / "align.yaml").write_text(yaml.safe_dump(values | changes))
        shutil.copy(mlflow_store, folder)
        return Alignment(folder)

    return write


@pytest.fixture(scope="session")
def tiny(prefect_server, experiment):
    """`EXPERIMENT`, run with one round first and then with two; what its steps were in between."""
    made = experiment()
    made.start("rounds=1")
    made.steps_of_one_round = made.run().steps()
    made.report = made.start()
    return made
