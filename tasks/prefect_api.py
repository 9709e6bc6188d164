"""What a flow shows in Prefect besides its runs: while the API is away, the work goes on without it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings


@contextmanager
def tolerated() -> Iterator[None]:
    """Try something on Prefect's API, once; where it fails the `with` block ends, and the work goes on.

    Prefect's client would ask a server that has gone for a minute, at every artifact again.
    """
    with suppress(httpx.HTTPError), temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield
