"""Addresses of servers: whether one answers, how one is shown, and a port here that nobody uses yet."""

import re
import socket

import httpx

from mars_core.errors import MarsError


class AddressError(MarsError, ValueError):
    """What is given as an address is none; the message says which, without its password."""


def answers(address: str) -> bool:
    """Whether a server is there, within a few seconds, be it that it asks who is there.

    No credentials are sent, so no certificate is looked at: that is for the clients, which have their own
    settings for it.

    Raises:
        AddressError: the address is none.
    """
    try:
        url = httpx.URL(address).copy_with(userinfo=b"")  # httpx logs the address
        status = httpx.get(url, timeout=5, verify=False).status_code
    except httpx.InvalidURL as error:
        raise AddressError(f"{shown(address)} is no address: {error}") from None
    except httpx.HTTPError:
        return False
    return status < 400 or status in (401, 403)


def shown(text: str) -> str:
    """A text without the user and the password of the addresses in it."""
    return re.sub(r"//[^/@\s]+@", "//", text)


def free_port(wanted: int = 0) -> int:
    """The wanted port of the loopback, or another one where that is 0 or taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a port just left counts as taken
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
        port: int = probe.getsockname()[1]
        return port
