"""Access log: one line for each request, without client data."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from ratelab.http.asgi import App, Message, Receive, Scope, Send

MAX_LOGGED_PATH_CHARS = 80


def log_requests(app: App, write: Callable[[str], object]) -> App:
    """Wrap `app` to write `12:00:01 GET /ping 429 0.3 ms "token-bucket";r=0;t=1` when a response starts.

    `write` must not block.
    """

    async def app_with_log(scope: Scope, receive: Receive, send: Send) -> None:
        start = time.monotonic()

        def send_and_log(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                write(_format_line(scope, message, time.monotonic() - start))
            return send(message)

        await app(scope, receive, send_and_log)

    return app_with_log


def _format_line(scope: Scope, message: Message, seconds: float) -> str:
    escaped = ascii(scope["path"][:MAX_LOGGED_PATH_CHARS])  # no control characters; no query, which may hold secrets
    limits = [value.decode() for name, value in message.get("headers", ()) if name == b"ratelimit"]
    time_of_day, milliseconds = time.strftime("%H:%M:%S"), f"{seconds * 1000:.1f} ms"
    return " ".join([time_of_day, scope["method"], escaped[1:-1], str(message["status"]), milliseconds, *limits])
