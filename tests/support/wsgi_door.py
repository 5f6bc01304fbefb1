"""The WSGI middleware as a door, around functions of the environment."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

import wsgi
from door_conformance import FILE, LATER, Client, Door, Reply, Request

from ratelab.limiter import Decision
from ratelab.wsgi import RateLimitMiddleware, decision_of

Environ = dict[str, Any]
LEGACY = [("X-RateLimit-Limit", "60"), ("X-RateLimit-Remaining", "2"), ("X-RateLimit-Reset", "1")]


class LaterBody:
    """A body whose server works on after the response."""

    def __iter__(self) -> Iterator[bytes]:
        yield b""

    def close(self) -> None:
        LATER.append("later")


def site(environ: Environ, start_response: Any) -> Iterable[bytes]:
    """Serve the pages."""
    path = environ["PATH_INFO"]
    if path == "/stream":
        return stream(start_response)
    if path == "/fail":
        raise RuntimeError("failed")
    decision = decision_of(environ)
    fields = {"/file": [("Content-Length", str(len(FILE)))], "/legacy": LEGACY}.get(path, [])
    status = {"/refused": 401}.get(path, 200 if path in ("/ping", "/file", "/remaining", "/later", "/legacy") else 404)
    start_response(f"{status} {HTTPStatus(status).phrase}", [("Content-Type", "text/plain"), *fields])
    if path == "/later":
        return LaterBody()
    if path == "/file":
        body: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(FILE))
        return body
    remaining = b"none" if decision is None else b"%d" % decision.remaining
    return [{"/ping": b"pong", "/remaining": remaining}.get(path, b"") if environ["REQUEST_METHOD"] != "HEAD" else b""]


def stream(start_response: Any) -> Iterator[bytes]:
    """Start the response when the first part is asked for."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"one"
    yield b"two"


def serve(limiter: Any, **arguments: Any) -> Client:
    """Create the application."""
    app = RateLimitMiddleware(site, limiter, **arguments)

    def send(request: Request) -> Reply:
        try:
            return Reply(*wsgi.call(app, request.peer, request.headers, request.method, request.path, request.root))
        except RuntimeError:
            return Reply(500, [], b"")

    return send


def on_denied(environ: Environ, decision: Decision) -> tuple[int, list[tuple[str, str]], bytes]:
    return 418, [("X-Door", "closed"), ("Content-Type", "text/plain")], b"teapot"


DOOR = Door(serve, on_denied, tells_repeated_fields=False, blocks=True)
