"""The service behind the limiter: `GET /ping`, and `GET /healthz` for whoever watches it."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Mapping

from ratelab.http.asgi import App, Message, Receive, Scope, Send, answer
from ratelab.http.problems import FIELDS, problem

Page = Callable[[], tuple[bytes, bytes]]
"""Makes a page: its content type and its body."""


def site(pages: Mapping[str, Page]) -> App:
    """Make the application that answers `GET` and `HEAD` of the pages, 405 to other methods and 404 elsewhere."""
    known = ", ".join(pages)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001  (ASGI's signature)
        if scope["type"] != "http":
            return
        page = pages.get(scope["path"])
        if page is None:
            await answer(scope, send, 404, FIELDS, problem(404, f"Ask for {known}."))
        elif scope["method"] not in ("GET", "HEAD"):
            await answer(scope, send, 405, (*FIELDS, (b"allow", b"GET, HEAD")), problem(405, "Use GET or HEAD."))
        else:
            content_type, body = page()
            await answer(scope, send, 200, ((b"content-type", content_type),), body)

    return app


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
