"""Prefect where there is a flow run: a cell of a comparison on another node has none, and needs no API.

Calls to the API may fail: if it is not available, the work continues without them.
"""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec, TypeVar

import httpx
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, SettingsContext, get_settings_context

P = ParamSpec("P")
Result = TypeVar("Result")


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


def has_flow_run() -> bool:
    """Whether a flow runs, so that there is something to show in Prefect."""
    return FlowRunContext.get() is not None


def task_of_flow(
    name: str, title: str | None = None, description: str | None = None
) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
    """Make a function a Prefect task that caches nothing; without a flow run a call is a plain call.

    Args:
        name: its name in Prefect.
        title: the name of a run of it, which may have arguments in braces.
        description: by default the function's docstring.
    """

    def decorate(function: Callable[P, Result]) -> Callable[P, Result]:
        prefect_task = task(
            name=name,
            task_run_name=title or name,
            description=description,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Result:
            result: Any = prefect_task(*args, **kwargs) if has_flow_run() else function(*args, **kwargs)
            return result

        return call

    return decorate


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
