"""The ASGI middleware as a door, around Starlette."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asgi
from door_conformance import FILE, LATER, Client, Door, Reply, Request
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request as StarletteRequest
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ratelab.http import RateLimitMiddleware, decision_of
from ratelab.http.asgi import Field, Message, Scope
from ratelab.limiter import Decision

METHODS = ["GET", "HEAD", "POST"]


async def ping(request: StarletteRequest) -> Response:
    return PlainTextResponse("pong")


async def stream(request: StarletteRequest) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    return StreamingResponse(parts())


async def file(request: StarletteRequest) -> Response:
    path = Path(tempfile.mkdtemp()) / "file"
    path.write_bytes(FILE)
    return FileResponse(path)


async def refused(request: StarletteRequest) -> Response:
    return Response(status_code=401)


async def fail(request: StarletteRequest) -> Response:
    raise RuntimeError("failed")


async def remaining(request: StarletteRequest) -> Response:
    decision = decision_of(request.scope)
    return PlainTextResponse("none" if decision is None else str(decision.remaining))


async def later(request: StarletteRequest) -> Response:
    return PlainTextResponse("", background=BackgroundTask(LATER.append, "later"))


async def legacy(request: StarletteRequest) -> Response:
    fields = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "2", "X-RateLimit-Reset": "1"}
    return PlainTextResponse("", headers=fields)


PAGES = [ping, stream, file, refused, fail, remaining, later, legacy]


def serve(limiter: Any, **arguments: Any) -> Client:
    """Create the application; Starlette answers an exception itself, and raises it then."""
    site = Starlette(routes=[Route(f"/{page.__name__}", page, methods=METHODS) for page in PAGES])
    app = RateLimitMiddleware(site, limiter, **arguments)
    return lambda request: asyncio.run(send(app, request))


async def send(app: Any, request: Request) -> Reply:
    scope = asgi.scope_of(request.peer, request.headers, request.method, request.root + request.path)
    scope["root_path"] = request.root
    started: list[Message] = []

    async def watch(scope: Scope, receive: Any, send: Any) -> None:
        async def send_and_note(message: Message) -> None:
            started.append(message)
            await send(message)

        await app(scope, receive, send_and_note)

    try:
        status, fields, body = await asgi.request(watch, scope)
    except RuntimeError:
        status, fields, body = 500, [*started[0]["headers"]] if started else [], b""
    return Reply(status, [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields], body)


def on_denied(scope: Scope, decision: Decision) -> tuple[int, list[Field], bytes]:
    return 418, [(b"x-door", b"closed")], b"teapot"


DOOR = Door(serve, on_denied)
