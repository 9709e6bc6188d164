"""A compute backend: where the texts of a run are scored.

    compute: {backend: local}

Scoring is a specification, as a fit is: a backend runs it and leaves its results in a folder. Keys of
`compute` are operational: results are the same wherever they come from.
"""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from mars_core.extensions import ExtensionPoint, Plugin, PluginSection
from mars_core.method.semantics import EmbedSpec
from mars_core.model.scoring import ScoreSpec

OnScored = Callable[[int], None]
"""Called with the number of texts, or of pairs to embed, that are done since its last call."""


class Compute(Plugin):
    """A place where texts are scored."""

    def check(self, folder: Path) -> None:
        """Check that the backend can work for a run in `folder`, before anything is computed.

        Raises:
            MarsError: it cannot; the message says why and what to do.
        """

    def embed(self, spec: EmbedSpec, on_embedded: OnScored) -> None:
        """Compute sentence embeddings into the file that `spec` names.

        By default nothing is computed: whoever needs an embedding computes it then, in this process.

        Raises:
            ModelError: the embedder cannot be loaded.
        """

    def release(self) -> None:
        """Give back what is kept for the next specification, such as GPUs, to other work on the same nodes.

        By default nothing is kept.
        """

    @abstractmethod
    def run(self, spec: ScoreSpec, on_scored: OnScored) -> None:
        """Score the pairs and the texts of `spec`, and write what `mars_core.model.scoring` says into
        `spec.output`.

        Raises:
            ModelError: the model cannot be loaded.
            OutOfMemoryError: one text alone does not fit into memory.
        """


COMPUTES: ExtensionPoint[Compute] = ExtensionPoint("compute backend", Compute)  # type: ignore[type-abstract]


class ComputeConfig(PluginSection):
    """Where texts are scored; the backend's own keys stand beside its name."""

    backend: Annotated[str, COMPUTES] = "local"
    """`local` is this process. Or module:attribute of your own class."""

    def open(self) -> Compute:
        """The backend with its keys."""
        compute: Compute = super().open()
        return compute
