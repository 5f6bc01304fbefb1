"""The service behind the limiter: `GET /ping`, and `GET /healthz` for whoever watches it."""

from __future__ import annotations

from asyncio import CancelledError

from ratelab.http.asgi import App, Message, Receive, Scope, Send, answer
from ratelab.http.problems import FIELDS, problem, site

ping_app = site(
    {
        "/ping": lambda: (b"application/json", b'{"message": "pong"}\n'),
        "/healthz": lambda: (b"application/json", b'{"status": "ok"}\n'),
    }
)
"""What `ratelab serve` serves."""


def is_health_check(scope: Scope) -> bool:
    """Say whether a request asks for the service's health, which is never limited."""
    path: str = scope["path"]
    return path == "/healthz"


def answering_when_stopped(app: App) -> App:
    """Answer 503 to a request whose task is cancelled before its answer has begun, as a server does when it stops."""

    async def stoppable(scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, send_and_note)
        except CancelledError:
            if begun:
                raise
            fields = (*FIELDS, (b"retry-after", b"1"), (b"connection", b"close"))
            await answer(scope, send, 503, fields, problem(503, "The service is stopping."))

    return stoppable
