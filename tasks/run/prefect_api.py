"""What a flow shows in Prefect besides its runs: while the API is away, the work goes on without it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings


def _once(record: logging.LogRecord) -> bool:
    """Let a sentence through the first time, whatever its values; and no list of what could not be sent."""
    seen = record.msg in _told or "failed to process" in str(record.msg)
    _told.add(record.msg)
    return not seen


_told: set[object] = set()
# Both say the same of every single event, the second with all that the event holds.
for _logger in ("prefect.events.clients", "prefect._internal.concurrency"):
    logging.getLogger(_logger).addFilter(_once)


@contextmanager
def tolerated() -> Iterator[None]:
    """Try something on Prefect's API, once; where it fails the `with` block ends, and the work goes on.

    Prefect's client would ask a server that has gone for a minute, at every artifact again.
    """
    with suppress(httpx.HTTPError), temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield
