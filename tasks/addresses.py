"""Addresses of servers on this machine: whether one answers, and a port that nobody uses yet."""

import socket

import httpx


def answers(address: str) -> bool:
    """Whether a server is there, within a few seconds, be it that it asks who is there.

    No credentials are sent, so no certificate is looked at: that is for the clients, which have their own
    settings for it.
    """
    try:
        url = httpx.URL(address).copy_with(userinfo=b"")  # httpx logs the address
        status = httpx.get(url, timeout=5, verify=False).status_code
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return status < 400 or status in (401, 403)


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
