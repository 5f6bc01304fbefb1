"""Access log: one line for each request, written without blocking and without client data."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from queue import Full, Queue
from threading import Thread

from ratelab.http.asgi import App, Message, Receive, Scope, Send

MAX_LOGGED_PATH_CHARS = 80

MAX_QUEUED_LINES = 10_000
"""Lines that may wait for a slow reader; while the queue is full, further lines are dropped."""


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


class LineWriter:
    """Write lines to a file descriptor from a thread, so that a slow reader never blocks the service."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue: Queue[str | None] = Queue(MAX_QUEUED_LINES)
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def __call__(self, line: str) -> None:
        """Queue a line, or drop it if the queue is full."""
        with suppress(Full):
            self._queue.put_nowait(line)

    def close(self) -> None:
        """Write the queued lines, unless the reader takes longer than a second."""
        try:
            self._queue.put(None, timeout=1)
        except Full:
            return
        self._thread.join(timeout=1)

    def _run(self) -> None:
        try:
            while (line := self._queue.get()) is not None:
                data = f"{line}\n".encode()
                while data:
                    data = data[os.write(self._descriptor, data) :]
        except OSError:  # the reader is gone: empty the queue so that it takes no memory
            while self._queue.get() is not None:
                pass
