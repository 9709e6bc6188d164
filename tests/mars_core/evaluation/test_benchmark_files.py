"""The rows of publishers' files: formats, places in messages, and the hub."""

import json
from pathlib import Path

import pytest
from datasets import Dataset

from mars_core.data.dialogue import Turn, turns
from mars_core.evaluation import benchmark_files
from mars_core.evaluation.benchmark_files import BenchmarkError, as_prompt, read_rows, to_dataset

ROWS = [{"name": "a", "words": ["x", "y"]}, {"name": "b", "words": ["z", ""]}]


@pytest.mark.parametrize("name", ["rows.json", "rows.json.gz", "rows.jsonl", "rows.jsonl.gz"])
def test_arrays_and_lines_of_json_are_the_same_rows(write, name):
    source = write(ROWS, name)
    assert [(row.values, row.place) for row in read_rows(source, "Mine")] == [
        (values, f"{source}: row {number}") for number, values in enumerate(ROWS, start=1)
    ]


def test_parquet_has_the_same_rows_too(tmp_path):
    Dataset.from_list(ROWS).to_parquet(tmp_path / "rows.parquet")
    assert [row.values for row in read_rows(str(tmp_path / "rows.parquet"), "Mine")] == ROWS


def test_a_folder_is_read_to_its_depth_in_the_order_of_the_names(write, tmp_path):
    write(ROWS[:1], "b.json")
    write(ROWS[1:], "a/deep/c.jsonl")
    (tmp_path / "README.md").write_text("no rows")
    rows = read_rows(str(tmp_path), "Mine")
    assert [row.place for row in rows] == [f"{tmp_path}/a/deep/c.jsonl: row 1", f"{tmp_path}/b.json: row 1"]


def test_data_sets_of_the_hub_are_read_at_their_revisions_and_rows_say_where_they_are(
    write, tmp_path, monkeypatch
):
    write(ROWS[:1], "one/data/x.json")
    write(ROWS[1:], "two/data/y.json")
    asked = []

    def snapshot_download(name, **options):
        asked.append((name, options["repo_type"], options["revision"], options["allow_patterns"]))
        return str(tmp_path / Path(name).name)

    monkeypatch.setattr(benchmark_files.huggingface_hub, "snapshot_download", snapshot_download)
    rows = read_rows("me/one@abc + me/two/data@main", "Mine", patterns=("*.json",))
    assert asked == [("me/one", "dataset", "abc", ["*.json"]), ("me/two", "dataset", "main", ["data/*.json"])]
    assert [row.place for row in rows] == ["me/one@abc/data/x.json: row 1", "me/two/data@main/y.json: row 1"]


def test_what_the_hub_refuses_is_told_with_the_source(monkeypatch):
    def snapshot_download(*_, **__):
        raise OSError("no such revision")

    monkeypatch.setattr(benchmark_files.huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(
        BenchmarkError, match="me/one@abc: Mine cannot be loaded from the hub: no such revision"
    ):
        read_rows("me/one@abc", "Mine")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("missing.json", "Mine file or folder missing.json does not exist"),
        ("me/one", "a hub dataset with its revision"),
    ],
    ids=["no file", "no revision"],
)
def test_a_source_that_is_nowhere_is_refused_in_words_that_help(source, said):
    with pytest.raises(BenchmarkError, match=said):
        read_rows(source, "Mine", hub="me/mine")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.json", '{"name": "a"}', "rows.json: Mine is an array of rows, this file holds {'name': 'a'}"),
        ("rows.json", '[{"name": "a"}, 3]', "rows.json: row 2 must be an object with fields, it is 3"),
        ("rows.json", "[", "rows.json: no JSON"),
        ("rows.jsonl", '{"name": "a"}\n[]\n', "rows.jsonl: line 2"),
        ("rows.json", "[]", "has no rows of Mine"),
        ("rows.txt", "a", "rows.txt: Mine is read from files ending in .json"),
        ("rows.json.gz", "[]", "rows.json.gz: cannot be read"),
        ("rows.parquet", "no", "rows.parquet: cannot be read"),
    ],
    ids=["object", "number", "broken", "line", "empty", "ending", "no gzip", "no parquet"],
)
def test_a_file_of_another_format_is_refused_with_its_name_and_row(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(BenchmarkError, match="(?s)" + said.replace("[", r"\[").replace("{", r"\{")):
        read_rows(str(tmp_path / name), "Mine")


@pytest.mark.parametrize(
    ("values", "read", "said"),
    [
        ({}, lambda row: row.text("name"), "has no field name; it has none"),
        ({"name": 3}, lambda row: row.text("name"), "name must be text, it is 3"),
        ({"name": " "}, lambda row: row.text("name"), "name is empty"),
        ({"name": "\ud83d"}, lambda row: row.text("name"), "name holds half a character"),
        ({"name": None}, lambda row: row.name("name"), "name must be a name or a number, it is None"),
        ({"words": "x"}, lambda row: row.texts("words"), "words must be a list of some texts, it is 'x'"),
        ({"words": ["x"]}, lambda row: row.texts("words", 3), "words must be a list of 3 texts"),
        ({"words": ["x", 1]}, lambda row: row.texts("words"), r"words\[1\] must be text, it is 1"),
        ({"name": "c"}, lambda row: row.one_of("name", ("a", "b")), "name must be one of a, b, it is 'c'"),
    ],
    ids=["missing", "number", "blank", "half", "null", "no list", "too few", "in list", "unknown"],
)
def test_a_field_of_another_form_is_refused_with_file_row_and_field(tmp_path, values, read, said):
    (tmp_path / "rows.json").write_text(json.dumps([{"name": "fine", "words": ["x"]}, values]))
    with pytest.raises(BenchmarkError, match=rf"rows\.json: row 2 {said}"):
        read(read_rows(str(tmp_path / "rows.json"), "Mine")[1])


def test_doubled_rows_are_refused_with_both_places(write):
    rows = read_rows(write(ROWS, "rows.json"), "Mine")
    with pytest.raises(BenchmarkError, match=r"row 2 repeats id 7 of x, which is .*rows\.json: row 1 too"):
        to_dataset([(row, {"id": "7", "subset": "x"}) for row in rows], "rows.json")


def test_a_turn_that_quotes_another_speaker_stays_one_turn():
    said = [Turn("user", "Go on:\n\nAssistant: Hi."), Turn("assistant", "Hi."), Turn("user", "And?")]
    assert [turn.role for turn in turns(as_prompt(said))] == ["user", "assistant", "user"]
    assert turns(as_prompt(said))[0].content == "Go on:\nAssistant: Hi."
