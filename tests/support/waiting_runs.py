"""Runs of requests that wait on a manual clock, in tasks and in threads, and a model of their times."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any, NamedTuple, TypeVar

import pytest

from ratelab import ALGORITHMS, NEVER, Decision, ManualClock, MemoryLimiter, Policy, RateLimitExceeded
from ratelab.stores.recording import RecordingLimiter

Result = TypeVar("Result")

PATIENCE_S = 60
"""Seconds within which any machine lets other threads act."""

SETTLING_STEPS = 12
"""Iterations of an event loop in which a task that was woken reaches its next sleep."""


LIMITERS: dict[str, Callable[[Any, ManualClock], Any]] = {
    "memory": MemoryLimiter,
    "recording": lambda policies, clock: RecordingLimiter(policies, io.StringIO(), clock),
}

every_limiter = pytest.mark.parametrize("create", LIMITERS.values(), ids=LIMITERS)
every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


class Outcome(NamedTuple):
    """The end of a request that waited: its time, and its decision or exception."""

    at: int
    result: Any


def times(outcomes: list[Outcome]) -> list[int]:
    """Return when requests were admitted, all of them."""
    assert all(isinstance(outcome.result, Decision) and outcome.result.allowed for outcome in outcomes)
    return [outcome.at for outcome in outcomes]


def refusal(outcome: Outcome) -> Decision:
    """Return the decision because of which a request was refused."""
    assert isinstance(outcome.result, RateLimitExceeded)
    return outcome.result.decision


# --- a model


@dataclass
class Arrival:
    """A request that begins to wait at a time, and one that is cancelled at another."""

    at: int
    cost: int
    timeout: int | None = None
    cancelled_at: int | None = None


def schedule(policies: Sequence[Policy], start: int, arrivals: Sequence[Arrival]) -> list[int]:
    """Return when requests of a new key may go, each after those before it; a cancelled one, when it gave up."""
    states, turn, times = [policy.start(start) for policy in policies], start, []
    for arrival in arrivals:
        now = max(turn, arrival.at)
        while True:
            tried = [[*state] for state in states]
            rows = [policy.step(state, now, arrival.cost) for policy, state in zip(policies, tried, strict=True)]
            if all(row[0] for row in rows):
                now += max(row[4] for row in rows)
                break
            retry_after_ns = max(row[2] for row in rows)
            assert retry_after_ns != NEVER
            now += retry_after_ns
        if arrival.cancelled_at is not None and arrival.cancelled_at < now:
            turn = max(turn, arrival.cancelled_at)
            times.append(arrival.cancelled_at)
        else:
            states, turn = tried, now
            times.append(now)
    return times


def predict(policy: Policy, start: int, costs: Sequence[int]) -> list[int]:
    """Return the times at which requests of a new key may go that all wait from `start` on."""
    return schedule([policy], start, [Arrival(start, cost) for cost in costs])


# --- tasks


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


async def note(clock: ManualClock, call: Awaitable[Any]) -> Outcome:
    """Return how a call ended."""
    try:
        result = await call
    except (Exception, asyncio.CancelledError) as error:
        result = error
    return Outcome(clock.now, result)


async def finish(clock: ManualClock, calls: Sequence[Awaitable[Any]]) -> list[Outcome]:
    """Start calls in their order, move the clock until all have ended, and return how."""
    tasks = [asyncio.ensure_future(note(clock, call)) for call in calls]
    await settle()
    while not all(task.done() for task in tasks):
        assert clock.next_alarm is not None, "a request waits for nothing"
        clock.now = max(clock.now, clock.next_alarm)
        await settle()
    return [task.result() for task in tasks]


async def follow(limiter: MemoryLimiter, clock: ManualClock, arrivals: Sequence[Arrival]) -> list[Outcome]:
    """Let requests arrive and be cancelled at their times, and return how each ended."""
    tasks: dict[int, asyncio.Task[Outcome]] = {}
    cancellations = [(one.cancelled_at, number) for number, one in enumerate(arrivals) if one.cancelled_at is not None]
    events = sorted(
        [(one.at, 0, number) for number, one in enumerate(arrivals)] + [(at, 1, n) for at, n in cancellations]
    )
    for at, cancels, number in events:
        await pass_time(clock, at)
        if cancels:
            tasks[number].cancel()
        else:
            timeout = arrivals[number].timeout
            call = limiter.wait("alice", arrivals[number].cost, None if timeout is None else timeout / 10**9)
            tasks[number] = asyncio.ensure_future(note(clock, call))
        await settle()
    while limiter.waiting.count:
        assert clock.next_alarm is not None, "a request waits for nothing"
        await pass_time(clock, clock.next_alarm)
    return [await tasks[number] for number in range(len(arrivals))]


def run(call: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in an event loop of its own."""
    return asyncio.run(asyncio.wait_for(call, PATIENCE_S))


# --- threads


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once a condition that other threads bring about holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.0002)


def finish_in_threads(
    limiter: Any, clock: ManualClock, costs: Sequence[int], timeout: float | None = None
) -> list[Any]:
    """Let a thread for each cost wait, in their order; return their numbers and times, in the order of their ends."""
    ended: list[tuple[int, int]] = []

    def call(number: int) -> None:
        try:
            limiter.wait("alice", costs[number], timeout)
        except RateLimitExceeded:
            ended.append((number, -1))
        else:
            ended.append((number, clock.now))

    def all_sleep() -> bool:
        """Return whether the first in line sleeps, and every thread that has left it has noted the time."""
        count, alarm = limiter.waiting.count, clock.next_alarm
        return started - count == len(ended) and (not count or (alarm is not None and alarm > clock.now))

    threads = [Thread(target=call, args=(number,), daemon=True) for number in range(len(costs))]
    for started, thread in enumerate(threads, 1):  # noqa: B007  (`all_sleep` reads it)
        thread.start()
        wait_until(all_sleep)
    while limiter.waiting.count:
        assert clock.next_alarm is not None
        clock.now = clock.next_alarm
        wait_until(all_sleep)
    for thread in threads:
        thread.join()
    return ended
