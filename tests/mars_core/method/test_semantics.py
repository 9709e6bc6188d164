import json

import numpy as np
import pytest
import sentence_transformers
import torch
import transformers
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError

from mars_core.data.samples import preferences
from mars_core.errors import ModelError
from mars_core.method.semantics import (
    Embedder,
    SemanticsConfig,
    cosine_distances,
    distance_threshold,
    measure_distances,
)
from mars_core.model.checkpoints import locate

SHORT = [row for row in preferences() if len(row["chosen"]) + len(row["rejected"]) < 200]
PAIRS = Dataset.from_list(SHORT[:20]).rename_column("id", "pair_id")


@pytest.fixture(scope="module")
def embedder():
    return Embedder(SemanticsConfig())


def test_distances_are_those_of_the_plain_embeddings(embedder):
    model = sentence_transformers.SentenceTransformer(locate(SemanticsConfig().embedder).path)
    chosen, rejected = (model.encode(list(PAIRS[part])).astype(np.float64) for part in ("chosen", "rejected"))
    cosines = (chosen * rejected).sum(1) / np.linalg.norm(chosen, axis=1) / np.linalg.norm(rejected, axis=1)
    table = measure_distances(PAIRS, embedder, "mean")
    np.testing.assert_allclose(table["distance"], 1 - cosines, atol=1e-6)
    assert list(table) == ["pair_id", "distance", "threshold", "is_close"]
    assert [str(dtype) for dtype in table.dtypes[1:]] == ["float32", "float32", "bool"]
    assert list(table["pair_id"]) == list(PAIRS["pair_id"])
    assert table["threshold"].iloc[0] == pytest.approx(np.mean(1 - cosines), abs=1e-6)


@given(
    arrays.arrays(np.float32, (2, 5, 8), elements=st.floats(-1, 1, width=16)).filter(
        lambda rows: (np.linalg.norm(rows, axis=2) > 0.1).all()
    )
)
def test_a_distance_is_one_minus_the_cosine(rows):
    a, b = rows / np.linalg.norm(rows, axis=2, keepdims=True)
    distances = cosine_distances(a, b)
    assert distances.dtype == np.float32
    assert ((distances >= 0) & (distances <= 2)).all()
    np.testing.assert_allclose(distances, 1 - (a.astype(np.float64) * b).sum(1), atol=1e-6)
    assert (cosine_distances(a, a) == 0).all()


def test_equal_texts_have_no_distance(embedder):
    vectors = embedder.embed(["A lark sings.", "It rains.", "A lark sings."])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert cosine_distances(vectors[:1], vectors[2:]) == 0
    assert cosine_distances(vectors[:1], vectors[1:2]) > 0.1


def test_distinct_texts_are_embedded_once(embedder, monkeypatch):
    asked, encode = [], embedder._model.encode
    monkeypatch.setattr(
        embedder._model, "encode", lambda texts, **how: (asked.extend(texts), encode(texts, **how))[1]
    )
    vectors = embedder.embed(["b", "a", "b", "b"])
    assert asked == ["b", "a"]
    assert vectors.shape == (4, 384)
    np.testing.assert_array_equal(vectors[0], vectors[3])


def test_no_texts_have_no_embeddings(embedder):
    nothing = embedder.embed([])
    assert cosine_distances(nothing, nothing).shape == (0,)


@pytest.mark.parametrize(
    ("threshold", "expected"), [("mean", 0.4), ("quantile:0.5", 0.3), ("quantile:1", 0.9), ("0.25", 0.25)]
)
def test_a_threshold_is_the_mean_a_quantile_or_a_number(threshold, expected):
    distances = np.array([0.1, 0.2, 0.3, 0.5, 0.9], dtype=np.float32)
    assert distance_threshold(distances, threshold) == pytest.approx(expected)


def test_pairs_strictly_below_the_threshold_are_close(embedder):
    distances = measure_distances(PAIRS, embedder, "mean")["distance"]
    middle = float(np.sort(distances)[10])
    at_a_distance = measure_distances(PAIRS, embedder, str(middle))
    np.testing.assert_array_equal(at_a_distance["is_close"], distances < np.float32(middle))
    assert at_a_distance["is_close"].sum() == 10
    assert not measure_distances(PAIRS, embedder, "quantile:0")["is_close"].any()


def test_windows_change_nothing(embedder, monkeypatch):
    whole = measure_distances(PAIRS, embedder, "mean")
    monkeypatch.setattr("mars_core.method.semantics.WINDOW", 3)
    done = []
    parts = measure_distances(PAIRS, embedder, "mean", done.append)
    np.testing.assert_allclose(parts["distance"], whole["distance"], atol=1e-6)
    assert (parts["is_close"] == whole["is_close"]).all()
    assert done == [3] * 6 + [2]


def test_texts_beyond_the_embedders_limit_are_counted_and_warned_of(caplog):
    embedder = Embedder(SemanticsConfig())
    rows = [{"pair_id": "a", "chosen": "lark " * 300, "rejected": "Larks sing."}]
    measure_distances(Dataset.from_list(rows), embedder, "mean")
    assert embedder.texts_cut == 1
    assert "1 responses are longer than the embedder reads" in caplog.text


@pytest.mark.parametrize("threshold", ["mean", "quantile:0.25", "quantile:.5", "0.4", 0.3, 0, 1e-3, 2])
def test_known_thresholds_are_taken(threshold):
    assert SemanticsConfig(threshold=threshold).threshold == str(threshold)


@pytest.mark.parametrize("threshold", ["median", "quantile:1.5", "quantile:", "-0.1", 2.5, "nan", None, True])
def test_other_thresholds_are_refused(threshold):
    with pytest.raises(ValidationError, match="is mean, quantile:Q with Q between 0 and 1, or a distance"):
        SemanticsConfig(threshold=threshold)


@pytest.mark.parametrize("embedder", ["/no/such/folder", "package://nonsense", "team/embedder@v1"])
def test_an_embedder_that_is_not_there_is_named(embedder):
    with pytest.raises(ModelError, match=embedder):
        Embedder(SemanticsConfig(embedder=embedder)).embed(["A lark."])


def test_an_embedder_without_safetensors_is_refused(tmp_path):
    settings = transformers.BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    (tmp_path / "config.json").write_text(json.dumps(settings.to_dict()))
    torch.save(transformers.BertModel(settings).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no embedder can be read from it: .*model\.safetensors"):
        Embedder(SemanticsConfig(embedder=str(tmp_path))).embed(["A lark."])


def test_a_text_is_embedded_once_for_all_that_share_a_file(embedder, tmp_path, monkeypatch):
    file, texts = tmp_path / "vectors.sqlite", ["A lark sings.", "lark " * 300, "A lark sings."]
    first = Embedder(SemanticsConfig(), file)
    np.testing.assert_array_equal(first.embed(texts), embedder.embed(texts))
    second = Embedder(SemanticsConfig(), file)
    monkeypatch.setattr(Embedder, "_model", property(lambda _: pytest.fail("the model was loaded")))
    np.testing.assert_array_equal(second.embed(texts), first.embed(texts))
    assert second.texts_cut == 1


def test_no_model_is_loaded_where_nothing_is_to_be_embedded():
    assert Embedder(SemanticsConfig(embedder="/no/such/folder")).embed([]).shape == (0, 0)
