"""The real `rewardbench` package, whose transformers 4 reads what is saved here: the same rewards.

It needs an environment of its own, that of `make rewardbench`; where there is none, as in continuous
integration, these tests are skipped. `make bad-days` makes it and runs them.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import transformers

from mars_core.data.samples import preferences
from mars_core.fit.trainable import choose_weights, save_checkpoint
from mars_core.model.plain_checkpoint import save_plain
from mars_core.model.reward_model import ModelConfig, RewardModel

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PYTHON = Path(
    os.environ.get("MARS_REWARDBENCH_PYTHON", BENCHMARKS.parents[1] / ".venv-rewardbench/bin/python")
)
pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON.exists(), reason=f"rewardbench is not installed in {PYTHON}"),
]

FLOAT32 = ModelConfig(precision="float32", max_length=512)
POSITIONS = {
    "rope_type": "llama3", "rope_theta": 1e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
"""What transformers 4 would replace by its defaults if it did not find it."""
ROWS = [row for row in preferences() if "\n\n" not in row["prompt"] + row["chosen"] + row["rejected"]][:12]


class Saved(NamedTuple):
    """A checkpoint on disk."""

    folder: Path
    tokenizer: Path
    """Folder of its tokenizer."""
    rewards: np.ndarray
    """[2, n] of chosen and rejected, by this project."""


@pytest.fixture(scope="module")
def saved(tiny_chat_decoder, tmp_path_factory):
    """A model, adapters trained on it, and these merged; by name."""
    folder = tmp_path_factory.mktemp("saved")
    first = RewardModel.load(str(tiny_chat_decoder), FLOAT32)
    first.network.config.rope_parameters = POSITIONS
    torch.manual_seed(0)
    network = transformers.LlamaForSequenceClassification(first.network.config)
    torch.nn.init.normal_(network.score.weight)  # rewards as far apart as those of a trained head
    save_plain(RewardModel(network, first.tokenizer, FLOAT32, first.objective), folder / "whole")

    model = RewardModel.load(str(folder / "whole"), FLOAT32)
    choose_weights(model, "lora", 4)
    for weight in model.network.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.2)
    save_checkpoint(model, folder / "fitted")
    save_plain(RewardModel.load(str(folder / "fitted"), FLOAT32), folder / "merged")
    places = {"whole": folder / "whole", "merged": folder / "merged", "apart": folder / "fitted/adapter"}
    return {
        name: Saved(place, folder / "whole" if name == "apart" else place, rewards(place))
        for name, place in places.items()
    }


def rewards(folder):
    """[2, n]"""
    model = RewardModel.load(str(folder), FLOAT32)
    prompts = [row["prompt"] for row in ROWS]
    return np.stack([model.score(prompts, [row[side] for row in ROWS]) for side in ("chosen", "rejected")])


def as_messages(row):
    asked = {"role": "user", "content": row["prompt"]}
    return {side: [asked, {"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}


@pytest.mark.parametrize("name", ["whole", "merged", "apart"])
def test_the_package_gives_the_same_rewards(name, saved, write, tmp_path):
    found = saved[name]
    settings = {"torch_dtype": "float32", "max_length": 512, "tokenizer": str(found.tokenizer)}
    subprocess.run(
        [
            PYTHON, BENCHMARKS / "rewardbench_package.py", found.folder,
            write(map(as_messages, ROWS), "pairs.jsonl"), tmp_path / "scores.json",
            *(f"{key}={json.dumps(value)}" for key, value in settings.items()),
        ],
        check=True,
    )  # fmt: skip
    scores = json.loads((tmp_path / "scores.json").read_text())
    theirs = np.array([scores["scores_chosen"], scores["scores_rejected"]])
    np.testing.assert_allclose(theirs, found.rewards, rtol=0, atol=1e-4 * found.rewards.std())
