from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset

from mars_core.data.samples import preferences
from mars_core.model.batching import OutOfMemoryError
from mars_core.model.prefix_sharing import can_share_prefixes, pack, rows_by_prompt
from mars_core.model.rendering import Rendering
from mars_core.model.reward_model import ModelConfig, RewardModel, pair_rewards

PAIRS = Dataset.from_list(preferences()[:24]).rename_column("id", "pair_id")
FLOAT32 = ModelConfig(precision="float32")
TEXTS = Rendering(
    [[1, 2, 3], [1, 2, 4, 5], [1, 2], [9, 7]],
    prompt_tokens=[2, 2, 2, 1],
    prompt_cut=[False] * 4,
    response_cut=[False] * 4,
)


@pytest.fixture(scope="module")
def decoder(tiny_decoder):
    return RewardModel.load(str(tiny_decoder), FLOAT32)


@pytest.fixture
def read_tokens(decoder):
    """Tokens, without padding, that went through the decoder's embedding so far."""
    read = []

    def count(_, inputs):
        read.append(int((inputs[0] != decoder.tokenizer.pad_token_id).sum()))

    handle = decoder.network.get_input_embeddings().register_forward_pre_hook(count)
    yield read
    handle.remove()


def apart(model, prompts, responses):
    """Rewards of texts of which each is computed by itself."""
    with torch.inference_mode():
        return np.concatenate(
            [
                model.forward([ids]).outputs.squeeze(-1)
                for ids in model.renderer.render(prompts, responses).ids
            ]
        )


def test_a_shared_prefix_changes_no_margin(decoder):
    margins = pair_rewards(decoder, PAIRS).table["margin"]
    chosen, rejected = (apart(decoder, PAIRS["prompt"], PAIRS[side]) for side in ("chosen", "rejected"))
    np.testing.assert_allclose(margins, chosen - rejected, rtol=0, atol=1e-5)


def test_a_prompt_is_read_once_for_all_its_responses(decoder, read_tokens):
    responses = ["A lark.", "It is a songbird, sir.", "No.", ""]
    rendering = decoder.renderer.render(["What sings?"] * 4, responses)
    prompt = rendering.prompt_tokens[0]
    rewards = decoder.score(["What sings?"] * 4, responses)
    assert sum(read_tokens) == prompt + sum(len(ids) - prompt for ids in rendering.ids)
    np.testing.assert_allclose(rewards, apart(decoder, ["What sings?"] * 4, responses), rtol=0, atol=1e-5)


def test_pairs_cost_their_prompts_once(decoder, read_tokens):
    pair_rewards(decoder, PAIRS)
    chosen, rejected = (
        decoder.renderer.render(PAIRS["prompt"], PAIRS[side]) for side in ("chosen", "rejected")
    )
    assert len(set(PAIRS["prompt"])) == len(PAIRS)
    assert chosen.prompt_tokens == rejected.prompt_tokens
    responses = [
        len(ids) - prompt
        for half in (chosen, rejected)
        for ids, prompt in zip(half.ids, half.prompt_tokens, strict=True)
    ]
    assert sum(read_tokens) == sum(chosen.prompt_tokens) + sum(responses)


@pytest.fixture
def room(decoder, monkeypatch):
    """Let the decoder run out of memory above some padded tokens of a pass."""

    def limit(tokens):
        forward = decoder.network.base_model.forward

        def in_little_memory(input_ids, **inputs):
            if input_ids.numel() > tokens:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
            return forward(input_ids=input_ids, **inputs)

        monkeypatch.setattr(decoder.network.base_model, "forward", in_little_memory)

    return limit


def test_texts_whose_row_does_not_fit_into_memory_are_scored_apart(decoder, room):
    prompts, responses = ["What sings?"] * 3, ["No.", "It is a songbird, sir.", "A lark, I should say."]
    rewards = decoder.score(prompts, responses)
    longest = max(map(len, decoder.renderer.render(prompts, responses).ids))
    room(longest)
    np.testing.assert_allclose(decoder.score(prompts, responses), rewards, rtol=0, atol=1e-5)
    room(longest - 1)
    with pytest.raises(OutOfMemoryError, match=f"a text of {longest} tokens does not fit"):
        decoder.score(prompts, responses)


def test_a_prompt_that_was_cut_for_one_response_is_not_shared(decoder):
    short = RewardModel(decoder.network, decoder.tokenizer, FLOAT32.model_copy(update={"max_length": 48}))
    prompts, responses = ["What is a lark, and why does it sing? " * 3] * 2, ["A bird.", "A small songbird."]
    np.testing.assert_allclose(
        short.score(prompts, responses), apart(short, prompts, responses), rtol=0, atol=1e-5
    )


def test_a_response_without_a_number_for_a_reward_spoils_no_other(tiny_decoder):
    model = RewardModel.load(str(tiny_decoder), FLOAT32)
    mark = model.tokenizer("~", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        model.network.get_input_embeddings().weight[mark] = torch.nan
    assert np.isnan(model.score(["Why?"] * 3, ["a", "~", "b"])).tolist() == [False, True, False]


def test_texts_with_the_same_prompt_tokens_share_a_row_up_to_its_length():
    assert rows_by_prompt(range(4), TEXTS, longest=8) == ([[0, 1, 2], [3]], [5, 2])
    assert rows_by_prompt(range(4), TEXTS, longest=4) == ([[0], [1, 2], [3]], [3, 4, 2])
    assert rows_by_prompt([1, 3], TEXTS, longest=8) == ([[1], [3]], [4, 2])


def test_a_packed_response_sees_its_prompt_and_itself():
    packed = pack([[0, 1, 2], [3]], TEXTS, pad_token_id=0)
    assert packed.inputs["input_ids"].tolist() == [[1, 2, 3, 4, 5], [9, 7, 0, 0, 0]]
    assert packed.inputs["position_ids"][0].tolist() == [0, 1, 2, 2, 3]
    assert packed.inputs["attention_mask"][0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]
    assert packed.ends.tolist() == [[0, 2], [0, 4], [0, 1], [1, 1]]


def of(architecture, **settings):
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=8,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        **settings,
    )
    return getattr(transformers, f"{architecture}ForSequenceClassification")(config)


def test_what_is_no_decoder_with_full_attention_shares_nothing(decoder):
    assert can_share_prefixes(decoder.network)
    assert can_share_prefixes(of("Qwen2", num_key_value_heads=2))
    assert not can_share_prefixes(of("Bert"))
    assert not can_share_prefixes(of("Mistral", num_key_value_heads=2, sliding_window=4))
    assert not can_share_prefixes(of("Gemma2", num_key_value_heads=2, head_dim=4))
    assert not can_share_prefixes(SimpleNamespace(config=decoder.network.config))
