"""A line for each request, without anything that tells who sent it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from ratelab.http.asgi import App, Message, Receive, Scope, Send

LONGEST_PATH = 80


def logged(app: App, write: Callable[[str], object]) -> App:
    """Write `12:00:01 GET /ping 429 0.3 ms "token-bucket";r=0;t=1` when an answer begins; `write` must not wait."""

    async def logging(scope: Scope, receive: Receive, send: Send) -> None:
        begun = time.monotonic()

        def send_and_log(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                write(_line(scope, message, time.monotonic() - begun))
            return send(message)

        await app(scope, receive, send_and_log)

    return logging


def _line(scope: Scope, message: Message, seconds: float) -> str:
    path = ascii(scope["path"][:LONGEST_PATH])[1:-1]  # no query, which may hold secrets, and no control characters
    limits = [value.decode() for name, value in message.get("headers", ()) if name == b"ratelimit"]
    parts = [time.strftime("%H:%M:%S"), scope["method"], path, str(message["status"]), f"{seconds * 1000:.1f} ms"]
    return " ".join([*parts, *limits])
