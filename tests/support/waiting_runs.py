"""Runs of requests that wait on a manual clock, in tasks and in threads, and a model of their times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

from ratelab import NEVER, ManualClock, Policy

Result = TypeVar("Result")

SETTLING_STEPS = 12
"""Iterations of an event loop in which a task that was woken reaches its next sleep."""


class Outcome(NamedTuple):
    """How a request that waited ended: when, and by its decision or exception."""

    at: int
    result: Any


def predict(policy: Policy, start: int, costs: Sequence[int]) -> list[int]:
    """Return the times at which requests of a new key may go that wait from `start` on, one after the other."""
    state, now, times = policy.start(start), start, []
    for cost in costs:
        while True:
            tried = [*state]
            allowed, _, retry_after_ns, _, delay_ns = policy.step(tried, now, cost)
            if allowed:
                state, now = tried, now + delay_ns
                break
            assert retry_after_ns != NEVER
            now += retry_after_ns
        times.append(now)
    return times


async def settle() -> None:
    """Let every task that can continue reach its next sleep."""
    for _ in range(SETTLING_STEPS):
        await asyncio.sleep(0)


async def pass_time(clock: ManualClock, until: int) -> None:
    """Move a clock from alarm to alarm, and at last to `until`."""
    await settle()
    while clock.next_alarm is not None and clock.next_alarm <= until:
        clock.now = max(clock.now, clock.next_alarm)
        await settle()
    clock.now = max(clock.now, until)
    await settle()


async def finish(clock: ManualClock, calls: Sequence[Awaitable[Any]]) -> list[Outcome]:
    """Start calls in their order, move the clock until all have ended, and return how."""

    async def note(call: Awaitable[Any]) -> Outcome:
        try:
            result = await call
        except Exception as error:
            result = error
        return Outcome(clock.now, result)

    tasks = [asyncio.ensure_future(note(call)) for call in calls]
    await settle()
    while not all(task.done() for task in tasks):
        assert clock.next_alarm is not None, "a request waits for nothing"
        clock.now = max(clock.now, clock.next_alarm)
        await settle()
    return [task.result() for task in tasks]


def run(call: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in an event loop of its own."""
    return asyncio.run(call)


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once a condition that other threads bring about holds."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.0005)
