"""Responses of a limiter's doors: problem documents, denials, complete messages, and the ruling on a request."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from http import HTTPStatus
from itertools import chain
from typing import Any, NamedTuple

from ratelab.http.asgi import Field, Headers, Message, Scope, Send
from ratelab.http.headers import TextFields, ceil_seconds, decode_fields, join_legacy
from ratelab.http.scope_functions import invalid_result
from ratelab.limiter import Decision

PROBLEM_HEADERS: Headers = ((b"content-type", b"application/problem+json"), (b"cache-control", b"no-store"))
"""Header fields of a problem document, which no cache may store (RFC 6585, section 4, for 429)."""

MAX_CACHED_PROBLEMS = 1024
"""Problem documents of denied requests that are kept encoded."""

_PROBLEM_TYPES = "https://iana.org/assignments/http-problem-types"

Denial = tuple[int, Headers, bytes]
"""Status, headers and body of the response to a request that does not reach the application."""

TextDenial = tuple[int, TextFields, bytes]
"""A denial with header fields as text."""

DenialHook = Callable[[Scope, Decision], tuple[int, Iterable[Field], bytes] | None]
"""A function of the scope and the decision that returns status, headers and body of the response to a denied request,
or None for the usual response."""


class Ruling(NamedTuple):
    """The ruling on a request: the door answers it, or passes it on and adds header fields to the response."""

    answer: Denial | None = None
    """The response to send instead of that of the application."""
    fields: Sequence[Field] = ()
    """Header fields to add to the response of the application."""
    decision: Decision | None = None
    """None if the request is not limited."""
    delay_ns: int = 0
    """Time to wait before the request is passed on."""
    refund: Callable[[], Coroutine[Any, Any, None]] | None = None
    """Return the charge of an admitted request."""
    restate: Callable[[], Coroutine[Any, Any, Sequence[Field]]] | None = None
    """Return the header fields of several policies after a refund."""
    refuse: Callable[[int], Coroutine[Any, Any, Ruling]] | None = None
    """Refund and deny a request that has a delay, given the longest delay in ns for which the door holds it."""


create_decision: Callable[[tuple[Any, ...]], Decision] = partial(tuple.__new__, Decision)
create_ruling: Callable[[tuple[Any, ...]], Ruling] = partial(tuple.__new__, Ruling)
"""Create a `Decision` or a `Ruling` from all its fields, in half the time that the class takes."""

NOT_LIMITED = Ruling()
"""The ruling on a request that is exempt, or that no policy applies to."""


async def send_denial(scope: Scope, send: Send, answer: Denial) -> None:
    """Send a complete response; leave out the body for HEAD."""
    status, fields, body = answer
    await send({"type": "http.response.start", "status": status, "headers": [*fields]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def send_response(scope: Scope, send: Send, status: int, fields: Iterable[Field], body: bytes) -> None:
    """Send a complete response, to which `Content-Length` is added; leave out the body for HEAD."""
    await send_denial(scope, send, (status, (*fields, (b"content-length", b"%d" % len(body))), body))


async def send_problem(scope: Scope, send: Send, status: int, detail: str, *fields: Field) -> None:
    """Send a problem document, with further header fields."""
    await send_denial(scope, send, build_denial(status, fields, problem(status, detail)))


def problem(status: int, detail: str) -> bytes:
    """Return a problem document (RFC 9457) without a type, titled after its status."""
    return _encode({"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail})


@lru_cache(maxsize=MAX_CACHED_PROBLEMS)
def quota_exceeded(policies: tuple[str, ...], wait: int) -> bytes:
    """Return the problem of a denied request (draft-ietf-httpapi-ratelimit-headers-10, section 5.1)."""
    return _encode(
        {
            "type": f"{_PROBLEM_TYPES}#quota-exceeded",
            "title": "Request cannot be satisfied as assigned quota has been exceeded",
            "status": 429,
            "detail": f"Try again in {wait} s.",
            "violated-policies": policies,
        }
    )


def cost_above_burst(burst: int) -> bytes:
    """Return the problem of a request that costs more than the burst."""
    return problem(400, f"A cost above {burst} is never granted: ask for less at once.")


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


# --- denials

DENIED = "ratelab.denied"
"""The entry of a scope, an environment or a request with the status by which a limit has answered the request.

Outer limits that have admitted the request refund it when they see the response; True stands for any status.
"""


def was_denied(request: Mapping[str, Any], status: int) -> bool:
    """Return whether the response to a request with this entry is that of an inner limit."""
    denied = request.get(DENIED)
    return denied is True or denied == status


def build_denial(status: int, headers: Iterable[Field], body: bytes) -> Denial:
    """Return a problem document as a response with all its header fields."""
    return status, (*PROBLEM_HEADERS, *headers, (b"content-length", b"%d" % len(body))), body


def decode_denial(denial: Denial) -> TextDenial:
    """Return a denial with header fields as text."""
    status, fields, body = denial
    return status, decode_fields(fields), body


def build_unavailable(retry_after_ns: int) -> Denial:
    """Return the response 503 to a request that cannot be decided now."""
    wait = max(1, ceil_seconds(retry_after_ns))
    return build_denial(503, [(b"retry-after", b"%d" % wait)], reduced_capacity(wait))


def join_on_send(send: Send, headers: Iterable[Field]) -> Send:
    """Wrap `send` to add header fields with `X-RateLimit-*`."""

    def send_joined(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = {**message, "headers": join_legacy(message.get("headers", ()), headers)}
        return send(message)

    return send_joined


def read_denial(answer: Any, usual: Headers) -> Denial:
    """Return the response that `on_denied` gave, with those of the usual header fields that it does not replace."""
    try:
        status, given, body = answer if isinstance(answer, tuple) else ()
        fields = tuple((name.lower(), value) for name, value in given)
        parts = (body, *chain.from_iterable(fields))
        valid = type(status) is int and 200 <= status <= 599 and all(isinstance(part, bytes) for part in parts)
    except (AttributeError, TypeError, ValueError):
        valid = False
    if not valid:
        rule = "on_denied must return None, or a status, header fields of bytes, and a body of bytes"
        raise invalid_result(rule, answer, "such as (429, [], b'')")
    replaced = {name for name, _ in fields} | {b"content-type", b"content-length"}
    kept = tuple(field for field in usual if field[0] not in replaced)
    return status, (*fields, *kept, (b"content-length", b"%d" % len(body))), body


def read_detail(body: bytes) -> str:
    """Return the detail of a problem document, or a general one for another body."""
    try:
        return str(json.loads(body)["detail"])
    except (KeyError, TypeError, ValueError):
        return "Denied by a rate limit."


# --- complete responses


async def send_unavailable(scope: Scope, send: Send, retry_after_ns: int) -> None:
    """Answer 503; the text of the error is for the operator only."""
    await send_denial(scope, send, build_unavailable(retry_after_ns))


async def send_dropped(scope: Scope, send: Send) -> None:
    """Answer a client that has disconnected, which middleware outside and access logs expect."""
    with suppress(OSError):  # by which some servers report the disconnect (ASGI, version 2.4)
        await send_problem(scope, send, 503, "The client left the queue.")


# --- OpenAPI

_PROBLEM_SCHEMA = {
    "type": "object",
    "properties": {
        **{name: {"type": "string"} for name in ("type", "title", "detail")},
        "status": {"type": "integer"},
        "violated-policies": {"type": "array", "items": {"type": "string"}},
    },
}
OPENAPI_DENIAL = {
    "description": "Too many requests",
    "headers": {
        "Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 1}},
        "RateLimit": {"description": "Remaining quota, and seconds to its reset", "schema": {"type": "string"}},
        "RateLimit-Policy": {"description": "Quota, and its window in seconds", "schema": {"type": "string"}},
    },
    "content": {"application/problem+json": {"schema": _PROBLEM_SCHEMA}},
}
"""The response to a denied request in an OpenAPI schema."""
