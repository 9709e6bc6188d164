"""Calls to Prefect's API that may fail: if the API is not available, the work continues without them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings


def _once(record: logging.LogRecord) -> bool:
    """A log filter: pass each message once, whatever its values, and no lists of events that were not
    sent."""
    seen = record.msg in _told or "failed to process" in str(record.msg)
    _told.add(record.msg)
    return not seen


_told: set[object] = set()
# Both log every single event, the second with all that the event holds.
for _logger in ("prefect.events.clients", "prefect._internal.concurrency"):
    logging.getLogger(_logger).addFilter(_once)


@contextmanager
def tolerate_outage() -> Iterator[None]:
    """Try a call to Prefect's API once; if it fails, the `with` block ends, and the work continues.

    Otherwise Prefect's client would retry for a minute at every artifact when the server is gone.
    """
    with suppress(httpx.HTTPError), temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield
