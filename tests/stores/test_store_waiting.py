"""Waiting for limiters in a store on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from durations import LONG
from lua_scripts import SCRIPTED
from valkey_servers import AMPLE_DEADLINE, charged_cost, make_async_limiter
from waiting_runs import Outcome, note, run, settle

from ratelab import Decision, InputError, ManualClock, RateLimitExceeded
from ratelab.limiter import NEVER
from ratelab.stores.blocking_resilient import BlockingResilientLimiter
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer

S = 10**9
DAY_S = 86_400


class Awaited:
    """A limiter whose `wait` is awaited, with a method that blocks."""

    def __init__(self, limiter: Any, runner: asyncio.Runner) -> None:
        self._limiter, self._runner = limiter, runner

    def wait(self, *arguments: Any) -> Any:
        async def call() -> Any:
            return await self._limiter.wait(*arguments)

        return self._runner.run(call())


async def close(limiter: AsyncValkeyLimiter) -> None:
    limiter.close()


@contextmanager
def blocking(url: str, algorithm: str, rate: str, burst: int) -> Iterator[Any]:
    with ValkeyLimiter(url, algorithm, rate, burst, AMPLE_DEADLINE) as limiter:
        yield limiter


@contextmanager
def blocking_in_task(url: str, algorithm: str, rate: str, burst: int) -> Iterator[Any]:
    with ValkeyLimiter(url, algorithm, rate, burst, AMPLE_DEADLINE) as limiter, asyncio.Runner() as runner:
        yield Awaited(limiter, runner)


@contextmanager
def awaited(url: str, algorithm: str, rate: str, burst: int) -> Iterator[Any]:
    with asyncio.Runner() as runner:
        limiter = AsyncValkeyLimiter(url, algorithm, rate, burst, AMPLE_DEADLINE)
        yield Awaited(limiter, runner)
        runner.run(close(limiter))


@contextmanager
def resilient(url: str, algorithm: str, rate: str, burst: int) -> Iterator[Any]:
    with asyncio.Runner() as runner:
        limiter = AsyncValkeyLimiter(url, algorithm, rate, burst, AMPLE_DEADLINE)
        yield Awaited(ResilientLimiter(limiter), runner)
        runner.run(close(limiter))


@contextmanager
def blocking_resilient(url: str, algorithm: str, rate: str, burst: int) -> Iterator[Any]:
    with ValkeyLimiter(url, algorithm, rate, burst, AMPLE_DEADLINE) as limiter:
        yield BlockingResilientLimiter(limiter)


LIMITERS: list[Callable[..., Any]] = [blocking, blocking_in_task, awaited, resilient, blocking_resilient]


@pytest.mark.parametrize("algorithm", SCRIPTED)
@pytest.mark.parametrize("create", LIMITERS)
def test_a_store_admits_the_burst_and_refuses_the_others(create: Any, algorithm: str, store: ValkeyServer) -> None:
    with create(store.url, algorithm, f"2/{LONG}", 2) as limiter:
        admitted = 1 if algorithm == "leaky-bucket" else 2
        assert [limiter.wait("alice", 1, 0).allowed for _ in range(admitted)] == [True] * admitted
        for timeout in (0, 0.5):
            with pytest.raises(RateLimitExceeded) as raised:
                limiter.wait("alice", 1, timeout)
            assert raised.value.key == "alice"
            assert not raised.value.decision.allowed
            assert 0 < raised.value.decision.retry_after_ns < NEVER
        with pytest.raises(RateLimitExceeded, match="no wait is enough"):
            limiter.wait("bob", 3)
        assert limiter.wait("bob", 2, 0).allowed
        with pytest.raises(InputError, match="timeout must be"):
            limiter.wait("carol", 1, -1)


@pytest.mark.parametrize("algorithm", ["token-bucket", "leaky-bucket"])
@pytest.mark.parametrize("create", LIMITERS)
def test_requests_wait_for_a_store_for_as_long_as_it_says(create: Any, algorithm: str, store: ValkeyServer) -> None:
    with create(store.url, algorithm, "500/s", 1) as limiter:
        assert all(limiter.wait("alice").allowed for _ in range(4))


def test_tasks_of_several_processes_get_exactly_the_quota(store: ValkeyServer) -> None:
    async def main() -> list[Outcome]:
        limiters = [AsyncValkeyLimiter(store.url, "token-bucket", "1/day", 7, AMPLE_DEADLINE) for _ in range(3)]
        calls = [note(ManualClock(), limiters[number % 3].wait("alice", 1, 0)) for number in range(30)]
        outcomes = await asyncio.gather(*calls)
        for limiter in limiters:
            limiter.close()
        return outcomes

    results = [outcome.result for outcome in run(main())]
    assert sum(isinstance(result, Decision) for result in results) == 7
    assert sum(isinstance(result, RateLimitExceeded) for result in results) == 23


def test_tasks_are_admitted_in_order_by_a_store(store: ValkeyServer) -> None:
    async def main() -> list[int]:
        limiter = AsyncValkeyLimiter(store.url, "token-bucket", "500/s", 3, AMPLE_DEADLINE)
        ended: list[int] = []

        async def wait(number: int) -> None:
            await limiter.wait("alice", 3 if number % 4 == 0 else 1)
            ended.append(number)

        await asyncio.gather(*map(wait, range(8)))
        limiter.close()
        return ended

    assert run(main()) == [*range(8)]


def test_requests_behind_others_are_refused_as_soon_as_it_is_certain(store: ValkeyServer) -> None:
    async def main() -> None:
        with ValkeyLimiter(store.url, "token-bucket", "1/day", 2, AMPLE_DEADLINE) as limiter:
            limiter.hit("alice", 2)
            first = asyncio.ensure_future(limiter.wait("alice"))
            while not any(line.due for line in limiter.waiting._lines._lines.values()):
                await asyncio.sleep(0.001)
            for days in (0.5, 1.5):
                with pytest.raises(RateLimitExceeded) as raised:
                    await limiter.wait("alice", 1, days * DAY_S)
                assert 1.5 * DAY_S * S < raised.value.decision.retry_after_ns <= 2 * DAY_S * S
            second = asyncio.ensure_future(limiter.wait("alice", 1, 2.5 * DAY_S))
            await settle()
            assert limiter.waiting.count == 2
            assert limiter.hit("alice", 0).remaining == 0
            first.cancel()
            second.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
            assert limiter.waiting.count == 0

    run(main())


def test_a_task_that_is_cancelled_before_its_reply_is_refunded_by_a_server(store: ValkeyServer) -> None:
    async def main() -> None:
        limiter = make_async_limiter(store.url)
        await limiter.wait("alice")
        tasks = [asyncio.ensure_future(limiter.wait("alice")) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        for _ in range(50):
            await limiter.hit("bob")  # replies come in order
        assert (await limiter.hit("alice", 0)).remaining == (await limiter.hit("carol")).remaining
        limiter.close()

    run(main())
    assert charged_cost(store.url) == 1
