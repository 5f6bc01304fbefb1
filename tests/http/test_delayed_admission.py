"""Delayed admission: a disconnect ends the delay, and the body that arrives meanwhile is kept."""

from __future__ import annotations

import asyncio

from asgi import call, scope_of
from limited_apps import Handler, Watched

from ratelab.http.asgi import Message, Receive
from ratelab.http.counters import Counts
from ratelab.http.middleware import MAX_BUFFERED_BODY_BYTES, RateLimitMiddleware, delay_request

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

    async def send(message: Message) -> None:
        raise AssertionError("the client has disconnected")

    assert call(app).status == 200
    asyncio.run(app(scope_of(), client(DISCONNECT), send))
    assert (len(handler.calls), app.counts) == (1, Counts(admitted=1, dropped=1))
    assert call(app).status == 429
