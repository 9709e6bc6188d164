"""Addresses of servers on this machine: whether one answers, and a port that nobody uses yet."""

import socket

import httpx


def answers(address: str) -> bool:
    """Whether a GET of the address succeeds within a few seconds."""
    url = httpx.URL(address)
    user = (url.username, url.password) if url.userinfo else None
    try:  # httpx logs the address, so that no password may be in it
        return httpx.get(url.copy_with(userinfo=b""), auth=user, timeout=5).is_success
    except httpx.HTTPError:
        return False


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
