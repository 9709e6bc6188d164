import numpy as np
import pytest
import torch

from mars_core.model.reward_model import ModelConfig, RewardModel

TEXTS = ["Who?", "What is a lark?", "Hi", "Who?"], ["I.", "A small songbird.", "Ho", "I."]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "shared" / "vectors.sqlite"


@pytest.fixture
def load(tiny_decoder, file, monkeypatch):
    """Load a model that uses the store, with a head drawn by a seed."""
    batches = RewardModel._batches

    def counting(model, texts, *more):
        model.counted.append(len(texts))
        return batches(model, texts, *more)

    monkeypatch.setattr(RewardModel, "_batches", counting)

    def loaded(seed=0, **settings):
        model = RewardModel.load(str(tiny_decoder), ModelConfig(precision="float32", **settings))
        with torch.no_grad():
            model.scalar_layer.weight.copy_(torch.randn(1, 32, generator=torch.manual_seed(seed)))
        model.keep_features(file)
        model.counted = []
        return model

    return loaded


def computed(model):
    """How many texts went through the network."""
    return sum(model.counted)


def alone(model):
    """The rewards of the same model without a store."""
    store, model.store = model.store, None
    rewards = model.score(*TEXTS)
    model.store = store
    return rewards


def test_features_are_computed_once_for_all_heads(load):
    first, second = load(seed=0), load(seed=1)
    rewards = [model.score(*TEXTS) for model in (first, second)]
    assert (computed(first), computed(second)) == (3, 0)
    assert not np.allclose(*rewards)
    for model, found in zip((first, second), rewards, strict=True):
        np.testing.assert_allclose(found, alone(model), atol=1e-5)


def test_rewards_are_bit_equal_when_a_call_that_was_cut_off_is_made_again(load, file, monkeypatch):
    windows = [(TEXTS[0][start : start + 2], TEXTS[1][start : start + 2]) for start in (0, 2)]
    undisturbed = [window.readouts for window in load().score_windows(windows)]
    file.unlink()
    next(load().score_windows(windows))
    again = load()
    for found, rewards in zip(again.score_windows(windows), undisturbed, strict=True):
        assert np.array_equal(found.readouts, rewards)
    assert computed(again) == 1


def test_other_weights_find_nothing(load):
    load().score(*TEXTS)
    other = load()
    with torch.no_grad():
        next(other.network.parameters()).mul_(1.01)
    other.keep_features(other.store.file)
    other.score(*TEXTS)
    assert computed(other) == 3


@pytest.mark.parametrize(("setting", "computed_again"), [("rms_norm_eps", 3), ("attention_dropout", 0)])
def test_other_settings_find_nothing_where_features_depend_on_them(load, setting, computed_again):
    load().score(*TEXTS)
    other = load()
    setattr(other.network.config, setting, 0.2)
    other.keep_features(other.store.file)
    other.score(*TEXTS)
    assert computed(other) == computed_again


def test_progress_counts_what_was_found_too(load):
    for _ in range(2):
        told = []
        load().score(*TEXTS, told.append)
        assert sum(told) == 4


def test_of_a_call_that_fails_nothing_is_kept(load, monkeypatch):
    model = load()
    monkeypatch.setattr(model, "_batches", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        model.score(*TEXTS)
    again = load()
    again.score(*TEXTS)
    assert computed(again) == 3


def test_a_text_that_is_new_is_tokenised_once(load, monkeypatch):
    model = load()
    tokenise, tokenised = model.renderer._tokenise, []
    monkeypatch.setattr(
        model.renderer, "_tokenise", lambda texts: (tokenised.extend(texts), tokenise(texts))[1]
    )
    model.score(*TEXTS)
    assert len(tokenised) == 3


def test_a_text_that_is_known_is_not_tokenised_again(load, monkeypatch):
    first, second = load(), load()
    rewards = first.score(*TEXTS)
    monkeypatch.setattr(second.renderer, "tokenizer", None)
    assert np.array_equal(second.score(*TEXTS), rewards)


def test_texts_that_were_cut_are_counted_whether_they_were_known_or_not(load):
    for known in (False, True):
        model = load(max_length=12)
        [window] = model.score_windows([TEXTS])
        assert (window.prompts_cut, window.responses_cut) == (4, 0)
        assert (computed(model) == 0) == known


def test_another_limit_of_tokens_finds_nothing(load):
    load(max_length=12).score(*TEXTS)
    longer = load()
    [window] = longer.score_windows([TEXTS])
    assert computed(longer) == 3
    assert window.prompts_cut == 0


def test_texts_with_the_same_tokens_have_the_same_features_whenever_they_come(load):
    load().score(["Hi"], ["Ho"])
    again = load()
    rewards = again.score(["Hi", "Hi "], [" Ho\n", "Ho"])
    assert rewards[0] == rewards[1]
    assert computed(again) == 0
