"""What training did to a policy, paired by prompt."""

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from mars_core.alignment.policy import divergences, policy_tokenizer, prompt_tokens, response_tokens
from mars_core.alignment.policy_changes import (
    Trained,
    best_by_gold,
    by_prompt,
    changes,
    gold_fell,
    measured,
    repetition,
)
from mars_core.report.training_section import sentence


def test_repetition_is_the_share_of_n_grams_that_were_there_before():
    assert repetition("a b c d e f g") == 0
    assert repetition("a b c") == 0
    assert repetition("a b a b a b a b") == pytest.approx(3 / 5)  # 2 distinct of 5
    assert repetition("x x x x x x", n=2) == pytest.approx(4 / 5)


def evaluated(gold, reward=lambda draw: draw, kl=0.3, prompts=80):
    draw = np.random.default_rng(1).normal(size=prompts)
    before = pd.DataFrame({"prompt_id": range(prompts), "reward": 0.0, "gold": 0.0, "characters": 10.0})
    noise = np.random.default_rng(2).normal(size=prompts)
    after = before.assign(reward=reward(draw), gold=gold(noise), characters=12.0)
    return by_prompt(before, after, [kl] * prompts)


def test_changes_are_paired_by_prompt_and_prompts_without_a_partner_are_left_out():
    before = pd.DataFrame({"prompt_id": ["a", "a", "b", "c"], "reward": [1.0, 3.0, 5.0, 9.0]})
    after = pd.DataFrame({"prompt_id": ["b", "a", "a"], "reward": [6.0, 4.0, 6.0]})
    table = by_prompt(before, after, [0.5, 1.0, 2.0])
    found = changes(table)
    assert found["reward"].value == pytest.approx(np.mean([6 - 5, 5 - 2]))
    assert found["kl"].value == pytest.approx(np.mean([0.5, 1.5]))


def test_the_win_rate_is_over_all_pairs_of_a_prompts_responses_with_ties_half():
    before = pd.DataFrame({"prompt_id": ["a", "a", "b"], "gold": [0.0, 1.0, 5.0]})
    after = pd.DataFrame({"prompt_id": ["b", "a", "a"], "gold": [4.0, 1.0, 2.0]})
    table = by_prompt(before, after, [0.0] * 3)
    assert dict(zip(table["prompt_id"], table["win_rate"], strict=True)) == {"b": 0, "a": 3.5 / 4}
    assert changes(table)["win_rate"].value == pytest.approx(3.5 / 8)


def test_lengths_and_cut_off_responses_are_measured():
    responses = pd.DataFrame(
        {
            "prompt_id": ["a", "a"],
            "sample": [0, 1],
            "response": ["four", "sixsix"],
            "is_cut_off": [True, False],
        }
    )
    table = measured(
        responses, pd.DataFrame({"prompt_id": ["a"] * 2, "sample": [1, 0], "reward": [2.0, 1.0]})
    )
    assert table["characters"].tolist() == [4, 6]
    assert table["cut_off"].tolist() == [1, 0]
    assert table["reward"].tolist() == [1, 2]
    assert "gold" not in table


def test_gold_fell_only_where_it_is_shown_to_be_lower_than_the_highest_before():
    high, low = evaluated(lambda noise: 1 + noise), evaluated(lambda noise: 0.2 - noise)
    assert gold_fell([high, low])
    assert not gold_fell([low, high])
    assert not gold_fell([evaluated(lambda noise: noise - noise.mean())])
    assert gold_fell([evaluated(lambda noise: -1 + noise)])  # below the untrained policy's


def test_the_best_evaluation_by_gold_may_be_the_untrained_policy():
    high, low = evaluated(lambda noise: 1 + noise), evaluated(lambda noise: 0.2 - noise)
    assert best_by_gold({5: low, 10: high, 15: low}) == 10
    assert best_by_gold({5: evaluated(lambda noise: noise - 1)}) is None


@pytest.mark.parametrize(
    ("gold", "reward", "said"),
    [
        (lambda noise: 1 + noise, lambda draw: 1 + draw, ": gold agrees with the reward model"),
        (lambda noise: noise - 1, lambda draw: 1 + draw, "the reward model is over-optimised"),
        (
            lambda noise: noise - noise.mean(),
            lambda draw: 1 + draw,
            "nothing shows that gold agrees with the reward model",
        ),
        (lambda noise: 1 + noise, lambda draw: draw - draw.mean(), "the untrained policy's within noise"),
    ],
)
def test_the_sentence_calls_nothing_within_noise_a_rise(gold, reward, said):
    assert said in sentence(Trained("dpo", {20: evaluated(gold, reward)}, 20, None, False))


def test_the_sentence_tells_why_training_ended():
    table = evaluated(lambda noise: 1 + noise)
    broken = sentence(Trained("dpo", {7: table}, 7, 9, False))
    assert (
        "the gradient of step 9 is NaN or infinite, and the last good state is that after 7 steps" in broken
    )
    stopped = sentence(Trained("dpo", {5: table, 10: table}, 5, None, True))
    assert "ended after 10 steps, because gold is shown to have fallen" in stopped
    assert "After 5 steps" in stopped


def test_the_divergence_is_that_of_the_next_tokens_in_double_precision(tiny_chat_model, tmp_path):
    network = transformers.AutoModelForCausalLM.from_pretrained(tiny_chat_model)
    with torch.no_grad():
        network.model.norm.weight += 0.5
    network.save_pretrained(tmp_path)
    tokenizer = policy_tokenizer(str(tiny_chat_model))
    tokenizer.save_pretrained(tmp_path)
    prompts = [prompt_tokens(tokenizer, text) for text in ("What is a lark?", "Name a river, please.")]
    written = (("A bird.", False), ("It", True))
    responses = [response_tokens(tokenizer, text, is_cut_off=is_cut_off) for text, is_cut_off in written]
    assert [ids[-1] == tokenizer.eos_token_id for ids in responses] == [True, False]
    found = divergences(str(tmp_path), str(tiny_chat_model), prompts, responses, "cpu")
    policies = [
        transformers.AutoModelForCausalLM.from_pretrained(one).double() for one in (tmp_path, tiny_chat_model)
    ]
    for prompt, response, total in zip(prompts, responses, found, strict=True):
        with torch.no_grad():
            p, q = (one(torch.tensor([prompt + response])).logits[0].softmax(-1) for one in policies)
        before = slice(len(prompt) - 1, len(prompt) + len(response) - 1)
        assert total == pytest.approx(float((p * (p / q).log())[before].sum()), rel=1e-4)
    same = divergences(str(tiny_chat_model), str(tiny_chat_model), prompts, responses, "cpu")
    assert same == pytest.approx([0, 0], abs=1e-6)
