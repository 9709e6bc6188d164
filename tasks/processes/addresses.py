"""Addresses of servers: whether one answers, and free ports."""

import socket

import httpx

from mars_core.config import redact
from mars_core.errors import MarsError


class AddressError(MarsError, ValueError):
    """An address is not valid; the message names it, without its password."""


def answers(address: str) -> bool:
    """Whether a server answers within a few seconds, even if it asks for credentials.

    No credentials are sent, so no certificate is checked: the clients check it, by their own settings.

    Raises:
        AddressError: the address is not valid.
    """
    try:
        url = httpx.URL(address).copy_with(userinfo=b"")  # httpx logs the address
        status = httpx.get(url, timeout=5, verify=False).status_code
    except httpx.InvalidURL as error:
        raise AddressError(f"{redact(address)} is not a valid address: {error}") from None
    except httpx.HTTPError:
        return False
    return status < 400 or status in (401, 403)


def free_port(wanted: int = 0, host: str = "127.0.0.1") -> int:
    """The wanted port of an address of this machine, or another one if that is 0 or taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a port just closed counts as taken
        try:
            probe.bind((host, wanted))
        except OSError:
            return free_port(host=host)
        port: int = probe.getsockname()[1]
        return port
