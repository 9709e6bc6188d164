"""Features of texts under weights that do not change, kept in a file that rounds, arms and seeds share.

While the scalar layer alone is trained, a text's features are the same in every round of a run, and in every
arm and seed of a comparison: what one of them has computed, no other computes again.
"""

import hashlib
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
TABLE = """CREATE TABLE IF NOT EXISTS features
           (weights BLOB, text BLOB, vector BLOB, PRIMARY KEY (weights, text)) WITHOUT ROWID"""


class FeatureStoreError(MarsError, RuntimeError):
    """The file cannot be read or written; it names it."""


class FeatureStore:
    """Vectors by what a text is called, for one set of weights."""

    def __init__(self, file: Path, weights: bytes) -> None:
        """Keep features in `file`, apart from those of other weights; it is made where there is none."""
        self.file, self.weights = file, weights

    def find(self, texts: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The features that are there, [d] each, by text."""
        with self._opened() as database:
            wanted = "SELECT vector FROM features WHERE weights = ? AND text = ?"
            rows = ((text, database.execute(wanted, (self.weights, text)).fetchone()) for text in texts)
            return {text: np.frombuffer(row[0], np.float32) for text, row in rows if row}

    def add(self, texts: Sequence[bytes], features: NDArray[np.float32]) -> None:
        """Keep the features of some texts, [texts, d]: all of them or, if the process dies, none."""
        rows = ((self.weights, text, vector.tobytes()) for text, vector in zip(texts, features, strict=True))
        with self._opened() as database, database:
            database.executemany("INSERT OR IGNORE INTO features VALUES (?, ?, ?)", rows)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.file, timeout=PATIENCE_SECONDS)) as database:
                database.execute(TABLE)
                yield database
        except sqlite3.Error as error:
            raise FeatureStoreError(
                f"{self.file}: {error}; it holds nothing that cannot be computed again, so it may be removed"
            ) from error


def digest_of(weights: dict[str, torch.Tensor], *about: object) -> bytes:
    """A short name of weights, and of what else shapes features."""
    whole = hashlib.blake2b(repr(about).encode(), digest_size=16)
    for name, tensor in sorted(weights.items()):
        whole.update(name.encode())
        whole.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return whole.digest()
