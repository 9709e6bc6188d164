"""The pairs of a source on disk: a reading that was killed goes on at the part that it was at."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mars_core.data import pool, source_rows
from mars_core.data.pool import Pool
from mars_core.data.reading import FirstPlaces
from mars_core.data.source_rows import PairsError

NUMBER = 20


def row(n):
    return {"id": n, "prompt": f"Question {n}?", "chosen": f"Right {n}.", "rejected": f"Wrong {n}."}


@pytest.fixture
def killed_at(monkeypatch, tmp_path):
    """Reads a source in parts of 4 pairs until a row is reached: the pool as it is left."""
    monkeypatch.setattr(pool, "PART_ROWS", 4)
    monkeypatch.setattr("mars_core.data.reading.ROWS_AT_ONCE", 2)
    monkeypatch.setattr("mars_core.data.reading.FIRST_ROWS", 2)
    whole = source_rows.lines

    def read(source, number, **how):
        def lines(file):
            for line in whole(file):
                if line.row["id"] == number:
                    raise KeyboardInterrupt
                yield line

        with monkeypatch.context() as patched:
            patched.setattr(source_rows, "lines", lines)
            with pytest.raises(KeyboardInterrupt):
                Pool(source, tmp_path / "pool").read(**how)

    return read


@pytest.fixture
def parsed(monkeypatch):
    """Ids of the rows whose pairs are made from now on."""
    seen, made = [], pool.texts_key
    monkeypatch.setattr(
        pool, "texts_key", lambda prompt, *texts: (seen.append(prompt), made(prompt, *texts))[1]
    )
    return seen


def columns(read):
    return [value for batch in read.batches("pair_id") for value in batch[0].to_pylist()]


@pytest.mark.parametrize("killed", [1, 5, 11, 13, 19])
def test_a_reading_that_was_killed_goes_on_behind_its_last_whole_part(
    killed, write, tmp_path, killed_at, parsed
):
    folder = tmp_path / "source"
    for name, rows in (("a.jsonl", range(12)), ("b.jsonl", range(12, NUMBER))):
        write([row(n) for n in rows], f"source/{name}")
    at_once = Pool(str(folder), tmp_path / "at-once")
    at_once.read()
    killed_at(str(folder), killed)
    kept = len(list((tmp_path / "pool").glob("part-*.parquet")))
    parsed.clear()
    again = Pool(str(folder), tmp_path / "pool")
    again.read()
    assert columns(again) == columns(at_once) == [str(n) for n in range(NUMBER)]
    assert again.remarks == at_once.remarks
    assert len(parsed) <= NUMBER - 4 * max(0, kept - 1)


KILLED = """
import os, pathlib, signal, sys
from mars_core.data import pool, reading, source_rows

pool.PART_ROWS, reading.ROWS_AT_ONCE, reading.FIRST_ROWS, whole = 4, 2, 2, source_rows.lines

def lines(file):
    for line in whole(file):
        if line.row["id"] == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        yield line

source_rows.lines = lines
pool.Pool(sys.argv[1], pathlib.Path(sys.argv[2])).read()
"""


def test_a_process_that_was_killed_has_left_whole_parts_from_which_reading_goes_on(write, tmp_path, parsed):
    source = write([row(n) for n in range(NUMBER)])
    killed = subprocess.run([sys.executable, "-c", KILLED, source, tmp_path / "pool"], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    again = Pool(source, tmp_path / "pool")
    again.read()
    assert columns(again) == [str(n) for n in range(NUMBER)]
    assert parsed == [row(n)["prompt"] for n in range(12, NUMBER)]


def test_a_source_that_was_changed_and_put_back_is_read_anew(write, tmp_path, killed_at):
    right = [row(n) for n in range(NUMBER)]
    source = write([pair | {"chosen": "Another text."} for pair in right])
    killed_at(source, 13)
    write(right)
    again = Pool(source, tmp_path / "pool")
    again.read()
    chosen = [value for batch in again.batches("chosen") for value in batch[0].to_pylist()]
    assert chosen == [pair["chosen"] for pair in right]


def test_a_source_that_changes_between_two_parts_is_told(write, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "PART_ROWS", 4)
    monkeypatch.setattr("mars_core.data.reading.ROWS_AT_ONCE", 2)
    source = write([row(n) for n in range(NUMBER)])

    def touch(_):
        with Path(source).open("a") as file:
            file.write("\n")

    with pytest.raises(PairsError, match="changed while it was read"):
        Pool(source, tmp_path / "pool").read(on_rows=touch)


@pytest.mark.parametrize("content", [None, b"PAR1"], ids=["missing", "cut off"])
def test_a_part_that_is_not_as_it_was_written_is_read_again(content, write, tmp_path, killed_at):
    source = write([row(n) for n in range(NUMBER)])
    killed_at(source, 13)
    part = tmp_path / "pool/part-00001.parquet"
    part.unlink()
    if content:
        part.write_bytes(content)
    again = Pool(source, tmp_path / "pool")
    again.read()
    assert columns(again) == [str(n) for n in range(NUMBER)]


def test_what_was_left_out_before_the_kill_is_counted_once(write, tmp_path, killed_at):
    rows = [row(n) for n in range(NUMBER)]
    rows[2]["chosen"] = ""
    rows[17] = row(1)
    source = write(rows)
    killed_at(source, 12, invalid="drop")
    again = Pool(source, tmp_path / "pool")
    again.read(invalid="drop")
    assert sum(again.left_out.values()) == 2
    assert len(again) == NUMBER - 2


def test_an_id_from_before_the_kill_is_known_by_its_row(write, tmp_path, killed_at):
    source = write([row(n) for n in [*range(NUMBER), 1]])
    killed_at(source, 12)
    with pytest.raises(PairsError, match=r"row 21: duplicate id: '1', first in .*rows\.jsonl: row 2 "):
        Pool(source, tmp_path / "pool").read()


def test_rows_that_make_pairs_together_are_read_again_from_the_start_of_their_file(
    write, tmp_path, killed_at
):
    rows = [
        {"id": n, "prompt": f"Question {n // 2}?", "response": f"Answer {n}.", "score": n % 2}
        for n in range(NUMBER)
    ]
    source = write(rows)
    killed_at(source, 13)
    again = Pool(source, tmp_path / "pool")
    again.read()
    assert len(again) == NUMBER // 2


@pytest.mark.parametrize("longest", [1, 3, 2**18])
def test_the_first_place_of_a_key_is_found_whatever_the_length_of_runs(longest, monkeypatch):
    monkeypatch.setattr("mars_core.data.reading.LONGEST_RUN", longest)
    places = FirstPlaces()
    for start in range(0, 100, 7):
        places.add({(n * 7919) % 2**64: n for n in range(start, start + 7)})
    assert places.find([(n * 7919) % 2**64 for n in range(100)] + [5]).tolist() == [*range(100), -1]
