"""Answers to requests, each paid for once: from the store where it has them, from the backend otherwise."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Generator as Resumable
from dataclasses import dataclass, replace

from mars_core.generation.interface import Answer, Backend, GenerationError, Request
from mars_core.generation.store import GenerationStore

FEW_FAILURES = 5
"""Failures that never end a run: late calls are small, and one malformed answer is no trend."""
GIVE_UP_AFTER = 100
"""Failures after which a hopeless call ends early: a dead server is not asked 100,000 times more."""


@dataclass
class GenerationCounts:
    """What generation has cost so far; `requests` = `sent` + `cached`, `seconds` is wall-clock time."""

    requests: int = 0
    sent: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


class Generator:
    """A backend behind a store. `counts` adds up over all calls."""

    def __init__(self, backend: Backend, store: GenerationStore, max_failed_share: float = 0.05) -> None:
        self.backend = backend
        self.store = store
        self.max_failed_share = max_failed_share
        self.counts = GenerationCounts()
        self.failures: list[str] = []

    def generate(
        self, requests: Sequence[Request], on_answer: Callable[[int], None] | None = None
    ) -> list[Answer]:
        """Answer every request, in the order of the requests.

        Only what the store lacks is sent, identical requests once, and an answer is in the store
        the moment it arrives. A failed request gives an answer with `error` and no texts; it is not
        stored, so that the next call asks again. `on_answer` is called once a request with its
        index, as its answer is there: stored ones first, then as they come.

        Raises:
            GenerationError: more than `FEW_FAILURES` and more than `max_failed_share` of all requests
                sent so far failed. What succeeded is stored.
        """
        started = time.monotonic()
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
        self.counts.requests += len(requests)
        self.counts.cached += len(requests) - len(missing)
        try:
            self._send(requests, list(missing.values()), answers, done)
        finally:
            self.counts.seconds += time.monotonic() - started
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
        allowed = max(FEW_FAILURES, self.max_failed_share * (self.counts.sent + len(places)))
        stream = self.backend.answers([requests[same[0]] for same in places])
        try:
            for position, answer in stream:
                request = requests[places[position][0]]
                self.counts.sent += 1
                self.counts.prompt_tokens += answer.prompt_tokens
                self.counts.completion_tokens += answer.completion_tokens
                if answer.error is None:
                    self.store.add(answer, request, self.backend.name)
                else:
                    self.counts.failed += 1
                    self.failures.append(answer.error)
                for index in places[position]:
                    answers[index] = replace(answer, messages=())
                    done(index)
                if self.counts.failed >= GIVE_UP_AFTER and self.counts.failed > allowed:
                    break
        finally:
            if isinstance(stream, Resumable):
                stream.close()
        if self.counts.failed > allowed:
            raise GenerationError(_explain(self.failures, self.counts.sent, self.max_failed_share))


def _explain(failures: Sequence[str], sent: int, max_failed_share: float) -> str:
    """Count failures by reason, which is what stands before a message's first colon."""
    reasons = Counter(message.partition(":")[0] for message in failures)
    counted = ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
    return (
        f"{len(failures):,} of {sent:,} requests failed, more than generation.max_failed_share = "
        f"{max_failed_share:g} allows: {counted}. The first said: {failures[0]!r}. What succeeded is in the "
        "store: mend the cause and start again"
    )
