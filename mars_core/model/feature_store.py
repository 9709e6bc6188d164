"""Features of texts by a network that does not change, kept in a file and found by the texts themselves.

How a text is rendered is kept by the text, its features by its tokens. So a text that is known is not
tokenised again, which takes far longer than finding it; and texts that differ in nothing but what the
tokenizer drops have the same features, wherever and whenever they are computed.
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
    """What enters the scalar layer, of n texts that are m distinct sequences of tokens."""

    distinct: NDArray[np.float32]
    """[m, d]."""
    rows: NDArray[np.intp]
    """[n] which of these each text has."""
    tokens: NDArray[np.int64]
    """[n]."""
    prompts_cut: NDArray[np.int64]
    """[n] 1 where a text lost the beginning of its prompt to the limit of tokens."""
    responses_cut: NDArray[np.int64]
    """[n] 1 where it lost the end of its response to it."""


class FeatureStore:
    """The features of texts that one network gives, rendered in one way."""

    def __init__(self, file: Path, network: bytes, renderer: Renderer) -> None:
        """Keep them in `file`, apart from those of other networks; `network` names its weights."""
        self.file, self.renderer = file, renderer
        self._renderings = VectorStore(file, renderer.identity, np.uint32)
        self._features = VectorStore(file, network)

    def complete(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        compute: Callable[[Rendering], NDArray[np.float32]],
    ) -> Features:
        """The features of aligned prompts and responses; those that are not there are computed, and kept.

        Args:
            prompts: [n], at least one.
            responses: [n].
            compute: from the renderings of some distinct sequences of tokens to their features.
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
    """The features of rendered texts, all computed."""
    records = _records(rendering)
    texts, rows = _distinct([digest.tobytes() for digest in records[:, :_DIGEST]])
    return Features(compute(rendering.only(texts.tolist())), rows, *records[:, _DIGEST:].astype(np.int64).T)


_DIGEST = 4
"""Numbers that hold the digest of a text's tokens; behind it come how many these are, and the two cuts."""


def _records(rendering: Rendering) -> NDArray[np.uint32]:
    """What is kept of each text, [n, _DIGEST + 3]."""
    digests = [np.frombuffer(tokens_name(ids), np.uint32) for ids in rendering.ids]
    counts = np.array([[len(ids) for ids in rendering.ids], rendering.prompt_cut, rendering.response_cut])
    return np.column_stack([np.reshape(digests, (-1, _DIGEST)), counts.T]).astype(np.uint32)


def _distinct(names: Sequence[bytes]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each distinct name is first, [m], and which of these each name is, [n]."""
    rows, _ = pd.factorize(np.array(names, dtype=object))
    return np.unique(rows, return_index=True)[1], rows
