"""No decision takes longer than its deadline, whatever the store does, and no loop is held up for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from bad_stores import BAD_STORES, BadStore, stopped
from flaky_proxy import Network, network
from stores import AMPLE, PLENTY, charged, plenty, plenty_async

from ratelab import Decision
from ratelab.errors import StoreError
from ratelab.stores.server import Server
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter

DEADLINE = 0.05
SLACK = 0.05
"""Seconds by which a decision may be late, and a loop's task may wait."""

BEAT = 0.005


def timed(call: Callable[[], object]) -> tuple[str, float]:
    """Return what came of a call, and after how many seconds."""
    began = time.monotonic()
    try:
        call()
        kind = ""
    except StoreError as error:
        kind = error.kind
    return kind, time.monotonic() - began


def outcome(call: Callable[[], Decision]) -> str:
    """Return what came of a call within its deadline."""
    kind, seconds = timed(call)
    assert seconds <= DEADLINE + SLACK
    return kind


async def outcome_async(limiter: AsyncValkeyLimiter, deadline: float = DEADLINE) -> str:
    began = time.monotonic()
    try:
        await limiter.hit("alice")
        kind = ""
    except StoreError as error:
        kind = error.kind
    assert time.monotonic() - began <= deadline + SLACK
    return kind


async def longest_pause(stop: asyncio.Event) -> float:
    """Return the longest time for which this task was not let run when it was due."""
    pause = 0.0
    while not stop.is_set():
        began = time.monotonic()
        await asyncio.sleep(BEAT)
        pause = max(pause, time.monotonic() - began - BEAT)
    return pause


async def under_watch(work: Callable[[], asyncio.Future[list[str]]]) -> list[str]:
    """Do the work, and see that the loop stays alive."""
    stop = asyncio.Event()
    heart = asyncio.create_task(longest_pause(stop))
    outcomes = await work()
    stop.set()
    assert await heart < SLACK
    return outcomes


BAD = pytest.mark.parametrize("bad", BAD_STORES, ids=lambda bad: bad.__name__)


@BAD
def test_a_thread_is_told_in_time_why_there_is_no_decision(store: Server, bad: BadStore) -> None:
    with bad(store) as url:
        limiter = plenty(url, DEADLINE)
        assert [outcome(partial(limiter.hit, "alice")) for _ in range(2)] == [BAD_STORES[bad]] * 2
        limiter.close()
    assert charged(store.url) <= 2


@BAD
def test_a_crowd_of_tasks_is_told_in_time_and_the_loop_goes_on(store: Server, bad: BadStore) -> None:
    async def crowd(url: str) -> list[str]:
        limiter = plenty_async(url, DEADLINE)
        outcomes: list[str] = []
        for _ in range(2):
            outcomes += await under_watch(lambda: asyncio.gather(*(outcome_async(limiter) for _ in range(20))))
        limiter.close()
        return outcomes

    with bad(store) as url:
        assert asyncio.run(crowd(url)) == [BAD_STORES[bad]] * 40
    assert charged(store.url) <= 40


def test_threads_that_wait_for_a_connection_wait_no_longer_than_their_deadline(store: Server) -> None:
    with stopped(store) as url, ThreadPoolExecutor(64) as pool:
        limiter = plenty(url, DEADLINE)
        calls = (
            partial(limiter.hit, "alice"),
            partial(time.sleep, DEADLINE),
        )  # and how late so many threads are anyway
        asking, sleeping = (list(pool.map(timed, [call] * 192)) for call in calls)
        limiter.close()
    assert [kind for kind, _ in asking] == ["timeout"] * 192
    assert max(seconds for _, seconds in asking) <= max(seconds for _, seconds in sleeping) + SLACK


def test_each_hit_has_a_deadline_of_its_own(store: Server) -> None:
    async def both(url: str) -> list[str]:
        limiters = [plenty_async(url, deadline) for deadline in (DEADLINE, 3 * DEADLINE)]
        return [*await asyncio.gather(outcome_async(limiters[0]), outcome_async(limiters[1], 3 * DEADLINE))]

    with stopped(store) as url:
        assert asyncio.run(both(url)) == ["timeout"] * 2


def test_a_store_that_goes_on_is_asked_again_on_a_new_connection(store: Server) -> None:
    limiter = plenty(store.url, DEADLINE)
    limiter.hit("alice")
    with stopped(store):
        assert outcome(partial(limiter.hit, "alice")) == "timeout"
    assert charged(store.url) == PLENTY - limiter.hit("alice", 0).remaining
    limiter.close()


def test_those_who_leave_early_do_not_keep_a_dead_connection_in_use(store: Server) -> None:
    async def impatient(url: str, carrier: Network) -> None:
        limiter = plenty_async(url, DEADLINE)
        await limiter.hit("alice")
        while carrier.connections == 1:
            with pytest.raises((TimeoutError, StoreError)):
                await asyncio.wait_for(limiter.hit("alice"), DEADLINE / 2)
        limiter.close()

    with network(store.url, "pass", "pass", then=("stall",)) as (url, carrier):
        asyncio.run(asyncio.wait_for(impatient(url, carrier), 1))


# --- crowds


def test_600_tasks_at_once_get_a_quota_of_100_exactly(store: Server) -> None:
    async def crowd() -> list[Decision]:
        limiter = AsyncValkeyLimiter(store.url, "token-bucket", "1/day", 100, AMPLE)
        decisions = await asyncio.gather(*(limiter.hit("alice") for _ in range(600)))
        limiter.close()
        return decisions

    assert [decision.allowed for decision in asyncio.run(crowd())] == [True] * 100 + [False] * 500


def test_600_calls_of_64_threads_over_16_connections_get_a_quota_of_100_exactly(store: Server) -> None:
    with ValkeyLimiter(store.url, "token-bucket", "1/day", 100, AMPLE) as limiter, ThreadPoolExecutor(64) as pool:
        decisions = list(pool.map(lambda _: limiter.hit("alice"), range(600)))
    assert sum(decision.allowed for decision in decisions) == 100
