"""Waiting for limiters in a store: a real server, and stores that answer late or not at all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from failing_stores import FlakyStore
from lua_scripts import SCRIPTED
from valkey_servers import AMPLE_DEADLINE, charged_cost, make_async_limiter
from waiting_runs import PATIENCE_S, Outcome, finish, note, pass_time, run, settle

from ratelab import Decision, InputError, ManualClock, MemoryLimiter, Policy, RateLimitExceeded
from ratelab.clock import default_clocks
from ratelab.errors import StoreError
from ratelab.limiter import NEVER, Costs, Keys
from ratelab.stores.blocking_resilient import BlockingResilientLimiter
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.sleepers import Waiting
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer
from ratelab.stores.waiting import MAX_JITTER_NS, Attempt, Lines, Sleep

S, MS = 10**9, 10**6
DAY_S = 86_400
NOWHERE = "valkey://127.0.0.1:1"
MINUTE = "1/min"


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
    with create(store.url, algorithm, "2/h", 2) as limiter:
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


# --- the spread of the clients of many processes


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the time by which the clients of a store wait."""
    monkeypatch.setattr(default_clocks, "steady", ManualClock())


def start_waiting(wait: int, timeout: float | None = None) -> int:
    """Return how long a denied request of a store sleeps, in nanoseconds."""
    lines, policy = Lines(None), Policy.create("token-bucket", MINUTE, 1)
    plans = MemoryLimiter(policy, ManualClock()).plans
    waiter = lines.create_waiter("alice", 1, timeout, None, plans, None, lambda: True, lambda: None)
    steps = lines.admit(waiter)
    assert next(steps) == Attempt(1)
    step = steps.send(Decision(False, 0, wait, wait, 0, policy.name))
    now = lines.now()
    steps.close()
    assert isinstance(step, Sleep)
    assert step.until is not None
    return step.until - now


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("seconds", [1, 9, 60, 3600])
def test_a_client_of_a_store_comes_later_by_a_tenth_and_a_second_at_most(seconds: int) -> None:
    wait = seconds * S
    most = min(wait // 10, MAX_JITTER_NS)
    spread = [start_waiting(wait) - wait for _ in range(50)]
    assert min(spread) >= 0
    assert max(spread) <= most
    assert max(spread) - min(spread) > most // 2


@pytest.mark.usefixtures("stopped")
def test_a_spread_leaves_time_until_the_deadline() -> None:
    sleeps = [start_waiting(60 * S, 60.001) for _ in range(20)]
    assert min(sleeps) >= 60 * S
    assert max(sleeps) == 60 * S + 1 * MS


def test_clients_of_a_limiter_in_memory_are_not_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.stores.waiting.random.randint", lambda *_: pytest.fail("spread"))
    limiter = MemoryLimiter(Policy.create("token-bucket", "500/s", 1))
    assert all(limiter.wait("alice").allowed for _ in range(3))


# --- stores that fail or answer late


def test_an_error_of_the_store_passes_through_and_the_next_asks() -> None:
    async def main() -> None:
        clock = ManualClock()
        store = FlakyStore(Policy.create("token-bucket", "1/s", 1), clock)
        limiter = ResilientLimiter(store, "closed", clock)
        await limiter.wait("alice")
        tasks = [asyncio.ensure_future(note(clock, limiter.wait("alice"))) for _ in range(2)]
        await settle()
        store.fail()
        await pass_time(clock, S)
        await settle()
        assert [type((await task).result) for task in tasks] == [StoreError, StoreError]
        assert limiter.waiting.count == 0

    run(main())


def test_the_fallback_decides_for_those_who_wait_when_the_store_fails() -> None:
    async def main() -> None:
        clock = ManualClock()
        store = FlakyStore(Policy.create("token-bucket", "1/s", 1), clock)
        limiter = ResilientLimiter(store, "local", clock)
        await limiter.wait("alice")
        tasks = [asyncio.ensure_future(note(clock, limiter.wait("alice"))) for _ in range(2)]
        await settle()
        store.fail()
        await pass_time(clock, 5 * S)
        await settle()
        assert [(await task).at for task in tasks] == [S, 2 * S]

    run(main())


@pytest.mark.parametrize("in_task", [True, False])
def test_a_store_that_is_unreachable_raises_as_a_hit_does(in_task: bool) -> None:
    limiter = ValkeyLimiter(NOWHERE, "token-bucket", "1/s")

    async def main() -> None:
        await limiter.wait("alice")

    with pytest.raises(StoreError):
        run(main()) if in_task else limiter.wait("alice")
    assert limiter.waiting.count == 0


class LateStore(FlakyStore):
    """A store that decides once the test lets it, and counts the charges that were not refunded."""

    def __init__(self, policy: Policy, clock: ManualClock) -> None:
        super().__init__(policy, clock)
        self.answers = asyncio.Event()
        self.charged = 0

    async def hit(self, key: Keys, cost: Costs = 1) -> Decision:
        await self.answers.wait()
        decision = await super().hit(key, cost)
        self.charged += decision.allowed and cost != 0
        return decision

    async def refund(self, key: Keys, cost: Costs = 1) -> None:
        self.charged -= 1
        self.memory.refund(key, cost)


def test_a_task_that_is_cancelled_during_its_hit_loses_nothing() -> None:
    async def main() -> None:
        clock = ManualClock()
        store = LateStore(Policy.create("token-bucket", "1/day", 1), clock)
        limiter = ResilientLimiter(store, "closed", clock)
        first, second = (asyncio.ensure_future(note(clock, limiter.wait("alice", 1, 0))) for _ in range(2))
        await settle()
        first.cancel()
        await settle()
        store.answers.set()
        await settle()
        assert isinstance((await first).result, asyncio.CancelledError)
        assert store.charged == isinstance((await second).result, Decision)
        assert limiter.waiting.count == 0
        assert await limiter.wait("alice", 1, 0) if not store.charged else True

    run(main())


class BlockingLateStore(MemoryLimiter):
    """A store that blocks until the test lets it decide."""

    def __init__(self, policy: Policy, clock: ManualClock) -> None:
        super().__init__(policy, clock)
        self.called, self.answers, self.refunded = (threading.Event() for _ in range(3))

    def hit(self, key: Keys, cost: Costs = 1, plan: str | None = None) -> Decision:
        self.called.set()
        self.answers.wait()
        return super().hit(key, cost, plan)

    def wait(self, key: Keys, cost: Costs = 1, timeout: float | None = None, plan: str | None = None) -> Any:
        return self.waiting.wait(self, key, cost, timeout, plan)

    def refund(self, key: Keys, cost: Costs = 1) -> None:
        super().refund(key, cost)
        self.refunded.set()


def test_a_task_that_is_cancelled_while_a_thread_hits_is_refunded() -> None:
    async def main() -> None:
        limiter = BlockingLateStore(Policy.create("token-bucket", "1/day", 1), ManualClock())
        task = asyncio.ensure_future(limiter.wait("alice"))
        await asyncio.to_thread(limiter.called.wait)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        limiter.answers.set()
        assert await asyncio.to_thread(limiter.refunded.wait, PATIENCE_S)
        assert limiter.hit("alice", 0).remaining == 1
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


def test_requests_with_a_timeout_of_zero_go_one_after_the_other_if_the_quota_is_there() -> None:
    async def main() -> None:
        clock = ManualClock()
        store = LateStore(Policy.create("token-bucket", "1/day", 3), clock)
        limiter = ResilientLimiter(store, "closed", clock)
        tasks = [asyncio.ensure_future(note(clock, limiter.wait("alice", 1, 0))) for _ in range(5)]
        await settle()
        store.answers.set()
        outcomes = await asyncio.gather(*tasks)
        assert [isinstance(outcome.result, Decision) for outcome in outcomes] == [True] * 3 + [False] * 2

    run(main())


def test_a_queue_in_a_store_is_not_joined_if_its_delay_is_too_long() -> None:
    async def main() -> None:
        clock = ManualClock()
        store = LateStore(Policy.create("leaky-bucket", "1/s", 9), clock)
        store.answers.set()
        limiter = ResilientLimiter(store, "closed", clock)
        await store.hit("alice", 3)
        outcomes = await finish(clock, [limiter.wait("alice", 1, 2.999999999), limiter.wait("alice", 1, 3)])
        assert isinstance(outcomes[0].result, RateLimitExceeded)
        assert outcomes[0].result.decision.retry_after_ns == 3 * S
        assert (outcomes[1].at, store.charged) == (3 * S, 2)

    run(main())


def test_an_awaited_limiter_counts_those_who_wait() -> None:
    assert isinstance(AsyncValkeyLimiter(NOWHERE, "token-bucket", "1/s").waiting, Waiting)
