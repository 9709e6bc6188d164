"""Low-rank adapters: rendered by their own tokenizer, merged whole or refused."""

import json
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mars_core.errors import ModelError
from mars_core.model.checkpoints import content_of_checkpoint
from mars_core.model.loading import has_trained_head
from mars_core.model.reward_model import ModelConfig, RewardModel

FLOAT32 = ModelConfig(precision="float32")
TEXTS = ["Who?", "What is a lark?", "Hi"], ["I.", "A small songbird.", "Ho ho"]
ADDED = ["<|question|>", "<|answer|>", "<|done|>"]
TEMPLATE = (
    "{% for m in messages %}{{ '<|question|>' if m.role == 'user' else '<|answer|>' }}"
    "{{ m.content }}<|done|>{% endfor %}"
)


@pytest.fixture
def adapters(tmp_path, headless):
    """Save adapters of the headless tiny decoder, with a head, and a tokenizer where it is another."""

    def save(folder=tmp_path / "adapter", *, template=None, added=(), **settings):
        tokenizer = transformers.AutoTokenizer.from_pretrained(headless)
        network = transformers.AutoModelForSequenceClassification.from_pretrained(headless, num_labels=1)
        tokenizer.add_tokens(list(added), special_tokens=True)
        if added:
            network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        lora = peft.LoraConfig(
            task_type="SEQ_CLS", target_modules=["q_proj", "v_proj"], modules_to_save=["score"]
        )
        adapted = peft.get_peft_model(network, lora)
        torch.manual_seed(1)
        for weight in adapted.parameters():
            if weight.requires_grad:
                torch.nn.init.normal_(weight, std=0.3)
        torch.nn.init.normal_(network.get_input_embeddings().weight[-3:], std=0.5)
        adapted.save_pretrained(folder, **settings)
        if template or added:
            tokenizer.chat_template = template
            tokenizer.save_pretrained(folder)
        return str(folder)

    return save


def plain_rewards(folder, base, tokenizer):
    """By plain transformers and peft, one text at a time, unmerged."""
    network = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    if len(tokenizer) > network.get_input_embeddings().num_embeddings:
        network.resize_token_embeddings(len(tokenizer))
    adapted = peft.PeftModel.from_pretrained(network, folder).eval()
    network.config.pad_token_id = tokenizer.pad_token_id or 0
    rewards = []
    for prompt, response in zip(*TEXTS, strict=True):
        if tokenizer.chat_template:
            messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
            ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        else:
            text = f"Human: {prompt}\n\nAssistant: {response}{tokenizer.eos_token}"
            ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            states = adapted.base_model.model.model(torch.tensor([ids])).last_hidden_state
            rewards.append(adapted.base_model.model.score(states)[0, -1].item())
    return np.array(rewards)


def test_adapters_without_a_tokenizer_are_rendered_by_their_bases(adapters, headless):
    folder = adapters()
    tokenizer = transformers.AutoTokenizer.from_pretrained(headless)
    expected = plain_rewards(folder, headless, tokenizer)
    np.testing.assert_allclose(RewardModel.load(folder, FLOAT32).score(*TEXTS), expected, atol=1e-5)


def test_adapters_are_rendered_by_their_own_chat_template(adapters, headless):
    folder = adapters(template=TEMPLATE)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    expected = plain_rewards(folder, headless, tokenizer)
    np.testing.assert_allclose(RewardModel.load(folder, FLOAT32).score(*TEXTS), expected, atol=1e-5)


def test_adapters_bring_the_embeddings_of_tokens_that_were_added(adapters, headless, tmp_path):
    folder = adapters(template=TEMPLATE, added=ADDED, save_embedding_layers=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    expected = plain_rewards(folder, headless, tokenizer)
    model = RewardModel.load(folder, FLOAT32)
    np.testing.assert_allclose(model.score(*TEXTS), expected, atol=1e-5)
    model.save(tmp_path / "merged")
    again = RewardModel.load(str(tmp_path / "merged"), FLOAT32)
    np.testing.assert_array_equal(again.score(*TEXTS), model.score(*TEXTS))


def test_tokens_whose_embeddings_were_not_saved_are_named(adapters):
    folder = adapters(template=TEMPLATE, added=ADDED, save_embedding_layers=False)
    with pytest.raises(ModelError, match=r"3 tokens more than its base, such as <\|question\|>"):
        RewardModel.load(folder, FLOAT32)


def test_a_pad_token_that_was_added_for_adapters_needs_no_embedding(adapters, headless):
    folder = adapters()
    tokenizer = transformers.AutoTokenizer.from_pretrained(headless)
    tokenizer.add_special_tokens({"pad_token": "<|padding|>"})
    tokenizer.save_pretrained(folder)
    model = RewardModel.load(folder, FLOAT32)
    assert model.tokenizer.pad_token == "<|padding|>"
    np.testing.assert_allclose(model.score(*TEXTS), plain_rewards(folder, headless, tokenizer), atol=1e-5)


def test_adapters_with_a_tokenizer_have_another_key_than_when_it_was_not_read(adapters, monkeypatch):
    bare = adapters()
    before = content_of_checkpoint(bare)
    folder = adapters(template=TEMPLATE)
    assert content_of_checkpoint(folder) != before
    now = content_of_checkpoint(folder)
    monkeypatch.setattr("mars_core.model.checkpoints.OWN_TOKENIZER", 3)
    assert content_of_checkpoint(folder) != now


def moved_base(adapters, base):
    """Adapters of another base, and the file that names it."""
    folder = adapters()
    file = Path(folder, "adapter_config.json")
    settings = json.loads(file.read_text()) | {"base_model_name_or_path": base, "revision": None}
    file.write_text(json.dumps(settings))
    return folder, file


def test_the_base_of_adapters_gets_its_revision_where_adapters_keep_it(adapters):
    folder, file = moved_base(adapters, "team/base")
    for load in (has_trained_head, RewardModel.load):
        with pytest.raises(ModelError, match=r'adapters of team/base.*"revision" there') as found:
            load(folder, FLOAT32)
        assert str(file) in str(found.value)
        assert "team/base@main" not in str(found.value)


def test_a_base_that_has_moved_is_told_with_the_file_that_names_it(adapters):
    folder, _ = moved_base(adapters, "/old/base")
    with pytest.raises(ModelError, match=r'adapters of /old/base.*"base_model_name_or_path" in') as found:
        RewardModel.load(folder, FLOAT32)
    assert "revision" not in str(found.value)


def test_adapters_in_a_bin_are_read_only_where_this_is_allowed(adapters, headless, tmp_path):
    folder = adapters()
    file = tmp_path / "adapter/adapter_model.safetensors"
    torch.save(load_file(file), tmp_path / "adapter/adapter_model.bin")
    file.unlink()
    for load in (has_trained_head, RewardModel.load):
        with pytest.raises(ModelError, match=r"adapters are in adapter_model\.bin.*model\.allow_bin=true"):
            load(folder, FLOAT32)
    allowed = FLOAT32.model_copy(update={"allow_bin": True})
    assert has_trained_head(folder, allowed)
    expected = plain_rewards(folder, headless, transformers.AutoTokenizer.from_pretrained(headless))
    np.testing.assert_allclose(RewardModel.load(folder, allowed).score(*TEXTS), expected, atol=1e-5)


def test_adapters_without_weights_are_incomplete(adapters, tmp_path):
    folder = adapters()
    (tmp_path / "adapter/adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has adapter_config\.json, but no adapter_model\.safetensors"):
        RewardModel.load(folder, FLOAT32)


@pytest.mark.parametrize(
    ("lost", "added", "message"),
    [
        ("q_proj", {}, "its adapters lack"),
        (None, {"base_model.model.v_head.weight": torch.ones(1, 32)}, r"would not be read, such as .*v_head"),
    ],
)
def test_adapters_are_merged_whole_or_not_at_all(lost, added, message, adapters, tmp_path):
    folder = adapters()
    file = tmp_path / "adapter/adapter_model.safetensors"
    weights = {name: weight for name, weight in load_file(file).items() if not lost or lost not in name}
    save_file(weights | added, file, {"format": "pt"})
    with pytest.raises(ModelError, match=message):
        RewardModel.load(folder, FLOAT32)
