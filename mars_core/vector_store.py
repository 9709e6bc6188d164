"""Vectors of texts by models that do not change, kept in a file that rounds, arms and seeds share.

Sentence embeddings are the same in every round of a run, and in every arm and seed of a comparison. So are
the features of a reward model while its scalar layer alone is trained. What one has computed, no other
computes again.
"""

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mars_core.errors import MarsError

PATIENCE_SECONDS = 600.0
"""How long one process waits for another that writes."""
TABLE = """CREATE TABLE IF NOT EXISTS vectors
           (model BLOB, text BLOB, vector BLOB, PRIMARY KEY (model, text)) WITHOUT ROWID"""


class VectorStoreError(MarsError, RuntimeError):
    """The file cannot be read or written; it names it."""


class VectorStore:
    """Vectors by what a text is called, of one model."""

    def __init__(self, file: Path, model: bytes) -> None:
        """Keep vectors in `file`, apart from those of other models; it is made where there is none."""
        self.file, self.model = file, model

    def find(self, texts: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors that are there, [d] each, by text."""
        with self._opened() as database:
            wanted = "SELECT vector FROM vectors WHERE model = ? AND text = ?"
            rows = ((text, database.execute(wanted, (self.model, text)).fetchone()) for text in texts)
            return {text: np.frombuffer(row[0], np.float32) for text, row in rows if row}

    def add(self, texts: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Keep the vectors of some texts, [texts, d]: all of them or, if the process dies, none."""
        rows = ((self.model, text, vector.tobytes()) for text, vector in zip(texts, vectors, strict=True))
        with self._opened() as database, database:
            database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", rows)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.file, timeout=PATIENCE_SECONDS)) as database:
                database.execute(TABLE)
                yield database
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file)) from error
            raise VectorStoreError(
                f"{self.file}: {error}; it holds nothing that cannot be computed again, so it may be removed"
            ) from error


def digest_of(weights: dict[str, torch.Tensor], *about: object) -> bytes:
    """A short name of weights, and of what else shapes vectors."""
    whole = hashlib.blake2b(repr(about).encode(), digest_size=16)
    for name, tensor in sorted(weights.items()):
        whole.update(name.encode())
        whole.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return whole.digest()
