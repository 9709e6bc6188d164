"""Answers to requests, from the store if it has them, else from the backend: each is paid for once."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Generator as Resumable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

from mars_core.generation.backends.backend import Backend
from mars_core.generation.interface import Answer, Enough, GenerationError, Request
from mars_core.generation.store import GenerationStore

FEW_FAILURES = 5
"""So many failures never end a run: late calls are small, and one malformed answer is no trend."""
GIVE_UP_AFTER = 100
"""Failures after which a hopeless call ends early, instead of asking a dead server 100,000 times more."""
GIVE_UP_SECONDS = 600.0
"""A call is hopeless if only failures arrived for so long, whatever their share of the requests."""
FULL_BATCH = 64
"""Answers that are handled together, because judging texts one by one takes longer."""
Topic = TypeVar("Topic")
Arrived = tuple[Topic, Request, Answer]
"""An answer, with its request and the request's topic."""
SOME = 3
"""Number of missing requests that an error message shows."""


@dataclass
class GenerationCounts:
    """The cost of generation so far, up to date at any moment.

    `requests` = `sent` + `cached`. `sent` counts answered requests, `failed` the distinct ones among them
    that have no text yet, and `retries` the tries after a request's first. `seconds` is the wall-clock time
    spent in `converse`, including the time that the caller takes for replies.
    """

    requests: int = 0
    sent: int = 0
    cached: int = 0
    failed: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def metrics(self, section: str) -> dict[str, float]:
        """The counts as metrics of a section."""
        return {f"{section}/{name}": float(value) for name, value in asdict(self).items()}


class Generator:
    """A backend behind a store, or with `offline` the store alone. `counts` sums over all calls."""

    def __init__(
        self,
        backend: Backend,
        store: GenerationStore,
        max_failed_share: float = 0.05,
        *,
        offline: bool = False,
    ) -> None:
        self.backend = backend
        self.store = store
        self.max_failed_share = max_failed_share
        self.offline = offline
        self.counts = GenerationCounts()
        self.failures: dict[str, str] = {}
        """The errors of the requests that have no text, by key."""
        self._clock = 0.0

    def has(self, request: Request) -> bool:
        """Whether the store has the answer, as far as it was read."""
        return self.backend.key(request) in self.store

    def generate(
        self, requests: Sequence[Request], on_answer: Callable[[], object] | None = None
    ) -> list[Answer]:
        """Answer every request, in the order of the requests; see `converse`."""
        answers: dict[int, Answer] = {}

        def keep(arrived: Sequence[Arrived[int]]) -> Iterable[tuple[int, Request]]:
            answers.update((index, answer) for index, _, answer in arrived)
            return ()

        self.converse(enumerate(requests), keep, on_answer)
        return [answers[index] for index in range(len(requests))]

    def converse(
        self,
        requests: Iterable[tuple[Topic, Request]],
        reply: Callable[[Sequence[Arrived[Topic]]], Iterable[tuple[Topic, Request]]],
        on_answer: Callable[[], object] | None = None,
    ) -> None:
        """Answer requests, and those that follow from their answers, until there are no more.

        Only requests that the store lacks are sent, and identical requests once. An answer is stored before
        it is used. A failed request gives an answer with `error` and no texts; it is not stored, so that it
        is sent again when it is asked for again.

        Args:
            requests: the first requests, each with a topic of the caller's choice.
            reply: called with answers, their topics and requests as they arrive, stored ones first; returns
                the requests that follow from them. The fewer requests are in flight, the fewer answers it
                gets at once, so that servers do not wait for a batch to fill.
            on_answer: called once for every request that is answered.

        Raises:
            GenerationError: of all requests so far, stored ones included, more than `FEW_FAILURES` and more
                than `max_failed_share` failed, or all that were sent in the last `GIVE_UP_SECONDS` did (what
                succeeded is stored); or `offline` is set and the store lacks answers.
        """
        self._clock = time.monotonic()
        self.store.refresh()
        conversation = _Conversation(self, reply, on_answer or (lambda: None))
        try:
            conversation.ask(requests)
            self._send(conversation)
        finally:
            self._count_seconds()

    def _send(self, conversation: "_Conversation[Any]") -> None:
        """Ask the backend for the answers that the store lacks."""
        if not conversation.asked:
            return
        stream = self.backend.answers(conversation.asked)
        in_a_row, answered = 0, time.monotonic()
        hopeless = too_many = False
        try:
            for position, answer in stream:
                kept = self._keep(conversation.asked[position], answer)
                if answer.error is None or answer.refused:  # a request's own fault is a sign of life
                    in_a_row, answered = 0, time.monotonic()
                else:
                    in_a_row += 1
                hopeless = in_a_row >= GIVE_UP_AFTER and time.monotonic() - answered >= GIVE_UP_SECONDS
                too_many = self.counts.failed >= GIVE_UP_AFTER and self._too_many(conversation)
                if hopeless or too_many:
                    break
                conversation.arrived(kept)
        finally:
            for position, answer in _arrived(stream):
                self._keep(conversation.asked[position], answer)
        if hopeless or too_many or self._too_many(conversation):
            why = (
                f"nothing else for {GIVE_UP_SECONDS / 60:g} minutes"
                if hopeless
                else f"more than generation.max_failed_share = {self.max_failed_share:g} allows"
            )
            raise GenerationError(_explain_failed([*self.failures.values()], self.counts.requests, why))
        if conversation.waiting:
            raise GenerationError(
                f"{self.backend.name} ended with {len(conversation.waiting):,} requests unanswered: a "
                "backend must also answer requests that are added while its answers are read"
            )

    def _too_many(self, conversation: "_Conversation[Any]") -> bool:
        """Whether more requests failed than are allowed."""
        asked = self.counts.requests + len(conversation.waiting)
        return self.counts.failed > max(FEW_FAILURES, self.max_failed_share * asked)

    def _keep(self, request: Request, answer: Answer) -> Answer:
        """Count an answer, and store it unless it failed; returns the answer that is valid from now on."""
        self._count_seconds()
        self.counts.requests += 1
        self.counts.sent += 1
        self.counts.retries += answer.retries
        self.counts.prompt_tokens += answer.prompt_tokens
        self.counts.completion_tokens += answer.completion_tokens
        kept = answer
        if answer.error is None:
            kept = self.store.add(answer, request, self.backend.name)
            self.failures.pop(answer.key, None)
        else:
            self.failures[answer.key] = answer.error
        self.counts.failed = len(self.failures)
        return kept

    def afresh(self) -> "Generator":
        """A generator of the same backend and store that starts its counts at zero."""
        return Generator(self.backend, self.store, self.max_failed_share, offline=self.offline)

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.counts.seconds += now - self._clock
        self._clock = now

    def explain_missing(self, missing: Sequence[Request]) -> str:
        """An error message about what the store lacks."""
        roles = ", ".join(f"{n} × {role}" for role, n in Counter(request.role for request in missing).items())
        some = "\n  ".join(
            f"{request.role}, {request.n} samples, draw {request.draw}: {request.source[:80]!r}"
            for request in missing[:SOME]
        )
        return (
            f"generation.offline is set, and the store {self.store.folder} lacks the answers of "
            f"{self.backend.name} to {len(missing):,} requests ({roles}), such as\n  {some}\n"
            "Set generation.store to the folder that has them, or generation.offline to false"
        )


class _Conversation(Generic[Topic]):
    """The requests of one `Generator.converse`: those sent, those waiting, and those whose answer is
    unused."""

    def __init__(
        self,
        generator: Generator,
        reply: Callable[[Sequence[Arrived[Topic]]], Iterable[tuple[Topic, Request]]],
        on_answer: Callable[[], object],
    ) -> None:
        self.generator = generator
        self.reply = reply
        self.on_answer = on_answer
        self.asked: list[Request] = []
        """The requests that the backend gets; the list grows."""
        self.waiting: dict[str, list[tuple[Topic, Request]]] = {}
        """Key → the topics and requests that wait for its answer."""
        self.ready: list[Arrived[Topic]] = []
        """Answers that `reply` has not got yet."""

    def ask(self, requests: Iterable[tuple[Topic, Request]]) -> None:
        """Add requests; what follows from stored answers is asked at once.

        Raises:
            GenerationError: the generator is offline, and the store lacks answers.
        """
        generator = self.generator
        missing: list[Request] = []
        for topic, request in requests:
            key = generator.backend.key(request)
            if key in self.waiting:
                self.waiting[key].append((topic, request))
            elif stored := generator.store.get(key):
                generator.counts.requests += 1
                generator.counts.cached += 1
                self._take(topic, request, stored)
            else:
                self.waiting[key] = [(topic, request)]
                missing.append(request)
        if missing and generator.offline:
            raise GenerationError(generator.explain_missing(missing))
        self.asked += missing
        self._reply_where_due()

    def arrived(self, answer: Answer) -> None:
        """Handle an answer from the backend."""
        served = self.waiting.pop(answer.key)
        self.generator.counts.requests += len(served) - 1
        self.generator.counts.cached += len(served) - 1
        for topic, request in served:
            self._take(topic, request, replace(answer, messages=(), sampling={}))
        self._reply_where_due()

    def _take(self, topic: Topic, request: Request, answer: Answer) -> None:
        self.ready.append((topic, request, answer))
        self.on_answer()

    def _reply_where_due(self) -> None:
        """Hand over the answers if they fill a batch, or are many compared with the requests in flight."""
        while self.ready and len(self.ready) >= min(FULL_BATCH, len(self.waiting) // 16):
            batch, self.ready = self.ready, []
            self.ask(self.reply(batch))


def _arrived(stream: Iterator[tuple[int, Answer]]) -> Iterator[tuple[int, Answer]]:
    """End the requests in flight; yields the answers that had already arrived, which are paid for."""
    if isinstance(stream, Resumable):
        with suppress(Enough):
            yield stream.throw(Enough())
            yield from stream


def _explain_failed(failures: Sequence[str], requests: int, why: str) -> str:
    """Count failures by reason, which is the part of a message before its first colon."""
    reasons = Counter(message.partition(":")[0] for message in failures)
    counted = ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
    return (
        f"{len(failures):,} of {requests:,} requests failed, {why}: {counted}. The first said: "
        f"{failures[0]!r}. What succeeded is in the store: fix the cause and start again"
    )
