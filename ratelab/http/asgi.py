"""ASGI types, complete responses and problem documents (https://asgi.readthedocs.io/en/latest/specs/www.html)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
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

PROBLEM_HEADERS: Headers = ((b"content-type", b"application/problem+json"), (b"cache-control", b"no-store"))
"""Header fields of a problem document, which no cache may store (RFC 6585, section 4, for 429)."""

_PROBLEM_TYPES = "https://iana.org/assignments/http-problem-types"


async def send_response(scope: Scope, send: Send, status: int, fields: Iterable[Field], body: bytes) -> None:
    """Send a complete response; leave out the body for HEAD."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*fields, length]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def problem(status: int, detail: str) -> bytes:
    """Return a problem document (RFC 9457) without a type, titled after its status."""
    return _encode({"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail})


def quota_exceeded(policy: str, wait: int) -> bytes:
    """Return the problem of a denied request (draft-ietf-httpapi-ratelimit-headers-10, section 5.1)."""
    return _encode(
        {
            "type": f"{_PROBLEM_TYPES}#quota-exceeded",
            "title": "Request cannot be satisfied as assigned quota has been exceeded",
            "status": 429,
            "detail": f"Try again in {wait} s.",
            "violated-policies": [policy],
        }
    )


def reduced_capacity(wait: int) -> bytes:
    """Return the problem of a request that cannot be decided now (the same draft, section 5.2)."""
    return _encode(
        {
            "type": f"{_PROBLEM_TYPES}#temporary-reduced-capacity",
            "title": "Request cannot be satisfied due to temporary server capacity constraints",
            "status": 503,
            "detail": f"Try again in {wait} s.",
        }
    )


def _encode(members: dict[str, object]) -> bytes:
    return json.dumps(members).encode() + b"\n"
