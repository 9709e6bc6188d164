"""Deliveries: what is new, what is left for the next look, and which rows are accepted."""

import gzip
import json
import os
import socketserver
import tempfile
import time
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.data.deliveries import (
    Delivery,
    IntakeConfig,
    NoFileError,
    UnfinishedError,
    examine,
    new_deliveries,
    on_disk,
)
from mars_core.data.first_reading import first_texts
from mars_core.data.formats.format import FORMATS
from mars_core.data.identity import pair_identity
from mars_core.data.reading import COLUMNS
from mars_core.data.source_rows import Limits, PairsError
from mars_core.files import RememberedDigests, sha256_of

LATER = time.time() + 3600
ROWS = [{"prompt": f"What is {i}?", "chosen": f"{i} is a number.", "rejected": "No idea."} for i in range(10)]

CSV = "prompt,chosen,rejected\na,b,c\n"


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def id_of(row):
    return pair_identity(row["prompt"], row["chosen"], row["rejected"])


def exchanged(row):
    return row | {"chosen": row["rejected"], "rejected": row["chosen"]}


@pytest.fixture
def folder(tmp_path):
    """Deliver files into a folder; the deliveries found there, and what is left for the next look."""

    def deliver(seen=(), **files):
        for name, content in files.items():
            file = tmp_path / name.replace("_", ".")
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        return new_deliveries(IntakeConfig(source=str(tmp_path)), seen, LATER)

    return deliver


@pytest.fixture
def examined(folder):
    """Deliver one file and examine it."""

    def examine_one(known=(), refused=(), max_bad_share=0.2, **file):
        [delivery], _ = folder(**file)
        return examine(delivery, set(known), set(refused), max_bad_share)

    return examine_one


def test_a_delivery_is_new_once(folder):
    [delivery], left = folder(a_jsonl=lines(ROWS))
    assert (delivery.name, left) == ("a.jsonl", {})
    assert folder(seen={delivery.digest}) == ([], {})


def test_a_file_under_a_second_name_is_no_second_delivery(folder):
    found, _ = folder(a_jsonl=lines(ROWS), b_jsonl=lines(ROWS), c_jsonl=lines(ROWS[:1]))
    assert [delivery.name for delivery in found] == ["a.jsonl", "c.jsonl"]


def test_hidden_and_other_files_are_no_deliveries(folder, tmp_path):
    (tmp_path / ".hidden.jsonl").write_text(lines(ROWS))
    (tmp_path / "a.jsonl.partial").write_text(lines(ROWS))
    assert folder(README_md="Deliver here.") == ([], {})


def test_a_file_that_has_just_changed_is_left_for_the_next_look(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(lines(ROWS))
    os.utime(file, (1000, 1000))
    config = IntakeConfig(source=str(tmp_path), settle_seconds=60)
    assert new_deliveries(config, (), 1059) == ([], {"a.jsonl": "it changed in the last 60 seconds"})
    assert len(new_deliveries(config, (), 1060)[0]) == 1


def test_a_file_that_cannot_be_read_is_left_and_keeps_back_no_other(folder, tmp_path):
    (tmp_path / "secret").write_text(lines(ROWS[:2]))
    (tmp_path / "a.jsonl").symlink_to("secret")
    (tmp_path / "c.jsonl").mkdir()
    os.mkfifo(tmp_path / "d.jsonl")
    found, left = folder(b_jsonl=lines(ROWS))
    assert [delivery.name for delivery in found] == ["b.jsonl"]
    assert left == {
        "a.jsonl": "it cannot be read: it is a link; deliver the file itself",
        "c.jsonl": "it cannot be read: it is no regular file",
        "d.jsonl": "it cannot be read: it is no regular file",
    }


def test_a_link_that_takes_the_place_of_a_delivery_is_not_followed(folder, tmp_path):
    [delivery], _ = folder(a_jsonl=lines(ROWS))
    (tmp_path / "elsewhere").write_text(lines(ROWS))  # of the same digest
    (tmp_path / "a.jsonl").unlink()
    (tmp_path / "a.jsonl").symlink_to("elsewhere")
    with pytest.raises(NoFileError, match="it is a link"):
        examine(delivery, (), (), 0.2)


def test_files_that_did_not_change_are_hashed_once(folder, tmp_path, monkeypatch):
    folder(a_jsonl=lines(ROWS))
    config, digests = IntakeConfig(source=str(tmp_path)), RememberedDigests(tmp_path / "digests")
    monkeypatch.setattr("mars_core.files.SETTLED_SECONDS", -1)
    [delivery], _ = new_deliveries(config, (), LATER, digests)
    with monkeypatch.context() as patch:
        patch.setattr("mars_core.data.deliveries._digest", lambda _: "hashed again")
        [again], _ = new_deliveries(config, (), LATER, digests)
    assert again == delivery
    times = (tmp_path / "a.jsonl").stat().st_mtime_ns
    (tmp_path / "a.jsonl").write_text(lines(map(exchanged, ROWS)))  # as long as before
    os.utime(tmp_path / "a.jsonl", ns=(times, times))
    [other], _ = new_deliveries(config, (), LATER, digests)
    assert other.digest != delivery.digest


def test_a_name_is_no_pattern(folder, tmp_path):
    found, _ = folder(**{"*_csv": CSV, "a_csv": CSV + "d,e,f\n", "b_csv": CSV + "g,h,i\n"})
    assert [(delivery.name, examine(delivery, (), (), 0).rows) for delivery in found] == [
        ("*.csv", 1),
        ("a.csv", 2),
        ("b.csv", 2),
    ]


def test_a_file_of_another_kind_keeps_back_no_other(folder):
    found, _ = folder(a_json=json.dumps(ROWS), b_jsonl=lines(ROWS[:1]))
    assert [delivery.name for delivery in found] == ["a.json", "b.jsonl"]


def test_what_is_read_is_what_was_hashed_though_the_file_changes_and_changes_back(folder, tmp_path):
    rows = [row | {"id": str(number)} for number, row in enumerate(ROWS * 1000)]
    whole = lines(rows).encode()
    other = whole.replace(b"a number", b"a rumour")

    class Changing(FORMATS.find("preference")):
        def at(self, columns, rows):
            return self

        def pairs(self, rows):
            meanwhile = {"0": other, "9999": whole}.get(rows[0]["id"])
            if meanwhile:
                (tmp_path / "a.jsonl").write_bytes(meanwhile)
            return super().pairs(rows)

    [delivery], _ = folder(a_jsonl=whole)
    intake = examine(delivery, (), (), 1, Changing(Changing.Config()))
    assert (intake.rows, len(intake.accepted)) == (10_000, 10)
    assert set(intake.accepted["chosen"][:]) == {row["chosen"] for row in ROWS}


def pictures(address):
    """Rows with pictures of another machine, in a table that declares them as such."""
    rows = [row | {"image": address} for row in ROWS[:2]] + [row | {"image": None} for row in ROWS[2:]]
    return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())


@pytest.mark.parametrize("place", ["file", "hub"])
def test_a_delivery_fetches_nothing(folder, tmp_path, monkeypatch, place):
    with socketserver.TCPServer(("127.0.0.1", 0), None) as listener:  # it answers nobody
        listener.socket.settimeout(0)
        table = pictures(f"http://127.0.0.1:{listener.server_address[1]}/secret.png")
        if place == "hub":
            monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
            [delivery], _ = new_deliveries(IntakeConfig(source="acme/prefs@main"), (), LATER)
        else:
            declared = table.features.arrow_schema.metadata
            arrow = table.with_format("arrow")[:].replace_schema_metadata(declared)
            pa.parquet.write_table(arrow, tmp_path / "made")
            [delivery], _ = folder(a_parquet=(tmp_path / "made").read_bytes())
        intake = examine(on_disk(delivery, tmp_path), (), (), 1)
        with pytest.raises(BlockingIOError):
            listener.socket.accept()
    assert [bad.reason for bad in intake.bad] == ["image is not empty; a reward model reads text alone"] * 2
    assert len(intake.accepted) == 8


def test_columns_that_are_no_texts_are_not_read(folder, tmp_path):
    far = pa.array([2**62] * 10, pa.timestamp("us"))
    more = {"at": far, "audios": [[{"bytes": b"a"}]] + [[]] * 9, "sound": [b"\xff"] * 10, "score": [0.5] * 10}
    table = pa.table(pd.DataFrame(ROWS).to_dict("list") | more)
    pa.parquet.write_table(table, tmp_path / "made")
    [delivery], _ = folder(a_parquet=(tmp_path / "made").read_bytes())
    intake = examine(delivery, (), (), 1)
    assert [bad.reason.partition(";")[0] for bad in intake.bad] == ["audios is not empty"]
    assert len(intake.accepted) == 9
    assert intake.remark == "read as preference (prompt, chosen, rejected); not used: at, audios, score"


def test_a_data_set_of_the_hub_stays_in_no_cache(monkeypatch, tmp_path):
    caches = []

    def load_dataset(name, cache_dir, **_):
        caches.append(Path(cache_dir))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    config = IntakeConfig(source="acme/prefs@main")
    [delivery], _ = new_deliveries(config, (), LATER)
    assert len(examine(on_disk(delivery, tmp_path), (), (), 0).accepted) == 10
    assert caches
    assert not caches[0].exists()
    assert new_deliveries(config, {delivery.digest}, LATER) == ([], {})


def test_a_source_that_is_not_there_is_an_error_that_names_it():
    with pytest.raises(PairsError, match=r"data\.source=nowhere: no such folder"):
        new_deliveries(IntakeConfig(source="nowhere"), (), LATER)


def test_the_built_in_pairs_are_one_delivery(tmp_path):
    [delivery], _ = new_deliveries(IntakeConfig(source="sample://preferences"), (), LATER)
    assert len(examine(on_disk(delivery, tmp_path), set(), set(), 0).accepted) == 820
    assert new_deliveries(IntakeConfig(source="sample://preferences"), {delivery.digest}, LATER) == ([], {})


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet", "csv"])
def test_every_kind_of_file_gives_the_same_pairs(examined, tmp_path, kind):
    place = tmp_path / "made" / f"a.{kind}"
    place.parent.mkdir()
    table = pd.DataFrame(ROWS)
    if kind == "parquet":
        table.to_parquet(place)
    elif kind == "csv":
        table.to_csv(place, index=False)
    else:
        place.write_bytes(
            gzip.compress(lines(ROWS).encode()) if kind.endswith("gz") else lines(ROWS).encode()
        )
    intake = examined(**{f"a_{kind.replace('.', '_')}": place.read_bytes()})
    assert (intake.rows, intake.duplicates, intake.bad, intake.refusal) == (10, 0, [], None)
    assert intake.accepted.column_names == list(COLUMNS)
    assert intake.accepted["pair_id"][:] == [id_of(row) for row in ROWS]
    assert set(intake.accepted["source"]) == {f"a.{kind}"}


def test_a_pair_is_known_by_its_texts_whatever_id_it_bears(examined):
    rows = [ROWS[0] | {"id": "1"}, ROWS[0] | {"id": "2"}, ROWS[1] | {"id": "1"}]
    intake = examined(a_jsonl=lines(rows))
    assert (len(intake.accepted), intake.duplicates) == (2, 1)


def test_known_pairs_count_as_duplicates(examined):
    intake = examined(known=map(id_of, ROWS[:4]), a_jsonl=lines(ROWS))
    assert (len(intake.accepted), intake.duplicates, intake.bad) == (6, 4, [])


def test_the_reverse_of_a_known_pair_is_contradictory(examined):
    intake = examined(known=[id_of(ROWS[3])], a_jsonl=lines([*ROWS[4:], exchanged(ROWS[3])]))
    [bad] = intake.bad
    assert bad.row == 7
    assert "contradicts a known pair" in bad.reason
    assert len(intake.accepted) == 6


def test_a_pair_that_the_gate_refused_is_not_accepted_in_another_file(examined):
    intake = examined(refused=[id_of(ROWS[0])], a_jsonl=lines(ROWS))
    assert [bad.reason for bad in intake.bad] == ["came in an earlier delivery, which the gate refused"]
    corrected = examined(refused=[id_of(exchanged(row)) for row in ROWS], b_jsonl=lines(ROWS))
    assert len(corrected.accepted) == 10


REWRITTEN = {
    "space": lambda text: text.replace(" ", "  ", 1),
    "case": str.upper,
    "full stop": lambda text: text.rstrip(".?") + " …",
    "exclamation": lambda text: text + "!",
    "width": lambda text: text.replace("a", "\N{FULLWIDTH LATIN SMALL LETTER A}"),
    "invisible": lambda text: text[:1] + "\N{ZERO WIDTH SPACE}" + text[1:],
}


@pytest.mark.parametrize("rewritten", REWRITTEN.values(), ids=REWRITTEN)
def test_pairs_in_another_spelling_are_neither_new_nor_to_be_exchanged_nor_rid_of_their_refusal(
    examined, rewritten
):
    ids = [id_of(row) for row in ROWS]
    again = [{name: rewritten(text) for name, text in row.items()} for row in ROWS]
    intake = examined(known=ids, a_jsonl=lines(again))
    assert (intake.accepted, intake.duplicates) == (None, 10)
    intake = examined(known=ids, a_jsonl=lines(map(exchanged, again)))
    assert (intake.accepted, intake.bad_rows) == (None, 10)
    intake = examined(refused=ids, a_jsonl=lines(again))
    assert (intake.accepted, intake.bad_rows) == (None, 10)


def said(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


FIRST_READ = {
    "CR LF": ({"prompt": "Human: A?\r\n\r\nAssistant: B.\r\n\r\nHuman: C?", "chosen": "D.", "rejected": "E."},
              ("A?\r\n\r\nAssistant: B.\r\n\r\nHuman: C?", "D.", "E.")),
    "system": ({"system": "Be brief.", "prompt": "A?", "chosen": "D.", "rejected": "E."}, ("A?", "D.", "E.")),
    "repeated": ({"prompt": "A?", "chosen": "A?\nD.", "rejected": "A?\nE."}, ("A?", "A?\nD.", "A?\nE.")),
    "empty turn": ({"prompt": "", "chosen": said("A?", "D."), "rejected": said("A?", "E.")},
                   ("Human: \n\nHuman: A?", "D.", "E.")),
}  # fmt: skip


@pytest.mark.parametrize(("row", "then"), FIRST_READ.values(), ids=FIRST_READ)
def test_a_pair_is_known_that_the_first_version_read_to_other_texts(folder, row, then):
    [delivery], _ = folder(a_jsonl=lines([row]))
    assert examine(delivery, (), (), 0).accepted["pair_id"][:] != [pair_identity(*then)]
    intake = examine(delivery, (), (), 0, known_first={pair_identity(*then)})
    assert (intake.accepted, intake.duplicates) == (None, 1)


@pytest.mark.timeout(20)
def test_a_long_transcript_is_split_in_a_time_that_grows_with_its_length():
    long = "\n\nAssistant:" * 200_000
    assert (
        first_texts({"chosen": f"Human: a\n\nAssistant: b{long} c", "rejected": f"Human: a{long} d"})
        is not None
    )


def test_deliveries_have_formats_of_their_own_and_keep_margins(examined):
    rows = [{"prompt": "A?", "answers": [{"answer": text, "rank": i} for i, text in enumerate("bcd")]}]
    intake = examined(a_jsonl=lines(rows))
    assert (intake.rows, len(intake.accepted)) == (1, 3)
    assert sum(intake.accepted["weight"]) == pytest.approx(1)
    assert intake.remark == "read as ranking (prompt, answers)"


def test_garbage_is_quarantined_by_row_and_reason_and_the_rest_accepted(examined):
    content = lines(ROWS[:9]) + "\x00\x01 garbage\n"
    intake = examined(a_jsonl=content)
    assert len(intake.accepted) == 9
    assert [(bad.row, bad.reason, bad.content) for bad in intake.bad] == [(10, "no JSON", "\x00\x01 garbage")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "chosen": "b"}, "rejected is missing or null"),
        ({"prompt": None, "chosen": "b", "rejected": "c"}, "prompt is missing or null"),
        ({"prompt": "a", "chosen": "b", "rejected": "b "}, "chosen equals rejected"),
        ({"prompt": "a", "chosen": 1, "rejected": 2}, "chosen is neither text nor a list of turns"),
        ({"prompt": "a", "chosen": "\ud800", "rejected": "c"}, "chosen holds half a character"),
        (
            {"prompt": [{"role": ["x"], "content": "a"}], "chosen": "b", "rejected": "c"},
            "prompt has a turn whose role or content is no text",
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "source": "\ud800"},
            "source holds half a character",
        ),
        ([1, 2], "no object with columns"),
    ],
    ids=["missing", "null", "equal", "numbers", "half-character", "role", "source", "list"],
)
def test_a_bad_row_is_named_with_its_reason(examined, row, reason):
    [bad] = examined(a_jsonl=lines([*ROWS, row])).bad
    assert bad.row == 11
    assert bad.reason.startswith(reason)


def test_too_many_bad_rows_quarantine_the_delivery_whole(examined):
    content = lines(ROWS[:7]) + "garbage\n" * 3
    intake = examined(a_jsonl=content)
    assert intake.accepted is None
    assert intake.refusal.startswith("3 of 10 rows are bad (3 × no JSON)")
    assert len(examined(max_bad_share=0.3, a_jsonl=content).accepted) == 7


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_wrong_schema_is_quarantined_whole(examined, tmp_path, kind):
    rows = [{"question": "What is a lark?", "answer": "A songbird."}] * 5
    content = lines(rows)
    if kind == "parquet":
        pd.DataFrame(rows).to_parquet(tmp_path / "made")
        content = (tmp_path / "made").read_bytes()
    intake = examined(**{f"a_{kind}": content})
    assert intake.accepted is None
    assert (intake.rows, intake.bad) == (5, [])
    assert "no format reads the columns answer, question. Rename them to prompt" in intake.refusal


@pytest.mark.parametrize(
    ("kind", "limits", "said"),
    [
        ("jsonl.gz", {"bytes": 50_000}, "holds more than data.limits.bytes=50,000"),
        ("parquet", {"bytes": 50_000}, "holds more than data.limits.bytes=50,000"),
        ("json", {"rows": 9}, "holds more rows than data.limits.rows=9"),
        ("parquet", {"rows": 9}, "holds more rows than data.limits.rows=9"),
        ("csv", {"rows": 9}, "holds more rows than data.limits.rows=9"),
    ],
    ids=["lines", "table", "rows of an array", "rows of a table", "rows of a CSV"],
)
def test_a_delivery_that_holds_too_much_is_quarantined_whole(folder, write, kind, limits, said):
    rows = [row | {"chosen": row["chosen"] + " " * 2000} for row in ROWS * 5]
    made = Path(write(rows, f"made/a.{kind}"))
    [delivery], _ = folder(**{made.name.replace(".", "_"): made.read_bytes()})
    intake = examine(delivery, (), (), 0.2, limits=Limits(**limits))
    assert (intake.accepted, intake.refusal) == (None, f"it {said}")


@pytest.mark.parametrize("limits", [{"row_bytes": 1000}, {"characters": 1000}], ids=["row", "texts"])
def test_a_row_that_is_too_long_is_a_bad_one_and_the_rest_is_read(folder, limits):
    long = {"prompt": "a", "chosen": "b" * 3000, "rejected": "c"}
    [delivery], _ = folder(a_jsonl=lines([*ROWS[:5], long, *ROWS[5:]]))
    intake = examine(delivery, (), (), 0.2, limits=Limits(**limits))
    [bad] = intake.bad
    assert (bad.row, len(intake.accepted)) == (6, 10)
    assert f"longer than data.limits.{next(iter(limits))}=1,000" in bad.reason
    assert len(bad.content) <= 2000


@pytest.mark.timeout(20)
def test_a_file_that_is_too_large_is_left_without_reading_it(folder, tmp_path):
    (tmp_path / "a.jsonl").touch()
    os.truncate(tmp_path / "a.jsonl", 2**43)
    found, left = folder(b_jsonl=lines(ROWS))
    assert [delivery.name for delivery in found] == ["b.jsonl"]
    assert left == {"a.jsonl": "it is larger than data.limits.bytes=2,147,483,648"}


def test_many_pairs_of_one_row_are_no_more_than_rows_may_be(folder):
    answers = [{"answer": f"answer {i}", "rank": i} for i in range(20)]
    [delivery], _ = folder(a_jsonl=lines([{"prompt": "A?", "answers": answers}]))
    intake = examine(delivery, (), (), 0.2, limits=Limits(rows=100))
    assert intake.refusal == "it holds more pairs than data.limits.rows=100"
    intake = examine(delivery, (), (), 0.2, limits=Limits(bytes=1000))
    assert intake.refusal == "its pairs hold more than data.limits.bytes=1,000"


def test_of_many_bad_rows_the_first_are_kept_and_all_are_counted(examined):
    intake = examined(a_jsonl=lines(ROWS) + "garbage\n" * 5000)
    assert (len(intake.bad), intake.bad_rows) == (1000, 5000)
    assert intake.refusal.startswith("5,000 of 5,010 rows are bad")


def test_a_name_breaks_no_line_of_a_log(folder):
    [delivery], _ = folder(**{"a\nb\x1b_jsonl": lines(ROWS)})
    assert delivery.name == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}.jsonl"


def unfinished():
    whole = lines(ROWS).encode()
    return {
        "a_jsonl": (whole[:-20], "its last line is cut off"),
        "b_jsonl": (b"", "it holds no rows"),
        "a_jsonl_gz": (gzip.compress(whole)[:-12], "it cannot be read to its end"),
        "b_jsonl_gz": (b"no gzip", "it cannot be read to its end"),
        "a_parquet": (b"PAR1 but cut", "it cannot be read"),
        "b_parquet": (b"", "it is empty"),
        "a_csv": (b"prompt,chosen,rejected\na,b,c\na,b,on", "its last line does not end"),
    }


@pytest.mark.parametrize("name", unfinished())
def test_what_does_not_read_to_its_end_is_unfinished(examined, name):
    content, reason = unfinished()[name]
    with pytest.raises(UnfinishedError, match=reason):
        examined(**{name: content})


def test_a_last_line_without_newline_is_whole_if_it_reads(examined):
    assert len(examined(a_jsonl=lines(ROWS).rstrip("\n")).accepted) == 10


def test_a_file_that_changes_while_it_is_read_is_unfinished(folder, tmp_path):
    [delivery], _ = folder(a_jsonl=lines(ROWS[:5]))
    (tmp_path / "a.jsonl").write_text(lines(ROWS))
    with pytest.raises(UnfinishedError, match="changed while it was read"):
        examine(delivery, set(), set(), 0.2)


@given(st.lists(st.sampled_from([*ROWS, *map(exchanged, ROWS), {"prompt": "no responses"}]), min_size=1))
def test_every_row_is_accepted_or_a_duplicate_or_bad(rows):
    delivered = [dict.fromkeys(ROWS[0]) | row for row in rows]
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        Path(file.name).write_text(lines(delivered))
        delivery = Delivery("made", sha256_of(Path(file.name)), Path(file.name))
        intake = examine(delivery, set(), set(), max_bad_share=1)
    ids = intake.accepted["pair_id"][:] if intake.accepted else []
    assert len(ids) + intake.duplicates + len(intake.bad) == intake.rows == len(rows)
    assert len(set(ids)) == len(ids)
    for row in ROWS:
        assert not {id_of(row), id_of(exchanged(row))} <= set(ids)


def test_a_file_that_is_dated_far_ahead_is_no_file_that_is_being_written(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    os.utime(file, (5000, 5000))
    assert len(new_deliveries(IntakeConfig(source=str(tmp_path)), (), 1000)[0]) == 1
