import pytest
import torch
import transformers

from mars_core.model.cpu.onednn_linear import OneDnnLinear, can_multiply, with_onednn_linear


@pytest.mark.parametrize(
    ("dtype", "tolerances"), [(torch.float32, (1e-5, 1e-6)), (torch.bfloat16, (2**-7, 1e-2))], ids=str
)
def test_a_layer_computes_what_autocast_computes(dtype, tolerances):
    if not can_multiply(dtype):
        pytest.skip(f"oneDNN does not multiply in {dtype} on this processor")
    rtol, atol = tolerances
    torch.manual_seed(0)
    for layer in (torch.nn.Linear(48, 24), torch.nn.Linear(48, 24, bias=False)):
        states = torch.randn(5, 7, 48)
        with torch.inference_mode(), torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            torch.testing.assert_close(
                OneDnnLinear(layer, dtype)(states), layer(states), rtol=rtol, atol=atol
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_copy_shares_all_weights_but_those_of_its_linear_layers(dtype):
    network = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
        )
    )
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    scorer = with_onednn_linear(network, network.classifier, dtype)
    assert scorer.classifier is not network.classifier
    assert scorer.classifier.weight is network.classifier.weight
    assert scorer.bert.embeddings.word_embeddings.weight is network.bert.embeddings.word_embeddings.weight
    assert scorer.bert.encoder.layer[0].output.dense.weight.dtype == dtype
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.bert.encoder.layer[0].output.dense.weight.dtype == torch.float32


def test_a_copy_computes_what_the_network_computes_and_leaves_it_as_it_was():
    torch.manual_seed(0)
    network = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=9, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
        )
    ).eval()
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    with torch.inference_mode():
        before = network(ids).logits
        scored = with_onednn_linear(network, network.classifier, torch.float32)(ids).logits
        torch.testing.assert_close(scored, before, rtol=0, atol=1e-6)
        assert torch.equal(network(ids).logits, before)
