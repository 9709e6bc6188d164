"""Files that appear under their name only when they are whole."""

import errno
import os

import pytest

from mars_core.whole_files import write_whole


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
