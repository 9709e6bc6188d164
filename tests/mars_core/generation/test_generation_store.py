import contextlib
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from random import Random

import pytest

from mars_core.generation import Answer, GenerationStore, Request

REQUEST = Request("paraphrase_chosen", "What is a lark?", "A small songbird.", "A fish.", n=2)


def answer(key: str, *texts: str) -> Answer:
    return Answer(
        key,
        texts or (f"text of {key}",),
        ("stop",) * (len(texts) or 1),
        11,
        7,
        0.25,
        messages=({"role": "user"},),
    )


def test_an_added_answer_is_read_back_equal_and_with_what_was_asked(tmp_path):
    added = answer("k", "A little songbird.", "One lone surrogate \ud800, a line\u2028separator\nand an é.")
    with GenerationStore(tmp_path) as store:
        assert store.get("k") is None
        store.add(added, REQUEST, "vllm:m")
        assert store.get("k") == added
        assert "k" in store
    with GenerationStore(tmp_path) as store:
        assert store.get("k") == added
        record = store.find("k")
    assert record["messages"] == [{"role": "user"}]
    assert (record["role"], record["generator"]) == ("paraphrase_chosen", "vllm:m")
    assert record["created"].endswith("+00:00")


def test_the_first_answer_to_a_key_stays(tmp_path):
    with GenerationStore(tmp_path) as store:
        store.add(answer("k", "first"), REQUEST, "rules")
        store.add(answer("k", "second"), REQUEST, "rules")
        assert store.get("k").texts == ("first",)
        assert len(store) == 1


def test_who_buys_a_text_that_another_has_bought_meanwhile_goes_on_with_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("mars_core.generation.store.LOOK_SECONDS", 0.0)
    with GenerationStore(tmp_path) as one, GenerationStore(tmp_path) as other:
        assert one.add(answer("k", "first"), REQUEST, "vllm:m").texts == ("first",)
        assert other.add(answer("k", "second"), REQUEST, "vllm:m").texts == ("first",)
    with GenerationStore(tmp_path) as store:
        assert store.get("k").texts == ("first",)
    assert sum(len(segment.read_text().splitlines()) for segment in tmp_path.glob("*.jsonl")) == 1


def test_a_failed_answer_is_refused(tmp_path):
    failed = Answer("k", (), (), 0, 0, 0.0, error="HTTP 400: no")
    with GenerationStore(tmp_path) as store, pytest.raises(ValueError, match="HTTP 400"):
        store.add(failed, REQUEST, "vllm:m")


def test_a_key_that_is_not_there_is_named(tmp_path):
    with GenerationStore(tmp_path) as store, pytest.raises(KeyError, match="absent"):
        store.find("absent")


@pytest.mark.parametrize("torn", [b'{"key": "b", "te', b'{"key": "b", "texts"\n', b"\x00" * 64])
def test_a_torn_last_line_is_skipped_and_logged(tmp_path, caplog, torn):
    with GenerationStore(tmp_path) as store:
        store.add(answer("a"), REQUEST, "rules")
    (segment,) = tmp_path.iterdir()
    with segment.open("ab") as file:
        file.write(torn)
    with caplog.at_level(logging.WARNING), GenerationStore(tmp_path) as store:
        assert "a" in store
        assert "b" not in store
        store.refresh()
        store.add(answer("b"), REQUEST, "rules")
    assert [record.getMessage().count("last line 2") for record in caplog.records] == [1]
    with GenerationStore(tmp_path) as store:
        assert store.get("b") == answer("b")


def test_a_line_that_another_process_is_just_writing_is_no_damage(tmp_path):
    with GenerationStore(tmp_path) as store, GenerationStore(tmp_path) as other:
        store.add(answer("a"), REQUEST, "rules")
        (segment,) = tmp_path.iterdir()
        line = segment.read_bytes().replace(b'"a"', b'"b"')
        with segment.open("ab") as file:
            file.write(line[:20])
        other.refresh()
        with segment.open("ab") as file:
            file.write(line[20:])
        other.refresh()
        assert other.get("b").key == "b"


def test_a_broken_line_before_others_is_an_error_that_names_file_and_line(tmp_path):
    with GenerationStore(tmp_path) as store:
        for key in "abc":
            store.add(answer(key), REQUEST, "rules")
    (segment,) = tmp_path.iterdir()
    lines = segment.read_text().splitlines(keepends=True)
    segment.write_text(lines[0] + lines[1][:20] + "\n" + lines[2])
    with pytest.raises(ValueError, match=rf"{segment.name}, line 2: "):
        GenerationStore(tmp_path)


def test_a_line_that_is_json_but_no_record_is_broken_too(tmp_path):
    (tmp_path / "a.jsonl").write_text('["key"]\n' + json.dumps({"key": "k", "texts": []}) + "\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: .*no record"):
        GenerationStore(tmp_path)


def test_two_open_stores_write_side_by_side_and_see_each_other_after_a_refresh(tmp_path):
    with GenerationStore(tmp_path) as one, GenerationStore(tmp_path) as other:
        for number in range(5):
            one.add(answer(f"one {number}"), REQUEST, "rules")
            other.add(answer(f"other {number}"), REQUEST, "rules")
        assert "other 3" not in one
        one.refresh()
        assert one.get("other 3") == answer("other 3")
        other.add(answer("other 5"), REQUEST, "rules")
        one.refresh()
        assert len(one) == 11
    assert len(list(tmp_path.iterdir())) == 2


def test_a_line_that_another_process_has_half_written_is_read_once_it_is_whole(tmp_path):
    line = json.dumps({"key": "k", "texts": ["t"]}) + "\n"
    segment = tmp_path / "other.jsonl"
    segment.write_text(line[:15])
    with GenerationStore(tmp_path) as store:
        assert "k" not in store
        segment.write_text(line)
        store.refresh()
        assert store.find("k")["texts"] == ["t"]


def test_reading_alone_leaves_no_file_behind(tmp_path):
    GenerationStore(tmp_path / "new").close()
    assert list((tmp_path / "new").iterdir()) == []


def write_until_ended(folder, acknowledge):
    """Add answers of several pages each; every key is acknowledged once its answer is added.

    It ends by itself at last: Python drops an interrupt that falls into a destructor.
    """
    with GenerationStore(folder) as store:
        for number in range(1000):
            store.add(answer(f"{os.getpid()} {number}", "x" * 20_000), REQUEST, "rules")
            acknowledge.send(f"{os.getpid()} {number}")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_writer_that_is_ended_at_any_moment_leaves_a_store_that_loads_with_all_it_added(tmp_path, end):
    fork = multiprocessing.get_context("fork")
    random, added = Random(0), []
    for _ in range(20):
        heard, acknowledge = fork.Pipe(duplex=False)
        writer = fork.Process(target=write_until_ended, args=(tmp_path, acknowledge))
        writer.start()
        acknowledge.close()
        added.append(heard.recv())
        time.sleep(random.uniform(0, 0.01))
        os.kill(writer.pid, end)
        with contextlib.suppress(EOFError):
            while True:
                added.append(heard.recv())
        writer.join()
    with GenerationStore(tmp_path) as store:
        assert all(store.get(key).texts == ("x" * 20_000,) for key in added)
        assert len(added) <= len(store) <= len(added) + 20


FILL_THE_DISK = """
import resource, sys
from pathlib import Path
from mars_core.generation import Answer, GenerationStore, Request
request = Request("paraphrase_chosen", "p", "c", "r", n=1)
answer = lambda key: Answer(key, ("x" * 1000,), ("stop",), 1, 1, 0.1)
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
with GenerationStore(Path(sys.argv[1])) as store:
    store.add(answer("before"), request, "rules")
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, unlimited[1]))
    try:
        store.add(answer("cut"), request, "rules")
    except OSError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    store.add(answer("after"), request, "rules")
"""


def test_a_write_that_failed_half_way_does_not_spoil_what_follows(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "only a part of a record could be written" in done.stdout
    with GenerationStore(tmp_path) as store:
        assert ("before" in store, "cut" in store, "after" in store) == (True, False, True)
