import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mars_core.model.vector_store import VectorStore, VectorStoreError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "shared" / "vectors.sqlite"


def test_a_damaged_file_is_told_with_what_to_do(file):
    file.parent.mkdir()
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(VectorStoreError, match=r"vectors\.sqlite: file is not a database; remove the file"):
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


def test_of_several_that_want_the_same_texts_one_computes_them(file):
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
