"""Refunds of the WSGI middleware by the status of the response, before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from wsgi import call, environ_of
from wsgi_apps import TEXT, Body, Environ, failing_late, hello

from ratelab import ManualClock, MemoryLimiter, Policy
from ratelab.http import Identity
from ratelab.wsgi import RateLimitMiddleware

DAY = Policy.create("fixed-window", "5/day", name="day")


def charges(app: Any, **changes: Any) -> tuple[list[int], int]:
    """Return the statuses that `charge` is asked about in one request, and the remaining quota when it starts."""
    asked: list[int] = []
    limiter = MemoryLimiter([DAY], ManualClock())

    def charge(environ: Environ, status: int) -> bool:
        asked.append(status)
        return False

    started: list[int] = []

    def start_response(*arguments: Any) -> Callable[[bytes], object]:
        return lambda data: started.append(limiter.hit(key, cost=0).remaining)

    identity = Identity()
    key = identity.key_of("192.0.2.1")
    body = RateLimitMiddleware(app, limiter, identity, charge=charge)(environ_of() | changes, start_response)
    try:
        for part in body:
            if part:
                started.append(limiter.hit(key, cost=0).remaining)
    finally:
        if hasattr(body, "close"):
            body.close()
    return asked, started[0] if started else limiter.hit(key, cost=0).remaining


def writing(environ: Environ, start_response: Any) -> list[bytes]:
    write = start_response("201 Created", TEXT)
    write(b"old")
    return []


def streaming(environ: Environ, start_response: Any) -> Iterator[bytes]:
    start_response("202 Accepted", TEXT)
    yield b""
    yield b"one"
    yield b"two"


def empty(environ: Environ, start_response: Any) -> Body:
    start_response("204 No Content", [])
    return Body()


def sending_file(environ: Environ, start_response: Any) -> Any:
    import io

    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](io.BytesIO(b"file"))


@pytest.mark.parametrize(
    ("app", "status"),
    [(hello, 200), (writing, 201), (streaming, 202), (empty, 204), (sending_file, 200), (failing_late, 500)],
)
def test_a_request_is_refunded_by_its_last_status_before_the_response(app: Any, status: int) -> None:
    assert charges(app) == ([status], 5)


def test_a_response_that_fails_before_its_first_part_counts_as_500() -> None:
    def failing(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b""
        raise RuntimeError("failed")

    app = RateLimitMiddleware(failing, MemoryLimiter([DAY], ManualClock()), charge=lambda environ, status: status < 500)
    for _ in range(9):
        with pytest.raises(RuntimeError):
            call(app)


def test_a_body_that_a_server_never_reads_is_settled_and_closed() -> None:
    body = Body(b"unread")
    asked: list[int] = []

    def app(environ: Environ, start_response: Any) -> Body:
        start_response("304 Not Modified", [])
        return body

    def charge(environ: Environ, status: int) -> bool:
        asked.append(status)
        return True

    middleware = RateLimitMiddleware(app, MemoryLimiter([DAY]), charge=charge)
    middleware(environ_of(), lambda *arguments: lambda data: None).close()  # type: ignore[attr-defined]
    assert (asked, body.closed) == ([304], 1)


def test_a_file_is_sent_by_the_server_as_without_a_refund() -> None:
    app = RateLimitMiddleware(sending_file, MemoryLimiter([DAY]), charge=lambda environ, status: True)
    environ = environ_of()
    body = app(environ, lambda *arguments: lambda data: None)
    assert isinstance(body, environ["wsgi.file_wrapper"])
