"""Requests to an ASGI application, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from ratelab.http.asgi import App, Field, Message, Scope

PEER = "192.0.2.1"


class Answer(NamedTuple):
    """What came back."""

    status: int
    fields: list[Field]
    body: bytes

    def of(self, name: str) -> list[str]:
        """Return the values of every line of a field."""
        return [value.decode() for field, value in self.fields if field == name.encode()]


def scope_of(peer: str | None = PEER, headers: str = "", method: str = "GET", path: str = "/ping") -> Scope:
    """Make the scope of a request; `headers` is written as in HTTP, the names as a server hands them on."""
    parted = [line.partition(": ") for line in headers.split("\n") if line]
    fields = [(name.lower().encode(), value.encode("latin-1")) for name, _, value in parted]
    request = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": fields}
    about = {"asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "query_string": b"", "root_path": ""}
    return {**request, **about, "client": peer and (peer, 50_000), "server": ("testserver", 80)}


async def request(app: App, scope: Scope) -> Answer:
    """Send one request on a loop that runs already, so that many are cheap."""
    sent: list[Message] = []
    bodies: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        return bodies.pop() if bodies else await asyncio.Future[Message]()  # the client stays until it is answered

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    kinds = {part["type"] for part in rest}
    assert (start["type"], kinds) == ("http.response.start", {"http.response.body"})
    return Answer(start["status"], list(start.get("headers", ())), b"".join(part["body"] for part in rest))


def call(app: App, peer: str | None = PEER, headers: str = "", method: str = "GET", path: str = "/ping") -> Answer:
    """Send one request."""
    return asyncio.run(request(app, scope_of(peer, headers, method, path)))


@asynccontextmanager
async def started(app: App) -> AsyncIterator[None]:
    """Start an application up and shut it down, as a server does."""
    asked, said = asyncio.Queue[Message](), asyncio.Queue[Message]()
    life = asyncio.ensure_future(
        app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, asked.get, said.put)
    )
    await asked.put({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    yield
    await asked.put({"type": "lifespan.shutdown"})
    assert (await said.get())["type"] == "lifespan.shutdown.complete"
    await life
