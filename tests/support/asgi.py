"""Requests to an ASGI application without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from ratelab.http.asgi import App, Field, Message, Scope

PEER = "192.0.2.1"


class AsgiResponse(NamedTuple):
    """A complete response."""

    status: int
    fields: list[Field]
    body: bytes

    def of(self, name: str) -> list[str]:
        """Return the value of each header line with a name."""
        return [value.decode() for field, value in self.fields if field == name.encode()]


def scope_of(peer: str | None = PEER, headers: str = "", method: str = "GET", path: str = "/ping") -> Scope:
    """Create the scope of a request; `headers` holds lines such as `X-API-Key: alice`."""
    lines = [line.partition(": ") for line in headers.split("\n") if line]
    fields = [(name.lower().encode(), value.encode("latin-1")) for name, _, value in lines]
    request = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": fields}
    connection = {
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "query_string": b"",
        "root_path": "",
    }
    return {**request, **connection, "client": peer and (peer, 50_000), "server": ("testserver", 80)}


async def request(app: App, scope: Scope) -> AsgiResponse:
    """Send one request on the running event loop; return the response."""
    sent: list[Message] = []
    bodies: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        return bodies.pop() if bodies else await asyncio.Future[Message]()  # the client stays connected

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    kinds = {part["type"] for part in rest}
    assert (start["type"], kinds) == ("http.response.start", {"http.response.body"})
    return AsgiResponse(
        start["status"], list(start.get("headers", ())), b"".join(part.get("body", b"") for part in rest)
    )


def call(
    app: App, peer: str | None = PEER, headers: str = "", method: str = "GET", path: str = "/ping"
) -> AsgiResponse:
    """Send one request on a new event loop; return the response."""
    return asyncio.run(request(app, scope_of(peer, headers, method, path)))


async def converse(app: App, *texts: str, path: str = "/ws", refusable: bool = False) -> list[Message]:
    """Open a WebSocket, send texts, and disconnect; return the messages of the application.

    If it is `refusable`, the server can send a complete response instead of the handshake.
    """
    received: list[Message] = [{"type": "websocket.receive", "text": text} for text in texts]
    messages = iter([{"type": "websocket.connect"}, *received, {"type": "websocket.disconnect", "code": 1000}])
    sent: list[Message] = []

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {**scope_of(path=path), "type": "websocket", "scheme": "ws", "subprotocols": []}
    del scope["method"]
    if refusable:
        scope["extensions"] = {"websocket.http.response": {}}
    await app(scope, receive, send)
    return sent


@asynccontextmanager
async def started(app: App) -> AsyncIterator[None]:
    """Run the lifespan of an application around the block, as a server does."""
    received, sent = asyncio.Queue[Message](), asyncio.Queue[Message]()
    lifespan = asyncio.ensure_future(
        app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, received.get, sent.put)
    )
    await received.put({"type": "lifespan.startup"})
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    yield
    await received.put({"type": "lifespan.shutdown"})
    assert (await sent.get())["type"] == "lifespan.shutdown.complete"
    await lifespan
