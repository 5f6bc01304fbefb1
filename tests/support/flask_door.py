"""The limit of views of Flask as a door."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import wsgi
from door_conformance import FILE, LATER, Client, Door, Reply, Request
from flask import Flask, Response, g, send_file

from ratelab.flask import limit
from ratelab.limiter import Decision


def ping() -> Response:
    return Response("pong", mimetype="text/plain")


def stream() -> Iterator[str]:
    yield "one"
    yield "two"


def file() -> Response:
    return send_file(io.BytesIO(FILE), "text/plain", download_name="file")


def refused() -> Response:
    return Response("", 401)


def fail() -> Response:
    raise RuntimeError("failed")


def remaining() -> str:
    return "none" if g.ratelimit is None else str(g.ratelimit.remaining)


def later() -> Response:
    response = Response("")
    response.call_on_close(lambda: LATER.append("later"))
    return response


def legacy() -> Response:
    return Response("", headers={"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "2", "X-RateLimit-Reset": "1"})


PAGES: list[Any] = [ping, stream, file, refused, fail, remaining, later, legacy]


def serve(limiter: Any, **arguments: Any) -> Client:
    """Create the application; all views share the limiter."""
    app = Flask(__name__)
    for page in PAGES:
        app.add_url_rule(f"/{page.__name__}", view_func=limit(limiter, **arguments)(page), methods=["GET", "POST"])

    def send(request: Request) -> Reply:
        return Reply(*wsgi.call(app, request.peer, request.headers, request.method, request.path, request.root))

    return send


def on_denied(request: Any, decision: Decision) -> tuple[str, int, dict[str, str]]:
    return "teapot", 418, {"X-Door": "closed"}


DOOR = Door(serve, on_denied, covers_all=False, tells_repeated_fields=False, blocks=True)
