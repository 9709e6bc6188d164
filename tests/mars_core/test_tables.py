"""A table is the same whether it is one file or a folder of parts, and however its rows are divided."""

import json
import math
import random

import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from mars_core import tables
from mars_core.tables import ContentDigest, Table, TableError, write

FRAME = pd.DataFrame(
    {
        "pair_id": [f"p{n}" for n in range(500)],
        "prompt": ["Why?", None, "naïve\u2028text", "", "鳥"] * 100,
        "margin": [0.5, float("nan"), -1.0, 0.0, 2.0] * 100,
        "is_close": [True, False, True, None, False] * 100,
        "readout": [[1.0, 2.0], [], None, [3.0], [4.0, 5.0]] * 100,
    }
)


@pytest.fixture
def in_parts(monkeypatch):
    """Makes every 100 rows a part."""
    monkeypatch.setattr(tables, "PART_BYTES", 1)
    monkeypatch.setattr(tables, "GROUP_ROWS", 100)


def batches(rows):
    return pa.Table.from_pandas(FRAME, preserve_index=False).to_batches(rows)


def test_a_small_table_is_one_file_that_other_readers_read(tmp_path):
    assert write(tmp_path / "t.parquet", FRAME)[0] == 500
    assert (tmp_path / "t.parquet").is_file()
    assert pd.read_parquet(tmp_path / "t.parquet")["pair_id"].tolist() == FRAME["pair_id"].tolist()


def test_a_large_table_is_a_folder_of_parts_that_other_readers_read_in_order(tmp_path, in_parts):
    write(tmp_path / "t.parquet", batches(70))
    parts = sorted(file.name for file in (tmp_path / "t.parquet").glob("*.parquet"))
    assert len(parts) > 2
    assert [part.name for part in Table(tmp_path / "t.parquet").parts] == parts
    assert pd.read_parquet(tmp_path / "t.parquet")["pair_id"].tolist() == FRAME["pair_id"].tolist()
    assert list(tmp_path.iterdir()) == [tmp_path / "t.parquet"]


def test_the_digest_is_of_the_content_however_it_is_written(tmp_path, in_parts, monkeypatch):
    digests = {write(tmp_path / f"{rows}.parquet", batches(rows))[1] for rows in (7, 100, 499)}
    monkeypatch.undo()
    digests |= {write(tmp_path / "frame.parquet", FRAME)[1]}
    digests |= {write(tmp_path / "dataset.parquet", Dataset.from_pandas(FRAME, preserve_index=False))[1]}
    digests |= {Table(file).digest() for file in tmp_path.iterdir()}
    assert len(digests) == 1


@given(st.lists(st.lists(st.sampled_from([None, "", "a", "ab", "b"]), max_size=3), min_size=2, max_size=2))
def test_two_contents_have_two_digests(columns):
    def digest(values):
        content, batch = ContentDigest(), pa.record_batch({"text": pa.array(values, pa.string())})
        content.columns(batch.schema)
        content.update(batch)
        return content.hexdigest()

    assert (digest(columns[0]) == digest(columns[1])) == (columns[0] == columns[1])


def test_the_name_and_the_type_of_a_column_count(tmp_path):
    frames = [
        pd.DataFrame({name: pd.Series([1], dtype=kind)}) for name in "ab" for kind in ("int64", "int32")
    ]
    digests = {write(tmp_path / f"{n}.parquet", frame)[1] for n, frame in enumerate(frames)}
    assert len(digests) == 4


@pytest.mark.parametrize("rows", [[], [3], [0, 99, 100, 101, 499], [400, 2, 2, 150]], ids=str)
def test_some_rows_are_read_by_their_numbers_in_the_wanted_order(rows, tmp_path, in_parts):
    write(tmp_path / "t.parquet", batches(70))
    found = Table(tmp_path / "t.parquet").select(rows, "pair_id", "margin")
    assert found["pair_id"][:] == [f"p{row}" for row in rows]
    assert found.column_names == ["pair_id", "margin"]


@pytest.mark.parametrize("change", [list.reverse, list.pop], ids=["other order", "one less"])
def test_a_list_of_parts_that_was_changed_is_told(change, tmp_path, in_parts):
    write(tmp_path / "t.parquet", batches(70))
    file = tmp_path / "t.parquet" / tables.MANIFEST
    manifest = json.loads(file.read_text())
    change(manifest["parts"])
    file.write_text(json.dumps(manifest))
    with pytest.raises(TableError, match="was changed since it was written"):
        Table(tmp_path / "t.parquet").digest()


def test_a_table_is_one_file_where_that_is_asked_for(tmp_path, in_parts):
    write(tmp_path / "t.parquet", batches(70), part_bytes=math.inf)
    assert (tmp_path / "t.parquet").is_file()


@pytest.mark.parametrize("rows", [(0, 500), (0, 0), (95, 305), (250, 251), (100, 200)], ids=str)
def test_rows_from_one_number_up_to_another_are_read_in_order(rows, tmp_path, in_parts):
    write(tmp_path / "t.parquet", FRAME)
    some = Table(tmp_path / "t.parquet").between(*rows, "pair_id")
    found = [name for batch in some for name in batch["pair_id"].to_pylist()]
    assert found == [f"p{n}" for n in range(*rows)]


def test_rows_are_found_by_a_value(tmp_path, in_parts):
    write(tmp_path / "t.parquet", batches(70))
    found = Table(tmp_path / "t.parquet").where("pair_id", {"p499", "p7", "absent"}, "pair_id")
    assert found.to_pydict() == {"pair_id": ["p7", "p499"]}


def test_reading_holds_little_of_a_table_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "GROUP_ROWS", 100)
    texts = [random.Random(n).randbytes(500).hex() for n in range(5000)]  # they stay long when compressed
    rows = (pa.record_batch({"text": texts[start : start + 100]}) for start in range(0, 5000, 100))
    write(tmp_path / "t.parquet", rows)
    memory = pa.default_memory_pool()
    before = memory.bytes_allocated()
    most = max(memory.bytes_allocated() - before for _ in Table(tmp_path / "t.parquet").batches())
    assert most < (tmp_path / "t.parquet").stat().st_size / 5


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    write(tmp_path / "t.parquet", FRAME.iloc[:0])
    table = Table(tmp_path / "t.parquet")
    assert len(table) == len(table.read()) == 0
    assert table.columns == list(FRAME)


def test_a_part_that_is_missing_or_changed_is_named(tmp_path, in_parts):
    write(tmp_path / "t.parquet", batches(70))
    part = tmp_path / "t.parquet/part-00001.parquet"
    content = bytearray(part.read_bytes())
    content[100] ^= 1
    part.write_bytes(content)
    with pytest.raises(TableError, match=r"t\.parquet/part-00001\.parquet was changed"):
        Table(tmp_path / "t.parquet").digest()
    part.unlink()
    with pytest.raises(TableError, match=r"t\.parquet/part-00001\.parquet is missing"):
        Table(tmp_path / "t.parquet")
