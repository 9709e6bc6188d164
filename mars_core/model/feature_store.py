"""Features of texts from a network that does not change, kept in a file and looked up by the texts.

The rendering of a text is kept under the text, and its features under its tokens. So a known text is not
tokenised again, which takes far longer than looking it up, and texts with the same tokens have the same
features.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mars_core.model.rendering import Renderer, Rendering, text_name, tokens_name
from mars_core.model.vector_store import VectorStore


class Features(NamedTuple):
    """The inputs of the scalar layer, for n texts that are m distinct sequences of tokens."""

    distinct: NDArray[np.float32]
    """[m, d]."""
    rows: NDArray[np.intp]
    """[n] the row of `distinct` that each text has."""
    tokens: NDArray[np.int64]
    """[n]."""
    prompts_cut: NDArray[np.int64]
    """[n] 1 where a text lost the beginning of its prompt to the limit of tokens."""
    responses_cut: NDArray[np.int64]
    """[n] 1 where it lost the end of its response to it."""


class FeatureStore:
    """The features that one network gives to texts, rendered in one way."""

    def __init__(self, file: Path, network: bytes, renderer: Renderer) -> None:
        """Keep features in `file`, separate from those of other networks; `network` names its weights."""
        self.file, self.renderer = file, renderer
        self._renderings = VectorStore(file, renderer.identity, np.uint32)
        self._features = VectorStore(file, network)

    def has(self, prompts: Sequence[str], responses: Sequence[str]) -> bool:
        """Whether it keeps the features of all of some aligned prompts and responses."""
        names = {text_name(*text) for text in zip(prompts, responses, strict=True)}
        records = self._renderings.find(list(names))
        if len(records) < len(names):
            return False
        digests = {record[:_DIGEST].tobytes() for record in records.values()}
        return len(self._features.find(list(digests))) == len(digests)

    def take_in(self, other: Path) -> None:
        """Keep what another store's file has."""
        self._features.take_in(other)

    def complete(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        compute: Callable[[Rendering], NDArray[np.float32]],
    ) -> Features:
        """The features of aligned prompts and responses; missing ones are computed, and kept.

        Args:
            prompts: [n], at least one.
            responses: [n].
            compute: maps the renderings of some distinct sequences of tokens to their features.
        """

        def render(texts: NDArray[np.intp]) -> Rendering:
            return self.renderer.render([prompts[i] for i in texts], [responses[i] for i in texts])

        new: dict[int, int] = {}
        rendering = Rendering([], [], [], [])

        def record(missing: list[int]) -> NDArray[np.uint32]:
            nonlocal rendering
            new.update({text: place for place, text in enumerate(texts[missing].tolist())})
            rendering = render(texts[missing])
            return _records(rendering)

        def compute_features(missing: list[int]) -> NDArray[np.float32]:
            wanted = texts[missing].tolist()
            if new.keys() >= set(wanted):
                return compute(rendering.only([new[text] for text in wanted]))
            return compute(render(texts[missing]))

        names = [text_name(*text) for text in zip(prompts, responses, strict=True)]
        texts, rows = _distinct(names)
        records = self._renderings.complete([names[text] for text in texts], record)[rows]
        digests = [digest.tobytes() for digest in records[:, :_DIGEST]]
        texts, rows = _distinct(digests)
        features = self._features.complete([digests[text] for text in texts], compute_features)
        return Features(features, rows, *records[:, _DIGEST:].astype(np.int64).T)


def features_of(rendering: Rendering, compute: Callable[[Rendering], NDArray[np.float32]]) -> Features:
    """The features of rendered texts, without a store."""
    records = _records(rendering)
    texts, rows = _distinct([digest.tobytes() for digest in records[:, :_DIGEST]])
    return Features(compute(rendering.only(texts.tolist())), rows, *records[:, _DIGEST:].astype(np.int64).T)


_DIGEST = 4
"""Numbers of a record that hold the digest of a text's tokens; their number and the two cuts follow."""


def _records(rendering: Rendering) -> NDArray[np.uint32]:
    """The stored record of each text, [n, _DIGEST + 3]."""
    digests = [np.frombuffer(tokens_name(ids), np.uint32) for ids in rendering.ids]
    counts = np.array([[len(ids) for ids in rendering.ids], rendering.prompt_cut, rendering.response_cut])
    return np.column_stack([np.reshape(digests, (-1, _DIGEST)), counts.T]).astype(np.uint32)


def _distinct(names: Sequence[bytes]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first place of each distinct name, [m], and for each name its place among them, [n]."""
    rows, _ = pd.factorize(np.array(names, dtype=object))
    return np.unique(rows, return_index=True)[1], rows
