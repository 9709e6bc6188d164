"""Work in parts, without a cluster: this process does what an actor does."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mars_core.config import scientific
from mars_core.data.samples import preferences
from mars_core.method.semantics import Embedder, EmbedSpec, SemanticsConfig
from mars_core.model.moments import Moments
from mars_core.model.reward_model import ModelConfig
from mars_core.model.scoring import ScoreSpec, TextsSpec, rows_of, score
from mars_core.tables import Table
from tasks.cluster import nodes
from tasks.cluster.nodes import ComputeError
from tasks.cluster.parts import Rows, Scoring
from tasks.compute import ray as backend
from tasks.compute.compute import ComputeConfig
from tasks.run.run_config import RunConfig

SIZE = 5


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Files of pairs and of texts; one pair has two responses that are the same tokens."""
    folder = tmp_path_factory.mktemp("rows")
    rows = [
        {"pair_id": pair["id"], **{name: pair[name][-80:] for name in ("prompt", "chosen", "rejected")}}
        for pair in preferences()[:12]
    ]
    rows[7]["rejected"] = rows[7]["chosen"]
    pairs = pd.DataFrame(rows)
    pairs.to_parquet(folder / "train.parquet")
    pairs[:4].to_parquet(folder / "heldout.parquet")
    texts = pd.DataFrame(
        {"prompt": pairs["prompt"].tolist() * 2, "response": [*pairs["chosen"], *pairs["rejected"]]}
    )
    texts.to_parquet(folder / "texts.parquet")
    return folder


@pytest.fixture
def spec(tables, tiny_decoder, tmp_path):
    """What scores pairs of two tables, paired texts and single ones, with all that may be asked for."""
    return ScoreSpec(
        model=str(tiny_decoder),
        reward_model=ModelConfig(max_length=64, precision="float32"),
        pairs={"train": tables / "train.parquet", "heldout": tables / "heldout.parquet"},
        texts={
            "changed": TextsSpec(file=tables / "texts.parquet", paired=True),
            "benchmark": TextsSpec(file=tables / "texts.parquet"),
        },
        moments=True,
        features=True,
        output=tmp_path / "scores",
    )


class HereInstead:
    """A pool whose only actor is this process; it may be killed before a part."""

    def __init__(self):
        self.worker = backend._Worker(1)
        self.done = []
        self.killed_before = None

    def check(self, folder):
        pass

    def compute(self, work, parts, seconds, on_done):
        for rows in parts:
            if len(self.done) == self.killed_before:
                raise KeyboardInterrupt
            place = work.folder / f"{rows.first}-{rows.end}-{len(self.done)}"
            part = work.of_rows(rows, place, 1.0)
            self.worker.compute(
                type(part).__name__, part.model_dump_json(), str(work.content()[0]), tuple(rows), str(place)
            )
            self.done.append(rows)
            on_done(rows)


@pytest.fixture
def pool(monkeypatch):
    """The pool of the backend."""
    here = HereInstead()
    monkeypatch.setattr(backend, "_pool_of", lambda *_: here)
    return here


def opened(**keys):
    return ComputeConfig.model_validate({"backend": "ray", "rows_of_part": SIZE, **keys}).open()


def same(one, other):
    """Whether two folders of results are equal to 1e-5, signs included."""
    files = sorted(file.name for file in one.iterdir())
    assert files == sorted(file.name for file in other.iterdir())
    for name in files:
        if name.endswith(".parquet"):
            a, b = (Table(folder / name).read().to_pandas() for folder in (one, other))
            assert a["pair_id"].tolist() == b["pair_id"].tolist()
            for column in a.columns[1:]:
                np.testing.assert_allclose(a[column], b[column], atol=1e-5)
            assert (np.sign(a["margin"]) == np.sign(b["margin"])).all()
        elif name.endswith("_moments.npz"):
            a, b = (vars(Moments.load(folder / name)) for folder in (one, other))
            for key in a:
                np.testing.assert_allclose(a[key], b[key], rtol=1e-4, atol=1e-4)
        elif name.endswith(".npz"):
            with np.load(one / name) as a, np.load(other / name) as b:
                assert set(a) == set(b)
                for key in a:
                    np.testing.assert_allclose(a[key], b[key], atol=1e-5)
        elif name.endswith(".npy"):
            np.testing.assert_allclose(np.load(one / name), np.load(other / name), atol=1e-5)
        else:
            assert json.loads((one / name).read_text()) == json.loads((other / name).read_text())
    return True


def test_parts_put_together_are_what_the_whole_is(spec, pool, tmp_path):
    texts = []
    opened().run(spec, texts.append)
    whole = spec.model_copy(update={"output": tmp_path / "whole"})
    score(whole)
    assert same(spec.output, whole.output)
    assert len(pool.done) > 2
    assert sum(texts) == 2 * 12 + 2 * 4 + 24 + 24


def test_a_part_that_is_there_is_not_computed_again_by_the_next_driver(spec, pool):
    pool.killed_before = 2
    with pytest.raises(KeyboardInterrupt):
        opened().run(spec, lambda more: None)
    pool.killed_before = None
    opened(rows_of_part=3).run(spec, lambda more: None)  # parts of another size fill the gaps
    rows = [row for part in pool.done for row in range(*part)]
    assert sorted(rows) == list(range(sum(rows_of(spec).values())))


def test_results_that_a_killed_run_did_not_record_are_not_computed_again(spec, pool):
    for _ in range(2):
        opened().run(spec, lambda more: None)
    assert len(pool.done) == len(set(pool.done))


@pytest.mark.parametrize("what", ["changed", "removed"])
def test_a_part_that_is_not_what_was_written_is_computed_again(spec, pool, what):
    opened().run(spec, lambda more: None)
    [part] = [file for file in spec.output.with_name("scores.parts").glob("*/0-5-*") if file.is_dir()]
    if what == "changed":
        (part / "scores" / "train_features.npy").write_bytes(b"")
    else:
        (part / "scores" / "cut.json").unlink()
    opened().run(spec, lambda more: None)
    assert pool.done.count(Rows(0, 5)) == 2
    assert len(pool.done) == len(set(pool.done)) + 1


def test_parts_of_another_model_are_not_taken(spec, pool, headless, tmp_path):
    opened().run(spec, lambda more: None)
    first = len(pool.done)
    other = spec.model_copy(update={"model": str(headless)})
    opened().run(other, lambda more: None)
    assert len(pool.done) == 2 * first


def test_features_are_computed_once_for_all_rounds_and_kept_where_a_fit_looks(spec, pool, tmp_path):
    kept = spec.model_copy(update={"vectors": tmp_path / "vectors.sqlite"})
    opened().run(kept, lambda more: None)
    whole = spec.model_copy(update={"output": tmp_path / "whole"})
    score(whole)
    assert same(kept.output, whole.output)
    first = len(pool.done)
    opened().run(kept.model_copy(update={"moments": False, "features": False}), lambda more: None)
    assert len(pool.done) == first


def test_embeddings_that_were_computed_ahead_are_found(tables, pool, tmp_path, monkeypatch):
    semantics, file = SemanticsConfig(), tmp_path / "vectors.sqlite"
    spec = EmbedSpec(semantics=semantics, pairs=tables / "train.parquet", vectors=file)
    done = []
    opened().embed(spec, done.append)
    assert sum(done) == 12
    pairs = Table(spec.pairs).read().to_pandas()
    texts = [*pairs["chosen"], *pairs["rejected"]]
    found = Embedder(semantics, file)
    monkeypatch.setattr(found, "_computed", None)
    np.testing.assert_allclose(found.embed(texts), Embedder(semantics).embed(texts), atol=1e-5)
    first = len(pool.done)
    opened().embed(spec, done.append)
    assert len(pool.done) == first


# What goes wrong with a part


def tried(part, bad):
    """The parts that are tried where an actor fails with each that has the row `bad`; the last one raises."""
    names = [f"pair {row}" for row in range(part.rows.end)]
    waiting = [part]
    while waiting:
        now = waiting.pop()
        if now.rows.first <= bad < now.rows.end:
            yield now
            waiting += now.again(lambda rows: names[rows.first], "it is bad")


def test_a_bad_row_is_found_among_4096_and_named():
    parts = []
    with pytest.raises(ComputeError, match="pair 1234 cannot be computed: it is bad"):
        parts.extend(tried(backend._Part(Rows(0, 4096)), 1234))
    assert len(parts) == 2 + 11 + 2


def test_an_actor_that_dies_costs_its_part_one_more_try():
    part = backend._Part(Rows(0, 8))
    assert part.again(str, "dead") == [backend._Part(Rows(0, 8), tries=1)]


def test_a_part_that_ends_two_actors_goes_on_in_halves_with_half_the_batch():
    [again] = backend._Part(Rows(0, 8)).again(str, "dead")
    halves = again.again(str, "dead")
    assert [half.rows for half in halves] == [Rows(0, 4), Rows(4, 8)]
    assert {half.batch_share for half in halves} == {0.5}


def test_a_smaller_batch_is_in_the_specification_of_a_part(spec):
    work = Scoring(spec, rows_of(spec), spec.output)
    part = work.of_rows(Rows(0, 2), Path("place"), 0.25)
    assert part.reward_model.batch_tokens == spec.reward_model.batch_tokens // 4


# Without the package, and without a cluster


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    backend._pool_of.cache_clear()
    with pytest.raises(ComputeError, match=r'pip install "mars\[ray\]"'):
        opened().check(tmp_path)


def test_a_node_with_another_version_is_told_what_differs():
    here = {"torch": "2.13.0", "sources of mars": "aa"}
    said = nodes.differences({"torch": "2.12.0", "sources of mars": "aa"}, here)
    assert "torch 2.12.0 (here 2.13.0)" in said
    assert "sources" not in said
    assert nodes.differences(here, here) == ""


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / ".ray-n").write_text("other"), "sees another"),
        (lambda folder: (folder / ".ray-n").unlink(), "cannot use .*FileNotFoundError"),
    ],
    ids=["another folder", "no folder"],
)
def test_a_node_that_does_not_see_the_folder_is_refused(damage, said, tmp_path):
    with nodes._nonce_in(tmp_path, "n"):
        damage(tmp_path)
        assert re.search(said, nodes._look(str(tmp_path), "n", "node")[1])
    assert list(tmp_path.iterdir()) == []


def test_keys_of_compute_are_in_no_key_of_a_step():
    config = RunConfig.model_validate(
        {"name": "n", "compute": {"backend": "ray", "rows_of_part": 7, "actors": 3}}
    )
    assert "compute" not in scientific(config)
