"""A request waits for its turn only as long as its client does, and loses nothing of its body meanwhile."""

from __future__ import annotations

import asyncio

from asgi import call, scope_of
from limited_apps import Handler, Watched

from ratelab.http.asgi import Message, Receive
from ratelab.http.counters import Counts
from ratelab.http.middleware import MOST_KEPT, RateLimitMiddleware, wait_turn

MILLISECOND = 10**6
DAY = 86400 * 10**9
GONE: Message = {"type": "http.disconnect"}


def part(body: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def client(*messages: Message) -> Receive:
    """Make what receives these messages and then waits, as for a client that stays."""
    left = list(messages)

    async def receive() -> Message:
        return left.pop(0) if left else await asyncio.Future[Message]()

    return receive


async def received(receive: Receive | None, number: int) -> list[Message]:
    assert receive is not None
    return [await receive() for _ in range(number)]


def test_a_client_that_leaves_ends_the_wait_at_once() -> None:
    for messages in ([GONE], [part(b"", more=False), GONE], [part(b"a"), part(b"b"), GONE]):
        assert asyncio.run(asyncio.wait_for(wait_turn(DAY, client(*messages)), timeout=30)) is None


def test_what_came_of_the_body_meanwhile_is_handed_on_in_its_order() -> None:
    sent = [part(b"a"), part(b"b"), part(b"c", more=False)]

    async def body() -> list[Message]:
        return await received(await wait_turn(MILLISECOND, client(*sent)), 3)

    assert asyncio.run(body()) == sent


def test_a_large_body_is_not_taken_into_memory() -> None:
    sent = [part(b"x" * MOST_KEPT), part(b"y"), part(b"z"), GONE]
    taken = 0
    source = client(*sent)

    async def receive() -> Message:
        nonlocal taken
        taken += 1
        return await source()

    async def body() -> list[Message]:
        rest = await wait_turn(MILLISECOND, receive)
        assert taken == 1
        return await received(rest, 4)

    assert asyncio.run(body()) == sent


def test_nothing_goes_on_after_the_wait() -> None:
    async def tasks() -> int:
        await wait_turn(MILLISECOND, client(part(b"", more=False)))
        await wait_turn(DAY, client(GONE))
        return len(asyncio.all_tasks())

    assert asyncio.run(tasks()) == 1


def test_a_client_that_leaves_gives_up_its_turn_but_not_its_charge() -> None:
    handler, limiter = Handler(), Watched("leaky-bucket", "1/day", burst=2)
    app = RateLimitMiddleware(handler, limiter)

    async def send(message: Message) -> None:
        raise AssertionError("nobody is there to be answered")

    assert call(app).status == 200
    asyncio.run(app(scope_of(), client(GONE), send))
    assert (len(handler.calls), app.counts) == (1, Counts(admitted=1, dropped=1))
    assert call(app).status == 429
