"""Vectors of texts from models that do not change, kept in a file that rounds, arms and seeds share.

Sentence embeddings are the same in every round of a run, and in every arm and seed of a comparison. So are
the features of a reward model whose scalar layer alone is trained, and the renderings of a tokenizer. So each
of them is computed once.
"""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from mars_core.errors import MarsError

TABLE = """CREATE TABLE IF NOT EXISTS vectors
           (model BLOB, text BLOB, vector BLOB, PRIMARY KEY (model, text))"""
BUSY_SECONDS = 60.0
"""How long to wait for another process that writes."""
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class VectorStoreError(MarsError, RuntimeError):
    """The file cannot be read or written; the message names it."""


class VectorStore:
    """The vectors of one model, by the names of texts."""

    def __init__(self, file: Path, model: bytes, dtype: type[np.generic] = np.float32) -> None:
        """Keep vectors in `file`, separate from those of other models; the file is made if there is none."""
        self.file, self.model, self.dtype = file, model, dtype

    def complete(self, texts: Sequence[bytes], compute: Callable[[list[int]], NDArray[Any]]) -> NDArray[Any]:
        """The vectors of distinct texts, [n, d]; missing ones are computed, and kept.

        Only one process at a time computes for a model, so that no two compute the same text; a call that
        finds all its texts does not wait. A call that is killed keeps nothing of what it has computed.

        Args:
            texts: [n] names of texts; at least one.
            compute: maps the indices of some of them to their vectors.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        found = self.find(texts)
        if len(found) < len(texts):
            with FileLock(self.file.with_suffix(f".{self.model.hex()[-16:]}.lock")):
                found = self.find(texts)
                missing = [number for number, text in enumerate(texts) if text not in found]
                if missing:
                    names = [texts[number] for number in missing]
                    computed = compute(missing)
                    self.add(names, computed)
                    found |= zip(names, computed, strict=True)
        return np.stack([found[text] for text in texts])

    def take_in(self, other: Path) -> None:
        """Keep all vectors, of any model, that another file has."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self._opened() as database:
            database.execute("ATTACH ? AS other", (str(other),))
            with database:
                database.execute("INSERT OR IGNORE INTO vectors SELECT * FROM other.vectors")

    def find(self, texts: Sequence[bytes]) -> dict[bytes, NDArray[Any]]:
        """The vectors that are kept, by the names of their texts."""
        with self._opened() as database:
            wanted = "SELECT vector FROM vectors WHERE model = ? AND text = ?"
            rows = ((text, database.execute(wanted, (self.model, text)).fetchone()) for text in texts)
            return {text: np.frombuffer(row[0], self.dtype) for text, row in rows if row}

    def add(self, texts: Sequence[bytes], vectors: NDArray[Any]) -> None:
        """Keep the vectors, [n, d], of some texts; one that another process has kept meanwhile stays."""
        rows = ((self.model, text, vector.tobytes()) for text, vector in zip(texts, vectors, strict=True))
        with self._opened() as database, database:
            database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", rows)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.file, timeout=BUSY_SECONDS)) as database:
                database.execute(TABLE)
                yield database
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file)) from error
            advice = "; remove the file: all that it holds can be computed again" if code in DAMAGED else ""
            raise VectorStoreError(f"{self.file}: {error}{advice}") from error
