import json
import os
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from mars_core.data.samples import preferences
from mars_core.fit.gradient import NetworkGradient, PairBatch
from mars_core.fit.specification import FitConfig, FitSpec
from mars_core.fit.train import fit
from mars_core.model.reward_model import ModelConfig, RewardModel
from mars_core.objectives.objective import Noise, ObjectiveConfig

COLUMNS = ["prompt", "chosen", "rejected"]
ROWS = [row for row in preferences() if sum(len(row[name]) for name in COLUMNS) < 300]
OBJECTIVE = ObjectiveConfig(label_smoothing=0.1, centring=0.01)
FLOAT32 = ModelConfig(precision="float32")
FITS = ("replicated", "own_modules", "sharded")
FACTORS = ObjectiveConfig(name="bayesian_nonnegative", factors=16, hidden=8)
"""An objective with modules of its own, and noise."""

ONE_OF_TWO = """
import sys
import accelerate, numpy, torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from mars_core.fit.data_parallel import DataParallel
from mars_core.fit.gradient import NetworkGradient, PairBatch
from mars_core.fit.train import main
from mars_core.model.reward_model import ModelConfig, RewardModel
from mars_core.objectives.objective import Noise, ObjectiveConfig

decoder, folder = sys.argv[1:]
processes = accelerate.Accelerator(cpu=True)
objective = ObjectiveConfig(label_smoothing=0.1, centring=0.01)
model = RewardModel.load(decoder, ModelConfig(precision="float32"), objective)
weights = list(model.network.parameters())
shared = DataParallel(NetworkGradient(model, 1024), weights, processes)
for name in ("five", "one"):
    columns = torch.load(f"{folder}/{name}.pt", weights_only=True)
    batch = PairBatch(**columns, noise=Noise(rows=numpy.arange(len(columns["prompts"]))))
    computed = shared(batch, seed=0)
    gradient = torch.cat([weight.grad.flatten() for weight in weights])
    of_pairs = {name: torch.from_numpy(getattr(computed, name)) for name in ("margins", "losses")}
    seen = {"gradient": gradient, "tokens": computed.tokens} | of_pairs
    torch.save(seen, f"{folder}/{name}-{processes.process_index}.pt")
    model.network.zero_grad()
main(f"{folder}/replicated.json")
main(f"{folder}/own_modules.json")
# accelerate divides weights on accelerators alone, though gloo can on a CPU.
plugin = FullyShardedDataParallelPlugin(
    fsdp_version=2,
    auto_wrap_policy="transformer_based_wrap",
    state_dict_type="FULL_STATE_DICT",
    cpu_ram_efficient_loading=False,
)
processes.state._shared_state |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": plugin}
accelerate.PartialState._shared_state["distributed_type"] = DistributedType.FSDP
main(f"{folder}/sharded.json")
"""


def pair_batch(rows, weights):
    columns = {"prompts": "prompt", "chosen": "chosen", "rejected": "rejected"}
    return {field: [row[name] for row in rows] for field, name in columns.items()} | {
        "weights": torch.tensor(weights),
        "margins": torch.zeros(len(rows)),
        "total_weight": sum(weights),
    }


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, tiny_decoder, headless):
    """Folder with what two processes computed together, and the standard output of both."""
    folder = tmp_path_factory.mktemp("two")
    torch.save(pair_batch(ROWS[:5], [1.0, 0.2, 3.0, 0.7, 1.5]), folder / "five.pt")
    torch.save(pair_batch(ROWS[:1], [2.0]), folder / "one.pt")
    pd.DataFrame(ROWS[:10]).rename(columns={"id": "pair_id"}).to_parquet(folder / "pairs.parquet")
    for name in FITS:
        spec = FitSpec(
            model=str(headless if name == "own_modules" else tiny_decoder),
            pairs=[folder / "pairs.parquet"],
            validation=folder / "pairs.parquet" if name == "sharded" else None,
            output=folder / name,
            log=folder / f"{name}.jsonl",
            seed=3,
            reward_model=FLOAT32,
            fit=FitConfig(
                learning_rate=1e-3,
                batch_pairs=3,
                dropout=0.0,
                patience=2 if name == "sharded" else None,
                objective=FACTORS if name == "own_modules" else ObjectiveConfig(),
            ),
        )
        (folder / f"{name}.json").write_text(spec.model_dump_json())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", ONE_OF_TWO, str(tiny_decoder), str(folder)]
    group = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    children = [
        subprocess.Popen(command, env=group | {"RANK": rank, "LOCAL_RANK": rank}, **pipes) for rank in "01"
    ]
    outputs = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    return folder, [output for output, _ in outputs]


@pytest.mark.parametrize("name", ["five", "one"])
def test_two_processes_compute_the_gradient_of_one(two_processes, tiny_decoder, name):
    folder, _ = two_processes
    model = RewardModel.load(str(tiny_decoder), FLOAT32, OBJECTIVE)
    columns = torch.load(folder / f"{name}.pt", weights_only=True)
    batch = PairBatch(**columns, noise=Noise(rows=np.arange(len(columns["prompts"]))))
    alone = NetworkGradient(model, 1024)(batch, seed=0)
    expected = torch.cat([weight.grad.flatten() for weight in model.network.parameters()])
    for rank in range(2):
        seen = torch.load(folder / f"{name}-{rank}.pt", weights_only=True)
        assert torch.linalg.norm(seen["gradient"] - expected) < 1e-5 * torch.linalg.norm(expected)
        np.testing.assert_allclose(seen["margins"], alone.margins, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(seen["losses"], alone.losses, rtol=1e-5, atol=1e-6)
        assert seen["tokens"] == alone.tokens


@pytest.mark.parametrize("name", FITS)
def test_two_processes_fit_as_one_does(two_processes, tmp_path, name):
    folder, _ = two_processes
    spec = FitSpec.model_validate_json((folder / f"{name}.json").read_text())
    alone = []
    fit(spec.model_copy(update={"output": tmp_path / name}), alone.append)
    together = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    for figure in ("loss", "gradient_norm", "learning_rate"):
        expected = pytest.approx([step[figure] for step in alone], rel=1e-4)
        assert [step[figure] for step in together] == expected
    models = [RewardModel.load(str(place / name), FLOAT32) for place in (folder, tmp_path)]
    scores = [model.score(["What is a lark?"], ["A songbird."])[0] for model in models]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_one_of_two_processes_reports(two_processes):
    folder, outputs = two_processes
    lines = [json.loads(line) for line in outputs[0].splitlines()]
    curves = "".join((folder / f"{name}.jsonl").read_text() for name in FITS)
    assert [line for line in lines if "result" not in line] == [
        json.loads(line) for line in curves.splitlines()
    ]
    assert outputs[1] == ""
