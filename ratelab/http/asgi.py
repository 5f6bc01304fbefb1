"""The shapes of ASGI 3, and one whole answer (https://asgi.readthedocs.io/en/latest/specs/www.html)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Self

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

Field = tuple[bytes, bytes]
"""A header field: its name in lower case, and its value."""


class Told(tuple[Field, ...]):
    """Header fields that are told again and again, with their lines as they stand at the end of an answer's head."""

    lines: bytes

    def __new__(cls, fields: Iterable[Field]) -> Self:
        """Write the lines once."""
        told = super().__new__(cls, fields)
        told.lines = b"".join(b"%s: %s\r\n" % field for field in told) + b"\r\n"
        return told


OFFERED = "ratelab.fields"
"""The key of a scope in which a server offers a list: what is `Told` there is in the answer, whoever gives it."""


async def answer(scope: Scope, send: Send, status: int, fields: Iterable[Field], body: bytes) -> None:
    """Send a whole answer; to HEAD the same without its body."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*fields, length]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
