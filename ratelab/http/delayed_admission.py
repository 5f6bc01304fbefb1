"""Delayed admission: a request sleeps before it reaches the application, on asyncio or on Trio."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from ratelab.errors import InputError
from ratelab.http.asgi import Message, Receive
from ratelab.http.counters import Counts
from ratelab.stores.sleepers import running_trio

MAX_BUFFERED_BODY_BYTES = 65_536
"""How much of a request's body is buffered while the request is delayed; beyond that, a disconnect goes unnoticed."""

NS_PER_MS = 10**6


async def delay_request(delay_ns: int, receive: Receive) -> Receive | None:
    """Sleep for `delay_ns`, rounded up to milliseconds; return None at once if the client disconnects.

    Otherwise, return the function from which the application receives the request. It first returns the messages that
    arrived during the delay: `receive` is called meanwhile, because only that reveals a disconnect.
    """
    buffered: deque[Message] = deque()
    seconds = -(-delay_ns // NS_PER_MS) / 1000
    trio = running_trio()
    gone = await (_sleep(seconds, receive, buffered) if trio is None else _sleep_trio(trio, seconds, receive, buffered))
    if gone:
        return None

    async def receive_buffered() -> Message:
        return buffered.popleft() if buffered else await receive()

    return receive_buffered


async def delay_and_count(delay_ns: int, receive: Receive, counts: Counts) -> Receive | None:
    """Delay a request as `delay_request` does, and count it."""
    delayed_receive = None
    counts.waiting += 1
    try:
        delayed_receive = await delay_request(delay_ns, receive)
    finally:
        counts.waiting -= 1
        if delayed_receive is None:
            counts.dropped += 1
        else:
            counts.delayed += 1
    return delayed_receive


async def _sleep(seconds: float, receive: Receive, buffered: deque[Message]) -> bool:
    """Sleep on asyncio while messages are buffered; return True at once if the client disconnects."""
    sleep = asyncio.ensure_future(asyncio.sleep(seconds))
    watch = asyncio.ensure_future(_watch_disconnect(receive, buffered))
    try:
        await asyncio.wait((sleep, watch), return_when=asyncio.FIRST_COMPLETED)
        if watch.done() and watch.result():
            return True
        await sleep
    finally:
        for task in (sleep, watch):
            task.cancel()
        await asyncio.wait((sleep, watch))
    return False


async def _sleep_trio(trio: Any, seconds: float, receive: Receive, buffered: deque[Message]) -> bool:
    """Do the same on Trio."""
    end = trio.current_time() + seconds
    with trio.move_on_at(end):
        if await _watch_disconnect(receive, buffered):
            return True
    await trio.sleep_until(end)  # at once, unless the watch ended early because of a large body
    return False


def create_trio_error() -> InputError:
    """Return the error for a limiter in a store that is awaited on Trio."""
    return InputError("a limiter in a store needs asyncio, not Trio: run the server on asyncio")


async def _watch_disconnect(receive: Receive, buffered: deque[Message]) -> bool:
    """Buffer messages; return True when the client disconnects, False when `MAX_BUFFERED_BODY_BYTES` are exceeded."""
    size = 0
    while size <= MAX_BUFFERED_BODY_BYTES:
        message = await receive()
        buffered.append(message)
        if message["type"] == "http.disconnect":
            return True
        size += len(message.get("body", b"")) + 1
    return False
