"""Waiting for limiters in a store: spread clients, and stores that answer late or not at all."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from failing_stores import FlakyStore
from waiting_runs import PATIENCE_S, finish, note, pass_time, run, settle

from ratelab import Decision, ManualClock, MemoryLimiter, Policy, RateLimitExceeded
from ratelab.clock import default_clocks
from ratelab.errors import StoreError
from ratelab.limiter import Costs, Keys
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.waiting import Waiting
from ratelab.stores.waiting_lines import MAX_JITTER_NS, Attempt, Lines, Sleep

S, MS = 10**9, 10**6
NOWHERE = "valkey://127.0.0.1:1"
MINUTE = "1/min"


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
    monkeypatch.setattr("ratelab.stores.waiting_lines.random.randint", lambda *_: pytest.fail("spread"))
    limiter = MemoryLimiter(Policy.create("token-bucket", "500/s", 1))
    assert all(limiter.wait("alice").allowed for _ in range(3))


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
