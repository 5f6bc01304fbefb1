"""Delayed admission: a disconnect ends the delay, and the body that arrives meanwhile is kept."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from asgi import call, scope_of
from limited_apps import Handler, Watched
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from ratelab import Decision, InputError
from ratelab.http.asgi import Message, Receive
from ratelab.http.counters import Counts
from ratelab.http.delayed_admission import MAX_BUFFERED_BODY_BYTES, delay_request
from ratelab.http.middleware import RateLimitMiddleware

MILLISECOND = 10**6
DAY = 86400 * 10**9
DISCONNECT: Message = {"type": "http.disconnect"}


def part(body: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def client(*messages: Message) -> Receive:
    """Return a `receive` that returns these messages and then blocks: the client stays connected."""
    remaining = list(messages)

    async def receive() -> Message:
        return remaining.pop(0) if remaining else await asyncio.Future[Message]()

    return receive


async def receive_all(receive: Receive | None, count: int) -> list[Message]:
    assert receive is not None
    return [await receive() for _ in range(count)]


def test_a_disconnect_ends_the_delay_at_once() -> None:
    for messages in ([DISCONNECT], [part(b"", more=False), DISCONNECT], [part(b"a"), part(b"b"), DISCONNECT]):
        assert asyncio.run(asyncio.wait_for(delay_request(DAY, client(*messages)), timeout=30)) is None


def test_the_body_that_arrives_meanwhile_is_passed_on_in_order() -> None:
    sent = [part(b"a"), part(b"b"), part(b"c", more=False)]

    async def body() -> list[Message]:
        return await receive_all(await delay_request(MILLISECOND, client(*sent)), 3)

    assert asyncio.run(body()) == sent


def test_a_large_body_is_not_buffered() -> None:
    sent = [part(b"x" * MAX_BUFFERED_BODY_BYTES), part(b"y"), part(b"z"), DISCONNECT]
    received = 0
    source = client(*sent)

    async def receive() -> Message:
        nonlocal received
        received += 1
        return await source()

    async def body() -> list[Message]:
        rest = await delay_request(MILLISECOND, receive)
        assert received == 1
        return await receive_all(rest, 4)

    assert asyncio.run(body()) == sent


def test_no_task_is_left_after_the_delay() -> None:
    async def tasks() -> int:
        await delay_request(MILLISECOND, client(part(b"", more=False)))
        await delay_request(DAY, client(DISCONNECT))
        return len(asyncio.all_tasks())

    assert asyncio.run(tasks()) == 1


def test_a_client_that_disconnects_stays_charged() -> None:
    handler, limiter = Handler(), Watched("leaky-bucket", "1/day", burst=2)
    app = RateLimitMiddleware(handler, limiter)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    assert call(app).status == 200
    asyncio.run(app(scope_of(), client(DISCONNECT), send))
    assert [message.get("status") for message in sent] == [503, None]
    assert (len(handler.calls), app.counts) == (1, Counts(admitted=1, dropped=1))
    assert call(app).status == 429


# --- Trio


def test_trio_delays_and_notices_a_disconnect() -> None:
    trio = pytest.importorskip("trio")
    testing = pytest.importorskip("trio.testing")
    handler, limiter = Handler(), Watched("leaky-bucket", "1/day", burst=3)
    app = RateLimitMiddleware(handler, limiter)
    statuses: list[int] = []

    async def send(message: Message) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    def receive_from(*messages: Message) -> Receive:
        remaining = list(messages)

        async def receive() -> Message:
            if not remaining:
                await trio.sleep_forever()
            return remaining.pop(0)

        return receive

    bodies: tuple[list[Message], ...] = ([], [part(b"", more=False)], [part(b"", more=False), DISCONNECT])
    for messages in bodies:
        trio.run(app, scope_of(), receive_from(*messages), send, clock=testing.MockClock(autojump_threshold=0))
    assert (statuses, len(handler.calls)) == ([200, 200, 503], 2)
    assert app.counts == Counts(admitted=2, delayed=1, dropped=1)


@pytest.mark.parametrize("size", [1, MAX_BUFFERED_BODY_BYTES])
def test_trio_delays_as_long_as_asyncio(size: int) -> None:
    trio = pytest.importorskip("trio")
    testing = pytest.importorskip("trio.testing")
    sent = [part(b"x" * size), part(b"y", more=False)]

    async def body() -> tuple[float, list[Message]]:
        remaining, start = list(sent), trio.current_time()

        async def receive() -> Message:
            if not remaining:
                await trio.sleep_forever()
            return remaining.pop(0)

        delayed = await delay_request(2_000 * MILLISECOND, receive)
        return trio.current_time() - start, await receive_all(delayed, 2)

    assert trio.run(body, clock=testing.MockClock(autojump_threshold=0)) == (2.0, sent)


def test_a_limiter_that_needs_asyncio_is_rejected_on_trio() -> None:
    trio = pytest.importorskip("trio")

    class NeedsAsyncio(Watched):
        async def hit(self, key: str, cost: int = 1) -> Decision:  # type: ignore[override]
            await asyncio.sleep(0.01)
            raise AssertionError("this needs a running event loop")

    async def receive() -> Message:
        raise AssertionError("the request is not admitted")

    async def send(message: Message) -> None:
        raise AssertionError("the request is not answered")

    handler = Handler()
    with pytest.raises(InputError, match="a limiter in a store needs asyncio, not Trio: run the server on asyncio"):
        trio.run(RateLimitMiddleware(handler, cast("Any", NeedsAsyncio())), scope_of(), receive, send)
    assert handler.calls == []


# --- middleware outside


def test_a_disconnect_is_not_an_error_for_middleware_outside() -> None:
    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    limited = RateLimitMiddleware(Handler(), Watched("leaky-bucket", "1/day", burst=2))
    app = BaseHTTPMiddleware(limited, dispatch=pass_on)
    assert call(app).status == 200

    async def leave() -> None:
        await app(scope_of(), client(part(b"", more=False), DISCONNECT), send)

    async def send(message: Message) -> None: ...

    asyncio.run(leave())
    assert limited.counts.dropped == 1


def test_a_server_may_raise_when_a_response_has_no_reader() -> None:
    async def send(message: Message) -> None:
        raise OSError("disconnected")

    app = RateLimitMiddleware(Handler(), Watched("leaky-bucket", "1/day", burst=2))
    assert call(app).status == 200
    asyncio.run(app(scope_of(), client(DISCONNECT), send))
    assert app.counts.dropped == 1
