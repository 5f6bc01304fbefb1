"""The shapes of ASGI 3, and one whole answer (https://asgi.readthedocs.io/en/latest/specs/www.html)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

Field = tuple[bytes, bytes]
"""A header field: its name in lower case, and its value."""


Headers = tuple[Field, ...]
"""Header fields of a response, in order."""


async def answer(scope: Scope, send: Send, status: int, fields: Iterable[Field], body: bytes) -> None:
    """Send a whole answer; to HEAD the same without its body."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*fields, length]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
