"""Waiting for the time of a request, in tasks and threads."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any

import pytest
from virtual_loop import run_virtually
from waiting_runs import wait_until

import ratelab.pacing
from ratelab import InputError, ManualClock, MemoryLimiter, Quota, RateLimitExceeded, create
from ratelab.pacing import Pacer
from ratelab.quota import NS_PER_S

SECOND = {"RateLimit-Policy": '"a";q=20;w=20', "RateLimit": '"a";r=19;t=20'}
"""The header fields of a service that permits one request per second."""

Clock = Callable[[], int]


async def learn(pacer: Pacer, key: str = "") -> None:
    async with pacer.request(key) as permit:
        permit.observe(200, SECOND)


def test_sixty_tasks_use_a_quota_and_are_seldom_denied() -> None:
    async def main(clock: Clock) -> tuple[int, int]:
        limiter, pacer = MemoryLimiter(create("token-bucket", "10/s", 5), clock), Pacer(clock=clock)
        counts = [0, 0]

        async def work() -> None:
            while clock() < 120 * NS_PER_S:
                async with pacer.request() as permit:
                    await asyncio.sleep(0.02)
                    decision = limiter.hit("client")
                    counts[not decision.allowed] += clock() >= 60 * NS_PER_S
                    await asyncio.sleep(0.02)
                    permit.observe(200 if decision.allowed else 429)

        await asyncio.gather(*(work() for _ in range(60)))
        return counts[0], counts[1]

    admitted, denied = run_virtually(main)
    assert admitted >= 0.95 * 600
    assert denied <= 0.01 * admitted


def test_requests_are_sent_in_the_order_in_which_they_came() -> None:
    async def main(clock: Clock) -> list[tuple[int, int]]:
        pacer, order = Pacer(clock=clock), []
        await learn(pacer)
        start = clock()

        async def work(number: int) -> None:
            async with pacer.request() as permit:
                order.append((number, round((clock() - start) / NS_PER_S)))
                permit.observe(200, SECOND)

        await asyncio.gather(*(work(number) for number in range(5)))
        return order

    assert run_virtually(main) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]


def test_a_cancelled_request_gives_its_place_to_the_next() -> None:
    async def main(clock: Clock) -> list[tuple[int, int]]:
        pacer, order = Pacer(clock=clock), []
        await learn(pacer)
        start = clock()

        async def work(number: int) -> None:
            async with pacer.request() as permit:
                order.append((number, round((clock() - start) / NS_PER_S)))
                permit.observe(200, SECOND)

        tasks = [asyncio.ensure_future(work(number)) for number in range(4)]
        await asyncio.sleep(0.5)
        tasks[0].cancel()
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return order

    assert run_virtually(main) == [(1, 1), (3, 2)]


def test_a_request_that_cannot_be_in_time_is_refused_at_once() -> None:
    async def main(clock: Clock) -> list[Any]:
        pacer = Pacer(clock=clock, timeout=3.5)
        await learn(pacer, "host")
        tasks = [asyncio.ensure_future(pacer.acquire_async("host")) for _ in range(5)]
        await asyncio.sleep(0.001)
        assert [task.done() for task in tasks] == [False, False, False, True, True]
        return await asyncio.gather(*tasks, return_exceptions=True)

    *_, error = results = run_virtually(main)
    assert [isinstance(result, RateLimitExceeded) for result in results] == [False, False, False, True, True]
    assert (error.key, error.decision.allowed) == ("host", False)
    assert error.decision.retry_after == pytest.approx(4, abs=0.01)


def test_a_denial_refuses_waiters_that_can_no_longer_be_in_time() -> None:
    async def main(clock: Clock) -> int:
        pacer = Pacer(clock=clock, timeout=30)
        permits = [await pacer.acquire_async() for _ in range(2)]
        start, waiting = clock(), [asyncio.ensure_future(pacer.acquire_async()) for _ in range(3)]
        await asyncio.sleep(1)
        permits[0].observe(429, {"Retry-After": "3600"})
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, RateLimitExceeded) for result in results)
        return round((clock() - start) / NS_PER_S)

    assert run_virtually(main) == 1


def test_a_failed_request_holds_no_others() -> None:
    async def main(clock: Clock) -> int:
        pacer, start = Pacer(clock=clock), clock()
        for _ in range(10):
            with pytest.raises(OSError, match="down"):
                async with pacer.request():
                    raise OSError("down")
        return clock() - start

    assert run_virtually(main) == 0


def test_keys_have_paces_of_their_own() -> None:
    async def main(clock: Clock) -> tuple[float, float]:
        pacer = Pacer(clock=clock)
        await learn(pacer, "a")
        start = clock()
        await pacer.acquire_async("b")
        other = clock() - start
        await pacer.acquire_async("a")
        return other / NS_PER_S, round((clock() - start) / NS_PER_S)

    assert run_virtually(main) == (0, 1)


def test_the_keys_that_were_not_used_for_longest_are_forgotten() -> None:
    async def main(clock: Clock) -> list[int]:
        pacer, waits = Pacer(clock=clock, max_keys=2), []
        for key, window in (("forgotten", 50), ("a", 20), ("b", 20)):
            async with pacer.request(key) as permit:
                permit.observe(200, {"RateLimit-Policy": f'"one";q=1;w={window}'})
        for key in ("a", "forgotten"):
            start = clock()
            await pacer.acquire_async(key)
            waits.append(round((clock() - start) / NS_PER_S))
        return waits

    assert run_virtually(main) == [20, 0]


def test_threads_are_paced_by_the_clock() -> None:
    clock, times = ManualClock(NS_PER_S), []
    pacer = Pacer(clock=clock, timeout=None)
    with pacer.request() as permit:
        permit.observe(200, SECOND)

    def work() -> None:
        with pacer.request() as permit:
            permit.observe(200, SECOND)
            times.append(clock.now)

    threads = [Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    expected = [number * NS_PER_S for number in range(2, 7)]
    for number, at in enumerate(expected):
        wait_until(lambda number=number, at=at: (len(times), clock.next_alarm) == (number, at))  # type: ignore[misc]
        clock.now = at
    for thread in threads:
        thread.join()
    assert times == expected


def test_tasks_of_trio_are_paced() -> None:
    trio = pytest.importorskip("trio")

    async def main() -> float:
        pacer, start = Pacer(), trio.current_time()
        async with pacer.request() as permit:
            permit.observe(200, {"X-RateLimit-Remaining": "20", "X-RateLimit-Reset": "1"})
        await pacer.acquire_async()
        return float(trio.current_time() - start)

    assert trio.run(main) >= 0.03


def test_threads_in_real_time_keep_to_the_limit_that_they_learn() -> None:
    limiter, pacer = MemoryLimiter(create("sliding-log", Quota(50, NS_PER_S, 10))), Pacer()

    def work(_: int) -> bool:
        with pacer.request() as permit:
            decision = limiter.hit("client")
            permit.observe(200 if decision.allowed else 429)
            return decision.allowed

    with ThreadPoolExecutor(20) as pool:
        allowed = sum(pool.map(work, range(30)))
    assert allowed >= 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout": -1}, "timeout must be a number of seconds >= 0, got -1"),
        ({"timeout": "1"}, "timeout must be a number of seconds >= 0, got '1'"),
        ({"max_keys": 0}, "max_keys must be a whole number >= 1, got 0"),
        ({"max_keys": True}, "max_keys must be a whole number >= 1, got True"),
        ({"clock": lambda: 1.5}, "clock must return whole nanoseconds"),
        ({"clock": 5}, "clock must return whole nanoseconds, as time.monotonic_ns does, got 5"),
        ({"name": 5}, "name must be text such as 'pacer', got 5"),
        ({"name": ""}, "name must be text such as 'pacer', got ''"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pacer(**arguments)


def test_an_invalid_key_is_refused() -> None:
    with pytest.raises(InputError, match="key must be text, got 5"):
        Pacer().acquire(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (("429",), "status must be a whole number such as 429, got '429'"),
        ((True,), "status must be a whole number such as 429, got True"),
        ((429, None), "headers must be a mapping or pairs of names and values, got None"),
        ((429, "Retry-After: 5"), "headers must be a mapping or pairs of names and values, got 'Retry-After: 5'"),
    ],
)
def test_an_invalid_response_is_refused_and_may_be_observed_again(response: Any, message: str) -> None:
    pacer = Pacer(clock=ManualClock())
    permit = pacer.acquire()
    with pytest.raises(InputError, match=f"^{message}$"):
        permit.observe(*response)
    permit.observe(429, {"Retry-After": "99"})
    with pytest.raises(RateLimitExceeded):
        pacer.acquire(timeout=98)


def test_an_adapter_whose_package_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "ratelab.pacing.adapters.httpx", raising=False)
    with pytest.raises(
        ImportError, match=r"^PacedTransport needs httpx, which is not installed: run pip install httpx$"
    ):
        ratelab.pacing.PacedTransport  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        ratelab.pacing.Other  # noqa: B018
