"""More threads or tasks than can be served at a time: all get their turn, and a rejected hit is not charged."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread
from unittest.mock import patch

import pytest
from invalid_stores import stopped
from serve_process import wait_until
from valkey_servers import AMPLE_DEADLINE, LARGE_BURST, charged_cost, make_async_limiter

from ratelab.errors import StoreError
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter, async_limiter
from ratelab.stores.valkey.server import ValkeyServer

pytestmark = pytest.mark.slow

SERVERS = ["valkey"]
HITS = async_limiter.MAX_SENT_HITS + 500
"""More hits than are sent at a time."""


def error_kind(limiter: ValkeyLimiter, key: str = "alice") -> str:
    try:
        limiter.hit(key)
    except StoreError as error:
        return error.kind
    return ""


# --- threads


@pytest.mark.parametrize(("threads", "connections"), [(16, 1), (16, 4), (64, 16)])
def test_all_threads_get_connections_in_turn(store: ValkeyServer, threads: int, connections: int) -> None:
    counts: Counter[int] = Counter()
    with ValkeyLimiter(
        store.url, "token-bucket", "1000000/s", deadline=AMPLE_DEADLINE, connections=connections
    ) as limiter:
        start = Barrier(threads)

        def every_thread_had_its_turn() -> bool:
            return min(counts[number] for number in range(threads)) > 4

        def hit(number: int) -> None:
            start.wait()
            while not every_thread_had_its_turn():  # a thread that starves gets an error
                limiter.hit("alice")
                counts[number] += 1

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(hit, range(threads)))
        assert every_thread_had_its_turn()
        assert len(limiter.pools.find(None)._idle) == connections


def test_threads_that_wait_too_long_are_not_charged(store: ValkeyServer) -> None:
    charged_cost(store.url)
    with (
        ValkeyLimiter(store.url, "token-bucket", "1/day", LARGE_BURST, AMPLE_DEADLINE, connections=2) as limiter,
        ThreadPoolExecutor(12) as pool,
    ):
        limiter.hit("other")
        start = Barrier(12)

        def hit_together(_: int) -> str:
            start.wait()
            return error_kind(limiter)

        with stopped(store), patch.object(limiter, "_deadline", 1):
            kinds = Counter(pool.map(hit_together, range(12)))
        assert {*kinds} == {"timeout", "overload"}
        assert charged_cost(store.url) <= kinds["timeout"]  # two, and threads that a busy machine starts late
        assert len(limiter.pools.find(None)._idle) == 2
        assert error_kind(limiter) == ""


# --- tasks


async def count_answers(limiter: AsyncValkeyLimiter, count: int) -> Counter[str]:
    """Hit many keys at once; return how many hits were admitted, and the kinds of the other errors."""
    outcomes = await asyncio.gather(*(limiter.hit(f"{number}") for number in range(count)), return_exceptions=True)
    kinds: Counter[str] = Counter()
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, StoreError)
            kinds[outcome.kind] += 1
        else:
            kinds["admitted"] += outcome.allowed
    return kinds


def charged_keys(url: str, count: int) -> int:
    async def look() -> int:
        async with make_async_limiter(url) as limiter:
            decisions = await asyncio.gather(*(limiter.hit(f"{number}", 0) for number in range(count)))
            return sum(decision.remaining < LARGE_BURST for decision in decisions)

    return asyncio.run(look())


@pytest.mark.parametrize("warm", [False, True])
def test_all_of_many_tasks_are_answered_within_an_ample_deadline(store: ValkeyServer, warm: bool) -> None:
    async def hit_together() -> Counter[str]:
        async with make_async_limiter(store.url) as limiter:
            if warm:
                await limiter.hit("warm")
            return await count_answers(limiter, HITS)

    assert asyncio.run(hit_together()) == {"admitted": HITS}


def test_tasks_that_cannot_be_sent_in_time_are_not_charged(store: ValkeyServer) -> None:
    async def hit_together() -> Counter[str]:
        async with make_async_limiter(store.url, deadline=4) as limiter:
            await limiter.hit("warm")
            os.kill(store.pid, signal.SIGSTOP)
            try:
                return await count_answers(limiter, HITS)
            finally:
                os.kill(store.pid, signal.SIGCONT)

    assert asyncio.run(hit_together()) == {
        "timeout": async_limiter.MAX_SENT_HITS,
        "overload": HITS - async_limiter.MAX_SENT_HITS,
    }
    assert charged_keys(store.url, HITS) <= async_limiter.MAX_SENT_HITS


def test_a_hit_cancelled_before_its_turn_is_not_charged(store: ValkeyServer) -> None:
    async def cancel() -> None:
        async with make_async_limiter(store.url) as limiter:
            await limiter.hit("warm")
            os.kill(store.pid, signal.SIGSTOP)
            hits = [asyncio.create_task(limiter.hit(f"{number}")) for number in range(HITS)]
            await asyncio.sleep(0.05)
            for hit in hits:
                hit.cancel()
            os.kill(store.pid, signal.SIGCONT)
            await asyncio.gather(*hits, return_exceptions=True)
            await limiter.hit("later")

    asyncio.run(cancel())
    assert charged_keys(store.url, HITS) <= async_limiter.MAX_SENT_HITS


def test_a_late_burst_does_not_fail_earlier_hits(store: ValkeyServer) -> None:
    async def hit_twice() -> None:
        async with make_async_limiter(store.url) as limiter:
            single = asyncio.create_task(limiter.hit("alice"))
            await asyncio.sleep(0)
            many = asyncio.create_task(count_answers(limiter, HITS))
            assert (await single).allowed
            assert await many == {"admitted": HITS}

    asyncio.run(hit_twice())


# --- connections and time


def test_threads_get_a_connection_in_the_order_in_which_they_began_to_wait(store: ValkeyServer) -> None:
    with ValkeyLimiter(store.url, "token-bucket", "1/day", LARGE_BURST, AMPLE_DEADLINE, connections=1) as limiter:
        limiter.hit("alice")
        pool = limiter.pools.find(None)
        connection = pool._take(0)
        remaining: dict[int, int] = {}

        def hit(number: int) -> None:
            remaining[number] = limiter.hit("alice").remaining

        threads = [Thread(target=hit, args=(number,)) for number in range(5)]
        for number, thread in enumerate(threads, 1):
            thread.start()
            wait_until(lambda number=number: len(pool._waiting) == number)  # type: ignore[misc]
        pool._idle.append(connection)
        pool._pass_on()
        for thread in threads:
            thread.join()
    assert remaining == {number: LARGE_BURST - 2 - number for number in range(5)}
