import accelerate
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mars_core.data.samples import preferences
from mars_core.fit.cached_features import cached_features
from mars_core.fit.specification import FitConfig, FitError, FitSpec
from mars_core.fit.train import _batch, fit
from mars_core.fit.trainable import choose_weights
from mars_core.fit.training_pairs import training_pairs
from mars_core.model.reward_model import ModelConfig, RewardModel
from mars_core.objectives.objective import Noise

FLOAT32 = ModelConfig(precision="float32")
ROWS = [
    {"pair_id": row["id"], "prompt": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"]}
    for row in preferences()
    if len(row["prompt"]) + len(row["chosen"]) < 250
][:6]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two originals, and four synthetic pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    originals, synthetic = pd.DataFrame(ROWS[:2]), pd.DataFrame(ROWS[2:])
    originals.to_parquet(folder / "originals.parquet")
    synthetic.rename(columns={"pair_id": "synthetic_id"}).to_parquet(folder / "synthetic.parquet")
    return folder / "originals.parquet", folder / "synthetic.parquet"


@pytest.fixture(scope="module")
def gradient_of(tiny_decoder, tmp_path_factory):
    """Computes the gradient of a table of pairs as one batch."""
    model = RewardModel.load(str(tiny_decoder), FLOAT32)
    choose_weights(model, "head", 0)
    file = tmp_path_factory.mktemp("features") / "features"
    with cached_features(model, [Dataset.from_list(ROWS)], file, accelerate.Accelerator(cpu=True)) as linear:

        def compute(table):
            linear(_batch(table[:], Noise(rows=np.arange(len(table))), ())[1], seed=0)
            found = model.scalar_layer.weight.grad.clone()
            model.network.zero_grad()
            return found

        yield compute


def fitted(tmp_path, tiny_decoder, pairs, **keys):
    """The metrics of a fit, and those of its steps."""
    spec = FitSpec(
        model=str(tiny_decoder),
        pairs=list(pairs),
        output=tmp_path / "model",
        log=tmp_path / "log.jsonl",
        seed=0,
        reward_model=FLOAT32,
        fit=FitConfig(learning_rate=1e-3, trainable="head", **keys),
    )
    steps = []
    return fit(spec, steps.append), steps


@given(st.integers(1, 3), st.integers(0, 4))
@settings(max_examples=15, deadline=None)
def test_a_synthetic_weight_has_the_gradient_of_as_many_copies(files, gradient_of, originals, copies):
    weighted = training_pairs(list(files), synthetic_weight=copies / originals)
    copied = training_pairs([files[0]] * originals + [files[1]] * copies)
    torch.testing.assert_close(gradient_of(weighted), gradient_of(copied), rtol=1e-4, atol=1e-7)


def test_a_synthetic_weight_is_multiplied_by_the_weight_of_a_row(files, tmp_path):
    heavy = pd.read_parquet(files[1]).assign(weight=[1.0, 2.0, 3.0, 4.0])
    heavy.to_parquet(tmp_path / "heavy.parquet")
    table = training_pairs([files[0], tmp_path / "heavy.parquet"], synthetic_weight=0.5)
    assert table["weight"][:] == [1, 1, 0.5, 1, 1.5, 2]


def test_a_batch_of_synthetic_pairs_without_weight_is_a_step_without_gradient(files, tmp_path, tiny_decoder):
    result, steps = fitted(tmp_path, tiny_decoder, files, batch_pairs=1, synthetic_weight=0)
    assert sorted(step["gradient_norm"] == 0 for step in steps) == [False] * 2 + [True] * 4
    counted = [step["loss"] for step in steps if step["gradient_norm"]]
    assert result["loss"] == pytest.approx(np.mean(counted))


def test_pairs_of_no_weight_alone_and_a_negative_weight_are_refused(files, tmp_path, tiny_decoder):
    with pytest.raises(FitError, match=r"no pairs to fit to in .*synthetic\.parquet"):
        fitted(tmp_path, tiny_decoder, files[1:], synthetic_weight=0)
    with pytest.raises(ValidationError, match="synthetic_weight"):
        FitConfig(synthetic_weight=-0.1)


def test_a_synthetic_weight_shapes_the_fit(files, tmp_path, tiny_decoder):
    losses = [
        fitted(tmp_path, tiny_decoder, files, synthetic_weight=weight)[1][0]["loss"] for weight in (1, 0.1)
    ]
    assert losses[0] != losses[1]
