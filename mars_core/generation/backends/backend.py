"""The interface that every backend keeps: who writes the texts.

    generation: {backend: vllm, model: Qwen/Qwen3-8B, options: {base_url: "http://127.0.0.1:8000/v1"}}

A backend knows how texts are made; it knows nothing of budgets, distances or files. Everything that shapes an
answer is part of its key, so that an answer got once is never paid for again.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from mars_core.extensions import ExtensionPoint, Plugin
from mars_core.generation.interface import Answer, Request

Capability = Literal["chat", "seq2seq", "server"]
"""`chat`: answers a dialogue, and follows instructions. `seq2seq`: paraphrases without any. `server`: asks a
server, which a run can launch."""


class Backend(Plugin):
    """A source of generated texts; made of the whole section `generation`, whose `options` are its own
    keys."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset()
    """What it can do; none of these for one that is no language model."""
    needs_model: ClassVar[bool] = False
    """Whether a language model writes the texts, which `generation.model` must name."""
    free: ClassVar[bool] = False
    """Whether texts cost next to nothing; else stored ones are used even where fewer would do."""

    @property
    def name(self) -> str:
        """What a synthetic pair's `generator` column says, such as `rules` or `vllm:Qwen/Qwen3-8B`."""
        return str(self.config.generator)

    @abstractmethod
    def key(self, request: Request) -> str:
        """Digest of everything that shapes the answer: model, role, messages, sampling, n and draw."""

    @abstractmethod
    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield (index of the request, its answer) as each completes, in any order.

        `requests` may grow while answers are taken: what is appended before the next answer is asked for is
        answered as well, and the iterator ends when everything is. Closing it ends what is under way and
        closes all connections; so does throwing `Enough` into a generator, which may then yield answers that
        had arrived. A request that fails yields an answer with `error`.

        Raises:
            GenerationError: no request can succeed, such as when no server answers at the address.
        """

    def close(self) -> None:
        """Free what it holds, such as a model in memory; by default it holds nothing."""

    @classmethod
    def of_launched(cls, config: Any, address: str, api_key: str) -> "Backend":
        """The backend that asks a server which the run has launched; for `server` alone.

        Args:
            config: the section `generation`.
            address: where the server is, as `http://127.0.0.1:40001`.
            api_key: what it asks for.
        """
        raise TypeError(f"{cls.__name__} asks no server")


BACKENDS: ExtensionPoint[Backend] = ExtensionPoint("generator backend", Backend)  # type: ignore[type-abstract]
