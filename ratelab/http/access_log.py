"""A line for each request, without anything that tells who sent it."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from queue import Full, Queue
from threading import Thread

from ratelab.http.asgi import App, Message, Receive, Scope, Send

MAX_LOGGED_PATH_CHARS = 80


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
    path = ascii(scope["path"][:MAX_LOGGED_PATH_CHARS])[
        1:-1
    ]  # no query, which may hold secrets, and no control characters
    limits = [value.decode() for name, value in message.get("headers", ()) if name == b"ratelimit"]
    parts = [time.strftime("%H:%M:%S"), scope["method"], path, str(message["status"]), f"{seconds * 1000:.1f} ms"]
    return " ".join([*parts, *limits])


MOST_WAITING = 10_000
"""Lines that wait to be written; while there are so many, further ones are dropped."""


class LineWriter:
    """Write lines to a file descriptor from a thread of its own, so that a reader who stalls stops nobody else."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: Queue[str | None] = Queue(MOST_WAITING)
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def __call__(self, line: str) -> None:
        """Have a line written."""
        with suppress(Full):
            self._waiting.put_nowait(line)

    def close(self) -> None:
        """Write what is waiting, if the reader takes it within a second."""
        try:
            self._waiting.put(None, timeout=1)
        except Full:
            return
        self._thread.join(timeout=1)

    def _run(self) -> None:
        try:
            while (line := self._waiting.get()) is not None:
                data = f"{line}\n".encode()
                while data:
                    data = data[os.write(self._descriptor, data) :]
        except OSError:  # who read the lines has gone
            while self._waiting.get() is not None:
                pass  # nobody reads the line, and it is to take no room
