"""Digests, and files that appear under their name only when they are whole."""

import errno
import os
import sys

import pytest

from mars_core.files import RememberedDigests, digest, write_whole


def test_what_was_there_stays_when_writing_fails_and_the_error_says_where(tmp_path):
    place = tmp_path / "table.parquet"
    place.write_text("before")

    def put(path):
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=rf"No space left on device: '{place}'"):
        write_whole(place, put)
    assert place.read_text() == "before"
    assert list(tmp_path.iterdir()) == [place]  # the half took room
    write_whole(place, lambda path: path.write_text("whole"))
    assert place.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [place]


def filled(text):
    def put(path):
        path.mkdir()
        (path / "file").write_text(text)

    return put


def test_a_folder_is_at_its_place_at_every_moment_of_its_replacement(tmp_path):
    place, gaps = tmp_path / "model", []
    write_whole(place, filled("before"))
    watching = True

    def watch(event, arguments):
        if watching and event == "os.rename" and not place.exists():
            gaps.append(arguments)

    sys.addaudithook(watch)
    write_whole(place, filled("after"))
    watching = False
    assert gaps == []
    assert (place / "file").read_text() == "after"
    assert list(tmp_path.iterdir()) == [place]


def test_a_folder_whose_replacement_was_killed_half_way_is_put_back_first(tmp_path):
    (tmp_path / ".model.replaced").mkdir()
    (tmp_path / ".model.replaced/file").write_text("before")

    def put(path):
        assert (tmp_path / "model/file").read_text() == "before"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "model", put)
    assert (tmp_path / "model/file").read_text() == "before"


def test_the_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1})


def test_the_digest_depends_on_the_order_of_values_and_on_where_one_ends():
    assert digest([1, 2]) != digest([2, 1])
    assert digest("a", "bc") != digest("ab", "c")


@pytest.fixture
def digests(tmp_path, monkeypatch):
    """Gives the digest of a file that is settled, or not, and how many were computed by now."""
    remembered, computed = RememberedDigests(tmp_path / "digests.sqlite"), []

    def content(path):
        computed.append(path)
        return path.read_text()

    def digest_of(path, seconds=-1):
        monkeypatch.setattr("mars_core.files.SETTLED_SECONDS", seconds)
        return remembered.of(path, content), len(computed)

    return digest_of


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "a"
    file.write_text("one")
    return file


def test_a_digest_is_computed_again_only_where_the_file_changed(file, digests):
    assert [digests(file), digests(file)] == [("one", 1)] * 2
    file.write_text("longer")
    assert [digests(file), digests(file)] == [("longer", 2)] * 2


def test_a_change_that_keeps_size_and_time_is_noticed(file, digests):
    digests(file)
    times = file.stat().st_mtime_ns
    file.write_text("two")
    os.utime(file, ns=(times, times))
    assert digests(file) == ("two", 2)


def test_a_file_that_may_still_change_at_the_same_time_is_not_trusted(file, digests):
    assert [digests(file, seconds=60), digests(file, seconds=60)] == [("one", 1), ("one", 2)]


def test_forgotten_digests_are_computed_again(tmp_path, file, digests):
    digests(file)
    RememberedDigests(tmp_path / "digests.sqlite").forget()
    assert digests(file) == ("one", 2)


def test_a_file_of_digests_that_cannot_be_read_costs_their_computation_alone(tmp_path, file, digests):
    (tmp_path / "digests.sqlite").write_bytes(b"damaged " * 1000)
    assert [digests(file), digests(file)] == [("one", 1), ("one", 2)]
