"""The run folder is the one truth about what is done, and has one owner."""

import math
import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from mars_core.config import ConfigError
from mars_core.files import sha256_of
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import RunFolderError, existing_run, open_run

FOLDERS = st.dictionaries(st.sampled_from(["a", "b", "sub/a", "sub/b"]), st.binary(max_size=3))


def configuration(folder, **changes):
    return RunConfig.model_validate({"name": "tiny", "folder": str(folder)} | changes)


@pytest.fixture
def run(tmp_path):
    with open_run(configuration(tmp_path)) as run:
        yield run


def fail_half_way(path):
    path.write_text("half")
    raise OSError("disk full")


def put_checkpoint(*names):
    def put(folder):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)

    return put


@pytest.mark.parametrize("name", ["why?", "a[1]", "all*"])
def test_a_folder_may_have_any_name(name, tmp_path):
    with open_run(configuration(tmp_path / name)) as run:
        texts = run.write_table("train.parquet", Dataset.from_dict({"prompt": ["Why?"]}))
        numbers = run.write_table("margins.parquet", pd.DataFrame({"margin": [0.5]}))
        assert list(run.open(texts).texts("prompt")) == ["Why?"]
        assert run.table(numbers)["margin"].tolist() == [0.5]
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_an_artifact_whose_writing_fails_does_not_appear(run):
    with pytest.raises(OSError, match="disk full"):
        run.write("round-1/margins.parquet", fail_half_way)
    assert not run.path("round-1/margins.parquet").exists()


def test_an_artifact_whose_rewriting_fails_stays_as_it_was(run):
    artifact = run.write_json("metrics.json", {"accuracy": 0.5})
    with pytest.raises(OSError, match="disk full"):
        run.write("metrics.json", fail_half_way)
    assert run.json(artifact) == {"accuracy": 0.5}


def test_a_folder_replaces_its_predecessor_and_what_a_killed_start_left(run):
    with pytest.raises(OSError, match="disk full"):
        run.write("model", lambda folder: (folder.mkdir(), fail_half_way(folder / "shard-1")))
    run.write("model", put_checkpoint("shard-1", "shard-2"))
    model = run.write("model", put_checkpoint("weights"))
    assert [file.name for file in run.path(model).iterdir()] == ["weights"]
    assert model.sha256 == run.adopt("model").sha256
    assert not list(run.root.glob(".model*"))


@pytest.mark.parametrize("kind", [pd.DataFrame, Dataset.from_dict], ids=["frame", "dataset"])
def test_a_table_is_read_as_it_was_written(kind, run):
    columns = {"pair_id": ["b", "a"], "prompt": ["Why?", "naïve\u2028text"]}
    artifact = run.write_table("train.parquet", kind(columns))
    assert run.table(artifact).to_dict("list") == columns
    assert run.open(artifact).read().to_pydict() == columns
    assert artifact.rows == 2


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda file: file.write_bytes(b"x")], ids=["gone", "changed"]
)
@pytest.mark.parametrize("reader", ["table", "open", "json"])
def test_an_artifact_that_is_not_what_was_written_is_refused_by_its_path(reader, damage, run):
    artifact = run.write_table("train.parquet", pd.DataFrame({"pair_id": ["a"]}))
    damage(run.path(artifact))
    with pytest.raises(RunFolderError, match=r"tiny/train\.parquet is missing or was changed"):
        getattr(run, reader)(artifact)


@given(FOLDERS, FOLDERS)
def test_folders_have_one_digest_exactly_if_they_hold_the_same_files(one, other):
    digests = []
    for files in (one, other):
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                file = Path(folder, name)
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(content)
            digests.append(sha256_of(Path(folder)))
    assert (digests[0] == digests[1]) == (one == other)


def own(config, opened):
    with open_run(config):
        opened.set()
        time.sleep(1000)


def test_a_second_process_is_refused_until_the_owner_is_gone_even_by_kill_9(tmp_path):
    config, forking = configuration(tmp_path), multiprocessing.get_context("fork")
    opened = forking.Event()
    owner = forking.Process(target=own, args=[config, opened])
    owner.start()
    try:
        assert opened.wait(60)
        with pytest.raises(RunFolderError, match=r"tiny is in use by another process"), open_run(config):
            pass
    finally:
        owner.kill()
        owner.join()
    with open_run(config) as run:
        assert run.config == config


def two_runs_that_share(folder):
    return (configuration(folder, name=name, shared_steps=str(folder / "shared")) for name in ("one", "two"))


def test_a_step_that_another_run_finished_is_taken_over_with_its_artifacts(tmp_path):
    one, two = two_runs_that_share(tmp_path)
    with open_run(one) as run:
        model = run.write("round-0/model", put_checkpoint("weights"))
        table = run.write_json("round-0/metrics.json", [1, 2])
        run.record("round-0-fit", "key", {"model": model, "table": table}, 7.0, {"fit/loss": 0.5})
    with open_run(two) as run:
        assert run.finished("round-0-fit", "another key") is None
        found = run.finished("round-0-fit", "key")
        assert found == ({"model": model, "table": table}, {"fit/loss": 0.5})
        assert run.finished("round-0-fit", "key") == found
        assert run.json(table) == [1, 2]
        assert run.seconds() == {"round-0-fit": 7.0}
        run.write("round-0/model", put_checkpoint("changed"))
    with open_run(one) as run:
        assert run.intact(model)  # what one run writes anew stays as it was in the other


def test_a_shared_step_whose_artifacts_are_damaged_or_gone_is_not_taken_over(tmp_path):
    one, two = two_runs_that_share(tmp_path)
    with open_run(one) as run:
        run.record("prepare", "key", {"": run.write_json("sets.json", [1])}, 1.0)
        run.path("sets.json").write_text("[2]")
    with open_run(two) as run:
        assert run.finished("prepare", "key") is None
    with open_run(one) as run:
        run.record("prepare", "other inputs", {"": run.write_json("sets.json", [3])}, 1.0)
    with open_run(two) as run:
        assert run.finished("prepare", "key") is None
    shutil.rmtree(tmp_path / "one")
    with open_run(two) as run:
        assert run.finished("prepare", "key") is None


def test_what_a_killed_start_left_half_written_is_written_anew(run):
    table = run.write_json("round-1/distances.json", [1])
    for leftover in (".again.json.partial", ".again.json.replaced"):
        run.path(f"round-1/{leftover}").hardlink_to(run.path(table))
    run.link(table, "round-1/again.json")
    assert run.path("round-1/again.json").read_text() == run.path(table).read_text()


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({}, {"selection": {"tau": 0.1}}, "selection.tau: 0.5 there, 0.1 now"),
        ({}, {"seed": 7}, "seed: 0 there, 7 now"),
        ({}, {"data": {"where": {"split": "base"}}}, "data.where.split: None there, 'base' now"),
        ({"data": {"where": {"split": "base"}}}, {}, "data.where.split: 'base' there, None now"),
        (
            {"generation": {"rewrite_chosen": {"top_p": 0.9}}},
            {},
            "generation.rewrite_chosen.top_p: 0.9 there, 1.0 now",
        ),
    ],
    ids=["changed", "top", "added", "removed", "nested"],
)
def test_a_run_of_other_scientific_keys_is_refused_with_key_and_values(before, now, told, tmp_path):
    with open_run(configuration(tmp_path, **before)) as run:
        run.record("round-0-fit", "key", {}, 1.0)
    written = (tmp_path / "tiny/config.yaml").read_bytes()
    with pytest.raises(RunFolderError) as error, open_run(configuration(tmp_path, **now)):
        pass
    lines = [line.strip() for line in str(error.value).splitlines()]
    assert lines[1:-1] == [told]
    assert (tmp_path / "tiny/config.yaml").read_bytes() == written


def test_a_refused_run_is_left_unlocked(tmp_path):
    with open_run(configuration(tmp_path)) as run:
        run.record("round-0-fit", "key", {}, 1.0)
    with pytest.raises(RunFolderError), open_run(configuration(tmp_path, seed=1)):
        pass
    with open_run(configuration(tmp_path)) as run:
        assert run.config.seed == 0


def test_operational_keys_may_change_and_rounds_may_grow(tmp_path):
    with open_run(configuration(tmp_path, rounds=1)) as run:
        identity = run.identity
    changes = {
        "rounds": 4,
        "model": {"device": "cpu"},
        "generation": {"max_failed_share": 0.5},
        "tracking": {"uri": "sqlite:///elsewhere.db"},
    }
    with open_run(configuration(tmp_path, **changes)) as run:
        assert run.identity == identity
        assert existing_run(run.root).config == configuration(tmp_path, **changes)


def test_the_configuration_is_written_with_the_digest_of_its_scientific_keys(tmp_path):
    heads = []
    for changes in ({"rounds": 1}, {"rounds": 2}, {"name": "other", "seed": 1}):
        config = configuration(tmp_path, **changes)
        with open_run(config) as run:
            text = run.path("config.yaml").read_text()
        assert RunConfig.model_validate(yaml.safe_load(text)) == config
        heads.append(text.splitlines()[1])
    assert all(head.startswith("# sha256 of its scientific keys: ") for head in heads)
    assert heads[0] == heads[1] != heads[2]


def test_every_folder_has_an_identity_of_its_own(tmp_path):
    with open_run(configuration(tmp_path)) as one, open_run(configuration(tmp_path, name="two")) as two:
        assert one.identity != two.identity


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(RunFolderError, match="no run here"):
        existing_run(tmp_path)


def test_keys_may_change_until_something_was_made_with_them(tmp_path):
    with open_run(configuration(tmp_path)):
        pass
    with pytest.raises(KeyboardInterrupt), open_run(configuration(tmp_path, seed=1)):
        raise KeyboardInterrupt
    with open_run(configuration(tmp_path, seed=2)) as run:
        run.record("round-0-fit", "key", {}, 1.0)
    with (
        pytest.raises(RunFolderError, match="seed: 2 there, 3 now"),
        open_run(configuration(tmp_path, seed=3)),
    ):
        pass


def test_a_run_of_a_version_with_other_keys_is_told_by_file_and_key(tmp_path):
    with open_run(configuration(tmp_path)) as run:
        run.record("round-0-fit", "key", {}, 1.0)
        file = run.path("config.yaml")
    file.write_text(file.read_text().replace("tau:", "sharpness:"))
    with pytest.raises(ConfigError, match=r"(?s)tiny/config\.yaml.*selection\.sharpness: no such key"):
        existing_run(run.root)


def test_a_linked_artifact_is_the_same_under_both_names(run):
    artifact = run.write_json("round-1/distances.json", [1])
    run.link(artifact, "round-2/distances.json")
    assert run.intact(artifact.model_copy(update={"uri": "round-2/distances.json"}))
    assert run.path("round-2/distances.json").samefile(run.path(artifact))


def test_a_link_follows_an_artifact_that_was_made_anew(run):
    for content in ([1], [2]):
        artifact = run.write_json("round-1/distances.json", content)
        run.link(artifact, "round-2/distances.json")
    assert run.path("round-2/distances.json").read_bytes() == run.path(artifact).read_bytes()


def test_a_link_to_its_own_name_changes_nothing(run):
    artifact = run.write_json("round-1/distances.json", [1])
    run.link(artifact, "round-1/distances.json")
    assert run.intact(artifact)


def test_without_hard_links_an_artifact_is_copied(run, monkeypatch):
    def refuse(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    artifact = run.write_json("round-1/distances.json", [1])
    run.link(artifact, "round-2/distances.json")
    assert run.intact(artifact.model_copy(update={"uri": "round-2/distances.json"}))


def test_a_damaged_artifact_is_not_linked(run):
    artifact = run.write_json("round-1/distances.json", [1])
    run.path(artifact).write_text("[2]")
    with pytest.raises(RunFolderError, match=r"round-1/distances\.json is missing or was changed"):
        run.link(artifact, "round-2/distances.json")


def test_a_step_is_finished_once_it_is_recorded_and_only_for_its_key(run):
    outputs = {"": run.write_json("metrics.json", {"accuracy": 0.5})}
    assert run.finished("metrics", "key") is None
    run.record("metrics", "key", outputs, 1.5)
    assert run.finished("metrics", "key") == (outputs, {})
    assert run.finished("metrics", "another key") is None
    assert run.seconds() == {"metrics": 1.5}


def test_metrics_of_a_record_are_what_was_measured(run):
    run.record("s", "key", {"": run.write_json("m.json", 1)}, 0.0, {"n": 0.0, "mean": math.nan})
    metrics = run.finished("s", "key").metrics
    assert metrics["n"] == 0
    assert math.isnan(metrics["mean"])


def test_metrics_of_a_round_are_those_of_its_steps_and_of_the_steps_of_no_round(run):
    run.note_metrics(None, {"semantics/threshold": 0.5})
    run.note_metrics(1, {"fit/loss": 0.25})
    run.note_metrics(2, {"fit/loss": 0.125})
    assert run.metrics_of(1) == {"semantics/threshold": 0.5, "fit/loss": 0.25}


def test_the_folder_of_an_earlier_layout_is_refused_in_one_sentence(tmp_path):
    config = configuration(tmp_path)
    config.run_folder.mkdir()
    (config.run_folder / "config.yaml").write_text("name: tiny\nfit: {loss: {margin: 0}}\n")
    for look in (lambda: existing_run(config.run_folder), lambda: open_run(config).__enter__()):
        with pytest.raises(
            RunFolderError, match=r"tiny was made by another version of mars \(layout 1, .* 2\)"
        ):
            look()


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_text("x")], ids=["gone", "changed"])
def test_a_step_is_not_finished_when_one_of_its_artifacts_is_not_whole(damage, run):
    outputs = {"": run.write_json("one.json", 1), "model": run.write("model", put_checkpoint("a", "b"))}
    run.record("fit", "key", outputs, 1.0)
    damage(run.path("model/b"))
    assert run.finished("fit", "key") is None
    assert run.outputs("fit") == outputs
