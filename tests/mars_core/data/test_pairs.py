import gzip
import json
import tempfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mars_core.data import pairs, reading, source_rows
from mars_core.data.formats.preference import Preference
from mars_core.data.pairs import DataConfig, flipped_of, prompt_position
from mars_core.data.pool import texts_key
from mars_core.data.reading import COLUMNS
from mars_core.data.source_rows import Line, PairsError

ROW = {"id": "1", "prompt": "What is a lark?", "chosen": "A songbird.", "rejected": "A fish."}
PROMPT = "\n\nHuman: What is a lark?\n\nAssistant: A songbird.\n\nHuman: Does it sing?\n\nAssistant:"
STORED = "Human: What is a lark?\n\nAssistant: A songbird.\n\nHuman: Does it sing?"
ASKED = [
    {"role": "user", "content": "What is a lark?"},
    {"role": "assistant", "content": "A songbird."},
    {"role": "user", "content": "Does it sing?"},
]


def answer(text):
    return [{"role": "assistant", "content": text}]


def numbered(n, first=0):
    return [
        {"id": i, "prompt": f"Question {i}?", "chosen": f"Right {i}.", "rejected": f"Wrong {i}."}
        for i in range(first, first + n)
    ]


def texts(table):
    return [(row["prompt"], row["chosen"], row["rejected"]) for row in table]


# Sources


def test_the_built_in_pairs_are_valid():
    table, left_out, _ = reading.read("sample://preferences")
    assert tuple(table.column_names) == COLUMNS
    assert len(table) >= 600
    assert not left_out


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz", "p.parquet", "p.csv"])
def test_every_file_format_gives_the_same_rows(write, name):
    rows = [ROW | {"id": 7}, ROW | {"id": 8, "chosen": "NA", "rejected": 'None, "said"\nhe'}]
    source = write(rows, name)
    table, left_out, _ = reading.read(source)
    assert table[:] == {
        "pair_id": ["7", "8"],
        "prompt": ["What is a lark?"] * 2,
        "chosen": ["A songbird.", "NA"],
        "rejected": ["A fish.", 'None, "said"\nhe'],
        "source": [source] * 2,
    }
    assert not left_out


def test_the_ids_of_a_csv_keep_their_leading_zeros(write):
    table, *_ = reading.read(write([ROW | {"id": "007"}], "p.csv"))
    assert list(table["pair_id"]) == ["007"]


def test_a_folder_is_the_rows_of_its_files_by_name(write, tmp_path):
    write(numbered(2, first=2), "folder/b.csv")
    write(numbered(2), "folder/a.jsonl.gz")
    (tmp_path / "folder" / "README.md").write_text("no data")
    table, *_ = reading.read(str(tmp_path / "folder"))
    assert list(table["pair_id"]) == ["0", "1", "2", "3"]


def test_a_file_that_changed_is_read_anew(write):
    assert len(reading.read(write(numbered(2)))[0]) == 2
    assert len(reading.read(write(numbered(3)))[0]) == 3


def test_where_keeps_the_rows_with_these_values(write):
    rows = [row | {"fold": i % 2, "kind": str(i)} for i, row in enumerate(numbered(6))]
    source = write(rows)
    assert list(reading.read(source, where={"fold": 1})[0]["pair_id"]) == ["1", "3", "5"]
    assert list(reading.read(source, where={"fold": 1, "kind": 3})[0]["pair_id"]) == ["3"]


def test_where_may_leave_a_file_of_a_folder_without_rows(write, tmp_path):
    write([ROW | {"fold": 0}], "folder/a.jsonl")
    write([ROW | {"fold": 1}], "folder/b.jsonl")
    assert len(reading.read(str(tmp_path / "folder"), where={"fold": 1})[0]) == 1


def test_a_source_column_is_kept(write):
    table, *_ = reading.read(write([ROW | {"source": "forum"}]))
    assert list(table["source"]) == ["forum"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("sample://pairs", "built-in pairs are sample://preferences"),
        ("absent.jsonl", "no such file or folder"),
        ("./absent", "no such file or folder in .*, where the command was started"),
        ("deliveries/*.jsonl", "a pattern is part of an address: file:///"),
        ("Anthropic/hh-rlhf", "with its revision.*such as Anthropic/hh-rlhf@main"),
        ("Anthropic/hh-rlhf@", "with its revision"),
        ("Anthropic/hh-rlhf/helpful-base@main:test", "cannot be loaded from the hub"),
    ],
    ids=["sample", "file", "folder", "pattern", "hub", "revision", "offline"],
)
def test_a_source_that_is_not_there_is_named(source, said):
    with pytest.raises(PairsError, match=said) as error:
        reading.read(source)
    assert str(error.value).startswith(f"{source}: ")


def test_a_hub_source_names_data_set_folder_revision_and_split(monkeypatch):
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)))
    source_rows.load_hub("Anthropic/hh-rlhf/helpful-base@09be8c5:test")
    source_rows.load_hub("allenai/reward-bench@main", default_split="filtered")
    assert asked == [
        (("Anthropic/hh-rlhf",), {"data_dir": "helpful-base", "revision": "09be8c5", "split": "test"}),
        (("allenai/reward-bench",), {"data_dir": None, "revision": "main", "split": "filtered"}),
    ]


def test_a_folder_is_never_read_in_place_of_a_data_set_of_the_hub(write, tmp_path, monkeypatch):
    write([ROW], "acme/prefs/train.jsonl")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PairsError, match=r"there is a folder acme/prefs here.* as \./acme/prefs"):
        reading.read("acme/prefs@main")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.jsonl", b'{"chosen": "a", "rejected": ', "JSON"),
        ("p.jsonl", '{"chosen": "é", "rejected": "e"}'.encode("latin-1"), "not UTF-8"),
        ("p.jsonl.gz", b"not compressed", "[Gg]zip"),
        ("p.parquet", b"PAR", "Parquet"),
        ("p.jsonl", b"", "no rows"),
        ("p.csv", b"id,prompt,chosen,rejected\n", "no rows"),
        ("p.txt", b"Hello", r"not a \.jsonl"),
    ],
    ids=["json", "encoding", "gzip", "parquet", "empty", "header", "kind"],
)
def test_a_file_that_cannot_be_read_is_named_with_the_cause(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PairsError, match=said) as error:
        reading.read(str(path))
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz"])
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"prompt": "q", "chosen"', "no JSON"),
        ('{"prompt": "é", "chosen": "a", "rejected": "b"}'.encode("latin-1"), "not UTF-8"),
        (b'["q", "a", "b"]', "no object with columns"),
    ],
    ids=["cut", "encoding", "list"],
)
def test_a_line_that_is_no_row_is_named_by_its_number_and_nothing_else_is_said(
    tmp_path, caplog, name, line, said
):
    good = json.dumps(ROW).encode()
    path = tmp_path / name
    with gzip.open(path, "wb") if name.endswith("gz") else path.open("wb") as file:
        file.write(b"\n".join([good, b"", line, good, line, b""]))
    with pytest.raises(PairsError) as error:
        reading.read(str(path))
    assert str(error.value) == f"{path}: line 3: {said}"
    assert not caplog.records


def test_a_folder_with_no_data_is_named(tmp_path):
    with pytest.raises(PairsError, match=r"no \.jsonl, .*\.csv file in this folder"):
        reading.read(str(tmp_path))


# Forms of a row


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": PROMPT, "chosen": " Yes.", "rejected": "No.\n"},
        {"chosen": f"{PROMPT} Yes.", "rejected": f"{PROMPT} No."},
        {"prompt": ASKED, "chosen": answer("Yes."), "rejected": answer(" No. ")},
        {"prompt": ASKED, "chosen": "Yes.", "rejected": "No."},
        {"prompt": PROMPT, "chosen": answer("Yes."), "rejected": answer("No.")},
        {"chosen": ASKED + answer("Yes."), "rejected": ASKED + answer("No.")},
        {"prompt": ASKED, "chosen": ASKED + answer("Yes."), "rejected": ASKED + answer("No.")},
        {"prompt": "Does it sing?", "chosen": ASKED + answer("Yes."), "rejected": ASKED + answer("No.")},
    ],
    ids=[
        "hh-prompt",
        "hh-transcripts",
        "conversations",
        "prompt-conversation",
        "response-conversations",
        "no-prompt",
        "prompt-repeated",
        "last-turn-repeated",
    ],
)
@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet"])
def test_text_and_conversations_are_stored_alike(write, row, name):
    table, *_ = reading.read(write([row], name))
    assert texts(table) == [(STORED, "Yes.", "No.")]


def test_a_single_turn_is_stored_as_its_plain_text(write):
    forms = [
        {"prompt": "\n\nHuman: What is a lark?\n\nAssistant:"},
        {"prompt": "  What is a lark? "},
        {"prompt": ASKED[:1]},
    ]
    table, *_ = reading.read(
        write([{"id": i, "chosen": "a", "rejected": "b"} | form for i, form in enumerate(forms)])
    )
    assert list(table["prompt"]) == ["What is a lark?"] * 3


@pytest.mark.parametrize("prompt", [None, PROMPT], ids=["transcripts", "prompt"])
def test_responses_after_which_further_turns_come_are_named(write, prompt):
    longer = "\n\nHuman: And?\n\nAssistant: That is all."
    row = {"chosen": f"{PROMPT} Yes.{longer}", "rejected": f"{PROMPT} Yes!{longer}"}
    if prompt:
        row = {"prompt": prompt, "chosen": f" Yes.{longer}", "rejected": " Yes!"}
    with pytest.raises(PairsError, match=r"differ before their last turn|chosen goes on with further turns"):
        reading.read(write([row]))


def test_a_prompt_that_quotes_a_transcript_is_kept_whole(write):
    quoting = "Summarise:\n\nHuman: Hi\n\nAssistant: Hello"
    table, *_ = reading.read(write([ROW | {"prompt": quoting}]))
    assert list(table["prompt"]) == [quoting]


def stored_prompt(text):
    reader = Preference(Preference.Config())
    [made] = reading.readings([Line(1, ROW | {"prompt": text}, "")], reader, "made")
    return made.pairs[0]["prompt"]


TURNS = st.lists(st.sampled_from(["Human:", "Assistant:", "\n\n", " ", "lark"])).map("".join)


@given(TURNS.filter(lambda text: "lark" in text))
def test_what_is_stored_is_stored_alike_when_it_is_read_again(text):
    stored = stored_prompt(text)
    assert stored_prompt(stored) == stored


def test_a_pair_without_an_id_is_known_by_its_texts(write):
    rows = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in numbered(3)]
    ids = list(reading.read(write(rows))[0]["pair_id"])
    assert len(set(ids)) == 3
    assert list(reading.read(write(rows[::-1]))[0]["pair_id"]) == ids[::-1]
    for nothing in (None, ""):
        assert list(reading.read(write([row | {"id": nothing} for row in rows]))[0]["pair_id"]) == ids


def test_what_was_read_can_be_written_and_read_again(write, tmp_path):
    table, *_ = reading.read(
        write([ROW, {"pair_id": "2", "prompt": PROMPT, "chosen": "Yes.", "rejected": "No."}])
    )
    table.to_parquet(str(tmp_path / "again.parquet"))
    assert reading.read(str(tmp_path / "again.parquet"))[0][:] == table[:]


# Invalid rows


@pytest.mark.parametrize("column", ["chosen", "rejected"])
def test_a_missing_column_is_named_with_those_there_are(write, column):
    source = write([{key: value for key, value in ROW.items() if key != column}])
    with pytest.raises(PairsError, match=r"no format reads the columns .*prompt.*\. Rename them") as error:
        reading.read(source)
    assert source in str(error.value)


def test_a_where_column_that_is_not_there_is_named(write):
    with pytest.raises(PairsError, match=r"no column 'fold', which data\.where names; found id"):
        reading.read(write([ROW]), where={"fold": 1})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": None}, "prompt is missing or null"),
        ({"chosen": None}, "chosen is missing or null"),
        ({"prompt": " \n"}, "prompt is empty"),
        ({"prompt": "\n\nAssistant:"}, "prompt is empty"),
        ({"rejected": "\t"}, "rejected is empty"),
        ({"chosen": " A fish. "}, "chosen equals rejected"),
        ({"id": "0"}, "duplicate id"),
        ({"chosen": answer("A songbird.")}, "only one of chosen and rejected is text"),
    ],
    ids=["null-prompt", "null", "blank", "no-human-turn", "tab", "equal", "duplicate", "half-text"],
)
def test_an_invalid_row_is_named_with_its_file_row_and_fault(write, change, reason):
    source = write([*numbered(1), ROW, ROW | {"id": "2"} | change])
    with pytest.raises(PairsError, match=f"1 invalid row:\n  {source}: row 3: {reason}"):
        reading.read(source)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": ASKED, "rejected": ASKED}, "chosen does not end with an assistant turn"),
        ({"chosen": answer("a"), "rejected": answer("b")}, "prompt is empty"),
        (
            {"chosen": ASKED + answer("a"), "rejected": ASKED[:1] + answer("b")},
            "differ before their last turn",
        ),
        (
            {"chosen": [*ASKED, {"role": "assistant", "content": None}], "rejected": ASKED + answer("b")},
            "chosen has a turn with content: null",
        ),
        ({"chosen": "Yes.", "rejected": "No."}, "neither a prompt nor a common Assistant turn"),
        (
            {"prompt": [{"role": "tool", "content": "4"}], "chosen": answer("a"), "rejected": answer("b")},
            "unknown role: 'tool'",
        ),
        (
            {
                "prompt": [*ASKED[:2], {"role": "user", "content": "a\n\nHuman: b"}],
                "chosen": "a",
                "rejected": "b",
            },
            "a turn contains the start of another turn",
        ),
        ({"prompt": "Hi", "chosen": 1, "rejected": 2}, "chosen is neither text nor"),
    ],
    ids=["last-turn", "no-prompt", "differ", "no-content", "nothing-common", "role", "marker", "numbers"],
)
def test_a_row_of_the_wrong_form_says_what_is_wrong(write, row, reason):
    with pytest.raises(PairsError, match=reason):
        reading.read(write([row]))


def test_where_no_row_is_valid_the_columns_are_named(write):
    rows = [{"question_text": "Larks?", "chosen": "Birds.", "rejected": f"Fish {n}."} for n in range(3)]
    with pytest.raises(PairsError, match=r"not used: question_text\nNo row is valid: has a column another"):
        reading.read(write(rows))


def test_only_some_of_many_invalid_rows_are_named_and_the_others_counted(write):
    with pytest.raises(PairsError, match="7 invalid rows:") as error:
        reading.read(write([row | {"chosen": ""} for row in numbered(7)]))
    assert "row 5: chosen is empty\n  and 2 more\n" in str(error.value)
    assert "row 6" not in str(error.value)


def test_the_row_of_an_invalid_pair_is_that_of_the_file_also_with_where(write):
    rows = [row | {"fold": i % 2} for i, row in enumerate(numbered(6))]
    rows[5]["chosen"] = ""
    with pytest.raises(PairsError, match="row 6: chosen is empty"):
        reading.read(write(rows), where={"fold": 1})


def test_a_duplicate_id_names_both_places(write, tmp_path):
    write(numbered(2), "folder/a.jsonl")
    write(numbered(2, first=1), "folder/b.jsonl")
    with pytest.raises(PairsError, match=r"b\.jsonl: row 1: duplicate id: '1', first in .*a\.jsonl: row 2"):
        reading.read(str(tmp_path / "folder"))


def test_invalid_rows_may_be_dropped_and_are_counted_by_reason(write):
    bad = [{"id": "a", "chosen": ""}, {"id": "b", "chosen": ""}, {"id": "0"}, {"id": "c", "prompt": None}]
    table, left_out, _ = reading.read(write([*numbered(2), *(ROW | row for row in bad)]), invalid="drop")
    assert list(table["pair_id"]) == ["0", "1"]
    assert left_out == {"chosen is empty": 2, "duplicate id": 1, "prompt is missing or null": 1}


def test_an_invalid_row_does_not_take_the_id_of_a_valid_one(write):
    table, *_ = reading.read(write([ROW | {"chosen": ""}, ROW]), invalid="drop")
    assert texts(table) == [("What is a lark?", "A songbird.", "A fish.")]


def test_a_source_without_a_pair_says_why(write):
    source = write([ROW | {"chosen": ""}])
    with pytest.raises(PairsError, match=r"no pairs; left out: 1 × chosen is empty"):
        reading.read(source, invalid="drop")
    with pytest.raises(PairsError, match=r"no pairs where \{'id': 'x'\}"):
        reading.read(source, where={"id": "x"})


# Three sets


@pytest.fixture
def three_sets(tmp_path):
    """Divides the pairs of a configuration; the tables are read into memory."""

    def divide(config, seed):
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            sets = pairs.three_sets(config, seed, Path(folder))
            return sets._replace(
                **{name: Dataset(getattr(sets, name).read()) for name in ("train", "validation", "heldout")}
            )

    return divide


def ids(table):
    return set(table["pair_id"])


def test_the_shares_divide_a_source_by_prompt(write, three_sets):
    sets = three_sets(DataConfig(train=write(numbered(400)), validation_share=0.2, heldout_share=0.3), seed=0)
    assert len(sets.train) + len(sets.validation) + len(sets.heldout) == 400
    assert len(sets.validation) == pytest.approx(80, abs=25)
    assert len(sets.heldout) == pytest.approx(120, abs=28)
    assert sets.dropped == {}


def test_no_prompt_is_in_two_sets(write, three_sets):
    rows = numbered(60)
    for i, row in enumerate(rows):
        row["prompt"] = ("question {}?", " Question   {}? ", "Human: QUESTION {}?")[i % 3].format(i // 3)
    sets = three_sets(DataConfig(train=write(rows), validation_share=0.3, heldout_share=0.3), seed=0)
    prompts = [{" ".join(prompt.lower().split()) for prompt in table["prompt"]} for table in sets[:3]]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 20


def test_a_pair_stays_in_its_set_when_data_are_added(write, three_sets):
    before = three_sets(DataConfig(train=write(numbered(80))), seed=0)
    after = three_sets(DataConfig(train=write(numbered(300)[::-1])), seed=1)
    for name in ("train", "validation", "heldout"):
        assert ids(getattr(before, name)) <= ids(getattr(after, name))


@given(
    st.text(),
    st.sampled_from(
        [str.upper, str.lower, lambda text: f"  {text}\n", lambda text: text.replace(" ", "\n ")]
    ),
)
def test_case_and_spacing_do_not_move_a_prompt(text, change):
    prompt = "".join(character for character in text if character.isascii())
    assert 0 <= prompt_position(prompt) < 1
    assert prompt_position(change(prompt)) == prompt_position(prompt)


def test_a_set_may_have_a_source_of_its_own(write, three_sets):
    config = DataConfig(
        train=write(numbered(30), "t.jsonl"),
        validation=write(numbered(3, first=100), "v.csv"),
        heldout=write(numbered(2, first=200), "h.parquet"),
    )
    sets = three_sets(config, seed=0)
    assert [len(table) for table in sets[:3]] == [30, 3, 2]


def test_pairs_whose_prompt_is_held_out_are_left_out_and_counted(write, three_sets):
    held = [row | {"prompt": f"human: {row['prompt'].upper()}"} for row in numbered(2, first=5)]
    config = DataConfig(
        train=write(numbered(10), "t.jsonl"),
        validation=write(numbered(3, first=6), "v.jsonl"),
        heldout=write([row | {"prompt": row["prompt"].removeprefix("human: ")} for row in held], "h.jsonl"),
    )
    sets = three_sets(config, seed=0)
    assert ids(sets.train) == {"0", "1", "2", "3", "4", "9"}
    assert ids(sets.validation) == {"7", "8"}
    assert ids(sets.heldout) == {"5", "6"}
    assert sets.dropped == {
        "train row whose prompt is in the held-out set": 2,
        "validation row whose prompt is in the held-out set": 1,
        "train row whose prompt is in the validation set": 2,
    }


def test_invalid_rows_of_all_sources_are_counted_together(write, three_sets):
    bad = [ROW | {"id": "x", "chosen": ""}]
    config = DataConfig(
        train=write(numbered(30) + bad, "t.jsonl"),
        heldout=write(numbered(2, first=90) + bad, "h.jsonl"),
        invalid="drop",
    )
    assert three_sets(config, seed=0).dropped == {"chosen is empty": 2}


def test_the_subset_is_fixed_by_the_seed_whatever_the_order(write, three_sets):
    config = DataConfig(train=write(numbered(60)), subset=10)
    first = three_sets(config, seed=0)
    assert len(first.train) == 10
    shuffled = DataConfig(train=write(numbered(60)[::-1], "r.jsonl"), subset=10)
    assert ids(three_sets(shuffled, seed=0).train) == ids(first.train)
    assert ids(three_sets(config, seed=1).train) != ids(first.train)


def test_labels_are_flipped_in_a_share_of_the_originals_alone(write, three_sets):
    source = write(numbered(60))
    honest, noisy = (three_sets(DataConfig(train=source, flipped=share), seed=3) for share in (0, 0.2))
    assert noisy.train["pair_id"] == honest.train["pair_id"]
    pairs = list(zip(honest.train, noisy.train, strict=True))
    flipped = [one for one, other in pairs if one["chosen"] == other["rejected"] != one["rejected"]]
    assert len(flipped) == round(0.2 * len(pairs))
    known = flipped_of(noisy.train["pair_id"][:], 0.2, seed=3)
    assert [one for one, is_flipped in zip(honest.train, known, strict=True) if is_flipped] == flipped
    assert all(one == other or one["rejected"] == other["chosen"] for one, other in pairs)
    assert list(noisy.heldout) == list(honest.heldout)
    assert list(noisy.validation) == list(honest.validation)


def test_a_larger_subset_holds_the_smaller_one(write, three_sets):
    others = {"validation": write(numbered(1, 60), "v.jsonl"), "heldout": write(numbered(1, 70), "h.jsonl")}
    source = write(numbered(50))
    small, large = (
        three_sets(DataConfig(train=source, subset=size, **others), seed=3).train for size in (10, 20)
    )
    assert ids(small) < ids(large)
    with pytest.raises(PairsError, match=r"data\.subset=51, but there are only 50 training pairs"):
        three_sets(DataConfig(train=source, subset=51, **others), seed=3)


@pytest.mark.parametrize(
    ("change", "name"),
    [({"validation_share": 0.0}, "validation"), ({"heldout_share": 0.0}, "heldout")],
    ids=["validation", "heldout"],
)
def test_an_empty_set_is_an_error_that_names_it(write, change, name, three_sets):
    with pytest.raises(PairsError, match=f"the {name} set is empty.*50 pairs.*name a source in data.{name}"):
        three_sets(DataConfig(train=write(numbered(50)), **change), seed=0)


def test_a_training_set_that_is_all_held_out_is_an_error(write, three_sets):
    source = write(numbered(9))
    with pytest.raises(
        PairsError,
        match=r"the train set is empty.*left out: 9 × train row whose prompt is in the held-out set",
    ):
        three_sets(
            DataConfig(train=source, validation=write(numbered(2, 50), "v.jsonl"), heldout=source), seed=0
        )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"validation_share": 0.5, "heldout_share": 0.5}, "no pair is left to train on"),
        ({"heldout_share": 1.0}, "heldout_share"),
        ({"subset": 0}, "subset"),
        ({"invalid": "ignore"}, "invalid"),
    ],
    ids=["sum", "share", "subset", "invalid"],
)
def test_values_out_of_range_are_refused(values, said):
    with pytest.raises(ValidationError, match=said):
        DataConfig(**values)


def test_a_share_does_not_count_where_a_source_is_named():
    assert DataConfig(validation_share=0.6, heldout_share=0.6, heldout="heldout.jsonl").heldout_share == 0.6


def test_pairs_whose_responses_are_exchanged_in_another_are_counted():
    rows = [("p", "a", "b"), ("p", "b", "a"), ("p", "a", "c"), ("q", "b", "a")]
    assert pairs.exchanged(np.array([texts_key(*row) for row in rows], dtype=np.uint64)) == 2
