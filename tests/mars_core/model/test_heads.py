"""Which head a checkpoint's weights hold, whatever its configuration says."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mars_core.errors import ModelError
from mars_core.model.loading import has_trained_head
from mars_core.model.reward_model import ModelConfig, RewardModel

FLOAT32 = ModelConfig(precision="float32")
TEXTS = ["Who?", "What is a lark?", "Hi"], ["I.", "A small songbird.", "Ho ho"]


@pytest.fixture
def changed(tmp_path, tiny_decoder):
    """Copy of the tiny decoder with other settings, and with weights renamed, added or (None) taken out."""

    def copy(weights=None, **settings):
        folder = shutil.copytree(tiny_decoder, tmp_path / "model", dirs_exist_ok=True)
        state = load_file(folder / "model.safetensors") | (weights or {})
        save_file({name: tensor for name, tensor in state.items() if tensor is not None},
                  folder / "model.safetensors", {"format": "pt"})  # fmt: skip
        about = json.loads((folder / "config.json").read_text()) | settings
        (folder / "config.json").write_text(json.dumps(about))
        return str(folder)

    return copy


@pytest.fixture(scope="module")
def score(tiny_decoder):
    return load_file(tiny_decoder / "model.safetensors")["score.weight"]


def rewards_of(folder, weight, bias=0.0):
    """Rewards by the body in plain transformers, one text at a time, and a linear layer on the last state."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    body = transformers.AutoModel.from_pretrained(folder).eval()
    rewards = []
    for prompt, response in zip(*TEXTS, strict=True):
        text = f"Human: {prompt}\n\nAssistant: {response}{tokenizer.eos_token}"
        with torch.no_grad():
            states = body(**tokenizer(text, return_tensors="pt")).last_hidden_state
        rewards.append(float(states[0, -1] @ weight[0]) + bias)
    return np.array(rewards)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"architectures": ["RewardModel"]}, id="an unknown class"),
        pytest.param({"architectures": ["LlamaForCausalLM"]}, id="the language model's class"),
        pytest.param({"id2label": {"0": "a", "1": "b"}}, id="two labels, one row"),
        pytest.param({"architectures": ["RewardModel"], "id2label": {"0": "a", "1": "b"}}, id="both"),
    ],
)
def test_a_trained_head_counts_by_its_weights(settings, changed, score):
    folder = changed(**settings)
    assert has_trained_head(folder, FLOAT32)
    model = RewardModel.load(folder, FLOAT32)
    assert model.drawn == []
    np.testing.assert_allclose(model.score(*TEXTS), rewards_of(folder, score), atol=1e-5)


def test_a_head_counts_in_whichever_file_it_is(tiny_decoder, tmp_path, score):
    network = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_decoder)
    network.config.architectures = ["RewardModel"]
    network.save_pretrained(tmp_path, max_shard_size="50KB")
    settings = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["RewardModel"]}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    transformers.AutoTokenizer.from_pretrained(tiny_decoder).save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert has_trained_head(str(tmp_path), FLOAT32)
    found = RewardModel.load(str(tmp_path), FLOAT32).score(*TEXTS)
    np.testing.assert_allclose(found, rewards_of(tmp_path, score), atol=1e-5)


@pytest.mark.parametrize("layer", ["v_head.summary", "value_head", "regression_head.layer"])
def test_a_head_under_a_name_that_is_not_read_is_refused_before_a_model_is_loaded(layer, changed, score):
    folder = changed({f"{layer}.weight": score, "score.weight": None}, architectures=["LlamaForCausalLM"])
    for load in (has_trained_head, RewardModel.load):
        with pytest.raises(ModelError, match=rf"{layer}\.weight \(1 × 32\).*model\.head={layer};"):
            load(folder, FLOAT32)


@pytest.mark.parametrize("bias", [None, 0.75])
def test_a_head_that_is_mapped_gives_its_rewards_also_once_it_is_saved(bias, changed, score, tmp_path):
    weights = {"v_head.summary.weight": score, "score.weight": None}
    if bias is not None:
        weights["v_head.summary.bias"] = torch.tensor([bias])
    folder = changed(weights, architectures=["LlamaForCausalLM"])
    mapped = FLOAT32.model_copy(update={"head": "v_head.summary"})
    assert has_trained_head(folder, mapped)
    model = RewardModel.load(folder, mapped)
    expected = rewards_of(folder, score, bias or 0.0)
    np.testing.assert_allclose(model.score(*TEXTS), expected, atol=1e-5)
    model.save(tmp_path / "saved")
    for config in (mapped, FLOAT32):
        again = RewardModel.load(str(tmp_path / "saved"), config)
        np.testing.assert_allclose(again.score(*TEXTS), expected, atol=1e-5)


def test_a_head_in_a_file_of_its_own_is_refused_unless_it_is_mapped(changed, score, tmp_path):
    folder = changed({"score.weight": None}, architectures=["LlamaForCausalLM"])
    head = {"v_head.summary.weight": score, "v_head.summary.bias": torch.tensor([0.5])}
    save_file(head, tmp_path / "model/value_head.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.head=v_head\.summary;"):
        has_trained_head(folder, FLOAT32)
    model = RewardModel.load(folder, FLOAT32.model_copy(update={"head": "v_head.summary"}))
    np.testing.assert_allclose(model.score(*TEXTS), rewards_of(folder, score, 0.5), atol=1e-5)


def test_a_mapped_head_that_is_not_there_is_told_with_what_is(changed, score):
    folder = changed({"v_head.summary.weight": score, "score.weight": None})
    with pytest.raises(ModelError, match=r"no weights v_head\.weight.*are v_head\.summary\.weight"):
        has_trained_head(folder, FLOAT32.model_copy(update={"head": "v_head"}))


def test_of_a_head_of_several_layers_one_is_not_enough(changed, score):
    layers = {"score.0.weight": torch.eye(32), "score.2.weight": score.clone(), "score.weight": None}
    folder = changed(layers, architectures=["RewardModel"])
    with pytest.raises(ModelError, match=r"score\.2\.weight \(1 × 32\)"):
        has_trained_head(folder, FLOAT32)
    with pytest.raises(ModelError, match=r"more layers than score\.2.*\(score\.0\.weight\)"):
        has_trained_head(folder, FLOAT32.model_copy(update={"head": "score.2"}))


def test_heads_of_pretraining_are_no_reward_models(tmp_path, tiny_decoder):
    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_decoder)
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    for name in ("Bert", "Electra"):
        about = getattr(transformers, f"{name}Config")(
            vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **settings
        )
        getattr(transformers, f"{name}ForPreTraining")(about).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        assert not has_trained_head(str(tmp_path / name), FLOAT32)
        assert RewardModel.load(str(tmp_path / name), FLOAT32).drawn


def test_a_missing_file_of_weights_is_named_and_nothing_else_is_advised(tiny_decoder, tmp_path):
    network = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_decoder)
    network.save_pretrained(tmp_path, max_shard_size="50KB")
    transformers.AutoTokenizer.from_pretrained(tiny_decoder).save_pretrained(tmp_path)
    lost = sorted(tmp_path.glob("*.safetensors"))[1]
    lost.unlink()
    for load in (has_trained_head, RewardModel.load):
        with pytest.raises(ModelError, match=rf"lacks {lost.name} of the \d files") as found:
            load(str(tmp_path), FLOAT32)
        assert "allow_bin" not in str(found.value)


def test_a_folder_without_weights_gets_no_hint_at_a_bin(tiny_decoder, tmp_path):
    folder = shutil.copytree(tiny_decoder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no file named model\.safetensors") as found:
        RewardModel.load(str(folder), FLOAT32)
    assert "allow_bin" not in str(found.value)
