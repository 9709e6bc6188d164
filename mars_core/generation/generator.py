"""Answers to requests, each paid for once: from the store where it has them, from the backend otherwise."""

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
"""Failures that never end a run: late calls are small, and one malformed answer is no trend."""
GIVE_UP_AFTER = 100
"""Failures after which a hopeless call ends early: a dead server is not asked 100,000 times more."""
GIVE_UP_SECONDS = 600.0
"""How long nothing but failures came when a call is hopeless, whatever share of its requests they are."""
FULL_BATCH = 64
"""Answers that are replied to together, for to judge texts one by one takes longer."""
Topic = TypeVar("Topic")
Arrived = tuple[Topic, Request, Answer]
"""An answer, with its request and what that is about."""
SOME = 3
"""Missing requests that an error message shows."""


@dataclass
class GenerationCounts:
    """What generation has cost so far; true at any moment, also while requests are under way.

    `requests` = `sent` + `cached`. `sent` are answered requests, `failed` the different ones among them that
    have no text yet, however often they were sent; `retries` are tries beyond a request's first. `seconds` is
    wall-clock time spent in `converse`, judging included.
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
    """A backend behind a store; `offline`, the store alone. `counts` adds up over all calls."""

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
        """What the requests without a text failed of, by key."""
        self._clock = 0.0

    def has(self, request: Request) -> bool:
        """Whether the store has its answer, as far as the store was read."""
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
        """Answer requests, and those that their answers give rise to, until there are no more.

        Only what the store lacks is sent, identical requests once, and an answer is in the store before
        anything is made of it. A failed request gives an answer with `error` and no texts; it is not stored,
        so that it is sent again when it is asked for again.

        Args:
            requests: what to begin with, each with whatever says what it is about.
            reply: gets answers with their topics and requests as they come, stored ones first, and gives
                the requests that follow from them. So that the servers are never left without work for
                the sake of a full batch, it gets fewer at once the fewer are under way.
            on_answer: called once for every request that is answered.

        Raises:
            GenerationError: more than `FEW_FAILURES` and more than `max_failed_share` of all requests so
                far, stored ones included, failed, or for `GIVE_UP_SECONDS` every one that was sent did, and
                what succeeded is stored; or `offline`, and the store lacks some.
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
        """Ask the backend for what the store lacks."""
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
                "backend answers what is added to its requests while answers are taken as well"
            )

    def _too_many(self, conversation: "_Conversation[Any]") -> bool:
        """Whether more failed than may."""
        asked = self.counts.requests + len(conversation.waiting)
        return self.counts.failed > max(FEW_FAILURES, self.max_failed_share * asked)

    def _keep(self, request: Request, answer: Answer) -> Answer:
        """Count an answer, and store it if it is one; the answer that counts from now on."""
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
        """The same backend and store, with counts of its own."""
        return Generator(self.backend, self.store, self.max_failed_share, offline=self.offline)

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.counts.seconds += now - self._clock
        self._clock = now

    def explain_missing(self, missing: Sequence[Request]) -> str:
        """What the store lacks, as an error message says it."""
        roles = ", ".join(f"{n} × {role}" for role, n in Counter(request.role for request in missing).items())
        some = "\n  ".join(
            f"{request.role}, {request.n} samples, draw {request.draw}: {request.source[:80]!r}"
            for request in missing[:SOME]
        )
        return (
            f"generation.offline is set, and the store {self.store.folder} lacks the answers of "
            f"{self.backend.name} to {len(missing):,} requests ({roles}), such as\n  {some}\n"
            "Point generation.store to where they are, or let generation.offline be false"
        )


class _Conversation(Generic[Topic]):
    """The requests of one `Generator.converse`: what was asked, what waits, what is to be replied to."""

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
        """What the backend is asked, which grows."""
        self.waiting: dict[str, list[tuple[Topic, Request]]] = {}
        """Key → whom its answer serves."""
        self.ready: list[Arrived[Topic]] = []
        """Answers that were not replied to yet."""

    def ask(self, requests: Iterable[tuple[Topic, Request]]) -> None:
        """Take in requests; what follows from stored answers is asked at once.

        Raises:
            GenerationError: the generator is offline, and the store lacks some.
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
        """Take in an answer that was sent for."""
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
        """Reply to what is there when it is a batch, or much beside what is under way."""
        while self.ready and len(self.ready) >= min(FULL_BATCH, len(self.waiting) // 16):
            batch, self.ready = self.ready, []
            self.ask(self.reply(batch))


def _arrived(stream: Iterator[tuple[int, Answer]]) -> Iterator[tuple[int, Answer]]:
    """End what is under way; yields the answers that had arrived by then, which are paid for."""
    if isinstance(stream, Resumable):
        with suppress(Enough):
            yield stream.throw(Enough())
            yield from stream


def _explain_failed(failures: Sequence[str], requests: int, why: str) -> str:
    """Count failures by reason, which is what stands before a message's first colon."""
    reasons = Counter(message.partition(":")[0] for message in failures)
    counted = ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
    return (
        f"{len(failures):,} of {requests:,} requests failed, {why}: {counted}. The first said: "
        f"{failures[0]!r}. What succeeded is in the store: mend the cause and start again"
    )
