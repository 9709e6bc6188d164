"""Calls to Prefect's API that may fail: if the API is not available, the work continues without them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
from prefect.context import SettingsContext, get_settings_context


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
    # Prefect's `temporary_settings` validates all settings again, which takes a tenth of a second each time.
    now = get_settings_context()
    client = now.settings.client.model_copy(update={"max_retries": 0})
    once = now.settings.model_copy(update={"client": client})
    with suppress(httpx.HTTPError), SettingsContext(profile=now.profile, settings=once):
        yield
