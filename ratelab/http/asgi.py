"""The shapes of ASGI 3, and one whole answer (https://asgi.readthedocs.io/en/latest/specs/www.html)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

Field = tuple[bytes, bytes]
"""A header field: its name in lower case, and its value."""


Headers = tuple[Field, ...]
"""Header fields of a response, in order."""


async def answer(scope: Scope, send: Send, status: int, fields: Iterable[Field], body: bytes) -> None:
    """Send a whole answer; to HEAD the same without its body."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*fields, length]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


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
            await answer(scope, send, 404, PROBLEM_HEADERS, problem(404, f"Ask for {known}."))
        elif scope["method"] not in ("GET", "HEAD"):
            await answer(
                scope, send, 405, (*PROBLEM_HEADERS, (b"allow", b"GET, HEAD")), problem(405, "Use GET or HEAD.")
            )
        else:
            content_type, body = page()
            await answer(scope, send, 200, ((b"content-type", content_type),), body)

    return app


PROBLEM_HEADERS: tuple[Field, ...] = ((b"content-type", b"application/problem+json"), (b"cache-control", b"no-store"))
"""The header fields of a problem; none is to be kept by a cache (RFC 6585, section 4, on 429)."""

_TYPES = "https://iana.org/assignments/http-problem-types"


def problem(status: int, detail: str) -> bytes:
    """Write the problem that a status names by itself."""
    return _written({"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail})


def quota_exceeded(policy: str, wait: int) -> bytes:
    """Write the problem of a request over its quota (draft-ietf-httpapi-ratelimit-headers-10, section 5.1)."""
    return _written(
        {
            "type": f"{_TYPES}#quota-exceeded",
            "title": "Request cannot be satisfied as assigned quota has been exceeded",
            "status": 429,
            "detail": f"Try again in {wait} s.",
            "violated-policies": [policy],
        }
    )


def reduced_capacity(wait: int) -> bytes:
    """Write the problem of a request that cannot be decided now (the same draft, section 5.2)."""
    return _written(
        {
            "type": f"{_TYPES}#temporary-reduced-capacity",
            "title": "Request cannot be satisfied due to temporary server capacity constraints",
            "status": 503,
            "detail": f"Try again in {wait} s.",
        }
    )


def _written(members: dict[str, object]) -> bytes:
    return json.dumps(members).encode() + b"\n"
