"""Answers to requests, each paid for once: from the store where it has them, from the backend otherwise."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Generator as Resumable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from mars_core.generation.backends.backend import Backend
from mars_core.generation.interface import Answer, Enough, GenerationError, Request
from mars_core.generation.store import GenerationStore

FEW_FAILURES = 5
"""Failures that never end a run: late calls are small, and one malformed answer is no trend."""
GIVE_UP_AFTER = 100
"""Failures after which a hopeless call ends early: a dead server is not asked 100,000 times more."""
GIVE_UP_SECONDS = 600.0
"""How long nothing but failures came when a call is hopeless, whatever share of its requests they are."""
SOME = 3
"""Missing requests that an error message shows."""


@dataclass
class GenerationCounts:
    """What generation has cost so far; true at any moment, also while requests are under way.

    `requests` = `sent` + `cached`. `sent` are answered requests, `failed` the different ones among them that
    have no text yet, however often they were sent; `retries` are tries beyond a request's first. `seconds` is
    wall-clock time spent in `generate`.
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
        self, requests: Sequence[Request], on_answer: Callable[[int], None] | None = None
    ) -> list[Answer]:
        """Answer every request, in the order of the requests.

        Only what the store lacks is sent, identical requests once, and an answer is in the store
        the moment it arrives. A failed request gives an answer with `error` and no texts; it is not
        stored, so that the next call asks again. `on_answer` is called once a request with its
        index, as its answer is there: stored ones first, then as they come.

        Raises:
            GenerationError: more than `FEW_FAILURES` and more than `max_failed_share` of all requests so
                far, stored ones included, failed, or for `GIVE_UP_SECONDS` every one that was sent did, and
                what succeeded is stored; or `offline`, and the store lacks some.
        """
        self._clock = time.monotonic()
        self.store.refresh()
        done = on_answer or (lambda index: None)
        answers: dict[int, Answer] = {}
        missing: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            key = self.backend.key(request)
            if key in missing or (stored := self.store.get(key)) is None:
                missing.setdefault(key, []).append(index)
            else:
                answers[index] = stored
                done(index)
        if missing and self.offline:
            raise GenerationError(self._explain_missing([requests[same[0]] for same in missing.values()]))
        self.counts.requests += len(requests) - len(missing)
        self.counts.cached += len(requests) - len(missing)
        try:
            self._send(requests, list(missing.values()), answers, done)
        finally:
            self._count_seconds()
        return [answers[index] for index in range(len(requests))]

    def _send(
        self,
        requests: Sequence[Request],
        places: Sequence[Sequence[int]],
        answers: dict[int, Answer],
        done: Callable[[int], None],
    ) -> None:
        """Ask the backend; `places[i]` are the indices of requests that the i-th answer serves."""
        if not places:
            return
        allowed = max(FEW_FAILURES, self.max_failed_share * (self.counts.requests + len(places)))
        stream = self.backend.answers([requests[same[0]] for same in places])
        in_a_row, answered = 0, time.monotonic()
        hopeless = False
        try:
            for position, answer in stream:
                kept = self._keep(requests[places[position][0]], answer)
                for index in places[position]:
                    answers[index] = replace(kept, messages=(), sampling={})
                    done(index)
                if answer.error is None or answer.refused:  # a request's own fault is a sign of life
                    in_a_row, answered = 0, time.monotonic()
                else:
                    in_a_row += 1
                hopeless = in_a_row >= GIVE_UP_AFTER and time.monotonic() - answered >= GIVE_UP_SECONDS
                if hopeless or (self.counts.failed >= GIVE_UP_AFTER and self.counts.failed > allowed):
                    break
        finally:
            for position, answer in _arrived(stream):
                self._keep(requests[places[position][0]], answer)
        if hopeless or self.counts.failed > allowed:
            why = (
                f"nothing else for {GIVE_UP_SECONDS / 60:g} minutes"
                if hopeless
                else f"more than generation.max_failed_share = {self.max_failed_share:g} allows"
            )
            raise GenerationError(_explain_failed([*self.failures.values()], self.counts.requests, why))

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

    def _explain_missing(self, missing: Sequence[Request]) -> str:
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
