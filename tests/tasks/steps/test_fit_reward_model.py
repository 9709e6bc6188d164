"""The fit as a step: in a child process, or in those that `fit.launch` starts."""

import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from mars_core.data.samples import preferences
from mars_core.fit.specification import FitError
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import open_run
from tasks.run.step import Checkpoint
from tasks.steps.fit_reward_model import _trainer, fit_reward_model

pytestmark = pytest.mark.usefixtures("without_prefect")

ACCELERATE = ["accelerate", "launch", "--cpu", "--num_machines", "1", "--num_processes", "1"]
SHORT = [row for row in preferences() if len(row["prompt"] + row["chosen"] + row["rejected"]) < 300]


@pytest.fixture
def fitted(tmp_path, tiny_decoder, monkeypatch):
    """Fit the tiny decoder by some command, as under a PATH without this environment."""
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))

    def fit(launch):
        values = {
            "name": "tiny",
            "folder": str(tmp_path),
            "model": {"max_length": 64, "precision": "float32", "device": "cpu"},
            "fit": {"batch_pairs": 4, "launch": launch},
        }
        with open_run(RunConfig.model_validate(values)) as run:
            table = pd.DataFrame(SHORT[:8]).rename(columns={"id": "pair_id"})
            train = run.write_table("data/train.parquet", table)
            start = Checkpoint(str(tiny_decoder))
            fit_reward_model(run, 0, start, train, [], train)
            return run.metrics_of(0)

    return fit


def test_a_command_that_launches_fits_is_found_beside_python(fitted):
    assert fitted(ACCELERATE)["fit/steps"] == 2


def test_several_processes_fit_together_on_a_cpu_and_what_is_printed_beside_the_figures_is_logged(
    fitted, tmp_path
):
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc_per_node", "2"]
    metrics = fitted(["sh", "-c", 'echo "rank 0: NCCL INFO"; exec "$0" "$@"', *torchrun])
    assert (metrics["fit/processes"], metrics["fit/steps"]) == (2, 2)
    assert "rank 0: NCCL INFO" in (tmp_path / "tiny/round-0/fit.log").read_text()


def test_a_command_that_is_not_there_is_told_in_a_sentence(fitted):
    with pytest.raises(FitError, match=r"no-such-launcher of fit\.launch is neither on the PATH nor beside"):
        fitted(["no-such-launcher"])


@pytest.mark.parametrize(
    ("device", "launch", "expected"),
    [
        ("cpu", [], []),
        ("cuda", [], [sys.executable]),
        ("cpu", ["torchrun", "--standalone"], ["torchrun", "--standalone"]),
    ],
    ids=["cpu", "gpu", "launched"],
)
def test_a_fit_is_forked_on_a_cpu_alone(device, launch, expected):
    values = {"name": "tiny", "model": {"device": device}, "fit": {"launch": launch}}
    _, command = _trainer(RunConfig.model_validate(values))
    assert [Path(part).name for part in command] == [Path(part).name for part in expected]
