import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from mars_core.reward_model import ModelConfig, RewardModel
from mars_core.vector_store import VectorStore, VectorStoreError

TEXTS = ["Who?", "What is a lark?", "Hi", "Who?"], ["I.", "A small songbird.", "Ho", "I."]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "shared" / "vectors.sqlite"


@pytest.fixture
def load(tiny_decoder, file, monkeypatch):
    """Load a model that uses the store, with a head drawn by a seed; `computed` counts its texts."""

    def loaded(seed=0):
        model = RewardModel.load(str(tiny_decoder), ModelConfig(precision="float32"))
        with torch.no_grad():
            model.scalar_layer.weight.copy_(torch.randn(1, 32, generator=torch.manual_seed(seed)))
        model.keep_features(file)
        model.computed = 0
        batches = model._batches

        def counting(texts, *more):
            model.computed += len(texts)
            return batches(texts, *more)

        monkeypatch.setattr(model, "_batches", counting)
        return model

    return loaded


def alone(model):
    """The rewards of the same model without a store."""
    store, model.store = model.store, None
    rewards = model.score(*TEXTS)
    model.store = store
    return rewards


def test_features_are_computed_once_for_all_heads(load):
    first, second = load(seed=0), load(seed=1)
    rewards = [model.score(*TEXTS) for model in (first, second)]
    assert (first.computed, second.computed) == (3, 0)
    assert not np.allclose(*rewards)
    for model, found in zip((first, second), rewards, strict=True):
        np.testing.assert_allclose(found, alone(model), atol=1e-5)


def test_rewards_are_bit_equal_when_a_call_that_was_cut_off_is_made_again(load, file, monkeypatch):
    windows = [(TEXTS[0][start : start + 2], TEXTS[1][start : start + 2]) for start in (0, 2)]
    undisturbed = [rewards for rewards, _ in load().score_windows(windows)]
    file.unlink()
    next(load().score_windows(windows))
    again = load()
    for found, rewards in zip(again.score_windows(windows), undisturbed, strict=True):
        assert np.array_equal(found[0], rewards)
    assert again.computed == 1


def test_other_weights_find_nothing(load):
    load().score(*TEXTS)
    other = load()
    with torch.no_grad():
        next(other.network.parameters()).mul_(1.01)
    other.keep_features(other.store.file)
    other.score(*TEXTS)
    assert other.computed == 3


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
    assert again.computed == 3


def test_a_damaged_file_is_told_with_what_to_do(file):
    file.parent.mkdir()
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(VectorStoreError, match=r"vectors\.sqlite: file is not a database; remove it"):
        VectorStore(file, b"weights").complete([b"text"], lambda _: pytest.fail("nothing is to be computed"))


def test_a_full_disk_is_told_as_one_and_keeps_what_was_there(file, monkeypatch):
    store = VectorStore(file, b"model")
    store.complete([b"text"], lambda _: np.ones((1, 384), np.float32))
    connect = sqlite3.connect

    def small(*args, **settings):
        database = connect(*args, **settings)
        database.execute("PRAGMA max_page_count = 4")
        return database

    names = [str(number).encode() for number in range(100)]
    with monkeypatch.context() as patch:
        patch.setattr("sqlite3.connect", small)
        with pytest.raises(OSError, match=r"No space left on device: .*vectors\.sqlite"):
            store.complete(names, lambda missing: np.ones((len(missing), 384), np.float32))
    asked = []

    def compute(missing):
        asked.extend(missing)
        return np.ones((len(missing), 384), np.float32)

    store.complete([*names, b"text"], compute)
    assert asked == list(range(100))


def test_processes_that_want_the_same_texts_compute_them_once(file):
    computed = []

    def slowly(missing):
        computed.extend(missing)
        time.sleep(0.2)
        return np.ones((len(missing), 8), np.float32)

    with ThreadPoolExecutor(4) as at_once:
        list(at_once.map(lambda _: VectorStore(file, b"model").complete([b"a", b"b"], slowly), range(4)))
    assert computed == [0, 1]


def test_texts_that_are_there_and_other_models_wait_for_nobody(file):
    def one(missing):
        return np.ones((len(missing), 8), np.float32)

    def meanwhile(missing):
        with ThreadPoolExecutor(2) as others:
            known = others.submit(store.complete, [b"a"], one)
            other = others.submit(VectorStore(file, b"another").complete, [b"b"], one)
            assert known.result(timeout=10).shape == other.result(timeout=10).shape == (1, 8)
        return one(missing)

    store = VectorStore(file, b"model")
    store.complete([b"a"], one)
    store.complete([b"b"], meanwhile)
