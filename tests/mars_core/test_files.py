"""Digests, and files that appear under their name only when they are whole."""

import errno
import os

import pytest

from mars_core.files import digest, write_whole


def test_what_was_there_stays_when_writing_fails_and_the_error_says_where(tmp_path):
    place = tmp_path / "table.parquet"
    place.write_text("before")

    def put(path):
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=rf"No space left on device: '{place}'"):
        write_whole(place, put)
    assert place.read_text() == "before"
    write_whole(place, lambda path: path.write_text("whole"))
    assert place.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [place]


def test_the_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1})


def test_the_digest_depends_on_the_order_of_values_and_on_where_one_ends():
    assert digest([1, 2]) != digest([2, 1])
    assert digest("a", "bc") != digest("ab", "c")
