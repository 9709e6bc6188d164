"""The interface of a generator backend, which writes the texts.

    generation: {backend: vllm, model: Qwen/Qwen3-8B, options: {base_url: "http://127.0.0.1:8000/v1"}}

A backend knows how texts are made, but nothing of budgets, distances or files. Everything that shapes an
answer is part of its key, so that no answer is paid for twice.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from mars_core.extensions import ExtensionPoint, Plugin
from mars_core.generation.interface import Answer, Request

Capability = Literal["chat", "seq2seq", "server"]
"""`chat`: answers a dialogue, and follows instructions. `seq2seq`: paraphrases, without instructions.
`server`: asks a server, which a run can launch."""


class Backend(Plugin):
    """A source of generated texts; it gets the whole section `generation`, where `options` are its own
    keys."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset()
    """What it can do; empty for a backend that is no language model."""
    needs_model: ClassVar[bool] = False
    """Whether a language model writes the texts, which `generation.model` must name."""
    free: ClassVar[bool] = False
    """Whether texts cost next to nothing; if not, stored texts are used even if they are more than asked
    for."""

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

        `requests` may grow while answers are read: a request that is appended before the next answer is read
        is answered too, and the iterator ends when all are answered. Closing the iterator ends the requests
        in flight and closes all connections; so does throwing `Enough` into a generator, which may then yield
        the answers that had arrived. A request that fails yields an answer with `error`.

        Raises:
            GenerationError: no request can succeed, such as when no server answers at the address.
        """

    def check(self) -> None:
        """Find what would fail every request, before a run computes anything.

        By default what a call without requests finds.

        Raises:
            GenerationError: there is such a thing; says what to do.
        """
        for _ in self.answers([]):
            pass

    def close(self) -> None:
        """Release resources, such as a model in memory; by default there are none."""

    @classmethod
    def of_launched(
        cls, config: Any, addresses: Sequence[str], api_key: str, replaced_within: float = 0.0
    ) -> "Backend":
        """The backend that asks servers which the run has launched; only for the capability `server`.

        Args:
            config: the section `generation`.
            addresses: where the servers are, such as `http://127.0.0.1:40001`.
            api_key: the key that they ask for.
            replaced_within: seconds in which a server that has ended gets a successor.
        """
        raise TypeError(f"{cls.__name__} asks no server")

    def reach(self, addresses: Sequence[str]) -> None:
        """Ask the servers at these addresses from now on, in the middle of a call too; none means that none
        will come."""
        raise TypeError(f"{type(self).__name__} asks no server")


BACKENDS: ExtensionPoint[Backend] = ExtensionPoint("generator backend", Backend)  # type: ignore[type-abstract]
