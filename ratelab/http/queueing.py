"""A request's wait for its turn, which ends early if its client leaves."""

from __future__ import annotations

import asyncio
from collections import deque

from ratelab.http.asgi import Message, Receive

MOST_KEPT = 65_536
"""Bytes of a body that are taken meanwhile; a client that sends more is not watched any longer."""

_MILLISECOND = 10**6


async def wait_turn(delay_ns: int, receive: Receive) -> Receive | None:
    """Sleep `delay_ns`, rounded up to milliseconds; return what the application is to receive from, None for nobody.

    The end of the request is awaited meanwhile, so that a client that has left keeps neither a task nor memory until
    its turn; what has come of the body is kept for the application.
    """
    taken: deque[Message] = deque()
    sleeping = asyncio.ensure_future(asyncio.sleep(-(-delay_ns // _MILLISECOND) / 1000))
    leaving = asyncio.ensure_future(_leaving(receive, taken))
    try:
        await asyncio.wait((sleeping, leaving), return_when=asyncio.FIRST_COMPLETED)
        if leaving.done() and leaving.result():
            return None
        await sleeping
    finally:
        for task in (sleeping, leaving):
            task.cancel()
        await asyncio.wait((sleeping, leaving))

    async def receive_rest() -> Message:
        return taken.popleft() if taken else await receive()

    return receive_rest


async def _leaving(receive: Receive, taken: deque[Message]) -> bool:
    """Take messages until the client leaves; say so, or that it sends too much to go on."""
    size = 0
    while size <= MOST_KEPT:
        message = await receive()
        taken.append(message)
        if message["type"] == "http.disconnect":
            return True
        size += len(message.get("body", b"")) + 1
    return False
