"""What lets no request without the key through to vLLM's server, whose own check leaves out /classify and
/pooling: vLLM imports this file by itself, so that it knows nothing but the standard library."""

import hmac
import os
from collections.abc import Awaitable, Callable
from typing import Any

KEY = "VLLM_API_KEY"
OPEN = ("/health",)
"""Paths that anybody may ask."""
App = Callable[[Any, Any, Any], Awaitable[None]]


class AsksForKey:
    """An ASGI middleware: 401 without `Authorization: Bearer KEY`."""

    def __init__(self, app: App) -> None:
        """Stand before `app`, with the key of the environment."""
        self.app, self.wanted = app, f"Bearer {os.environ[KEY]}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let a request through, or refuse it."""
        is_request = scope["type"] in ("http", "websocket")
        if not is_request or scope["path"] in OPEN or self._has_key(scope):
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"error": "Unauthorized"}'})

    def _has_key(self, scope: Any) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self.wanted)
