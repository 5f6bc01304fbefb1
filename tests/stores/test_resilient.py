"""Decisions of a limiter whose store fails: fallbacks, counters and invalid arguments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from failing_stores import (
    SECOND,
    FlakyStore,
    create_limiter,
    decide,
    finish,
    limiter_with_store_down,
)

from ratelab import NEVER, Algorithm, Decision, InputError, ManualClock, MemoryLimiter, Quota, create
from ratelab.algorithms import build_policy
from ratelab.errors import StoreError
from ratelab.limiter import Costs, Keys
from ratelab.stores.blocking_resilient import BlockingResilientLimiter
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter


def raised_error(limiter: Any, key: str = "alice", cost: int = 1) -> StoreError:
    with pytest.raises(StoreError) as raised:
        decide(limiter, key, cost)
    return raised.value


pytestmark = pytest.mark.usefixtures("both_forms")


# --- decisions


def test_a_reset_restores_the_quota_in_the_store_and_in_the_fallback() -> None:
    store = FlakyStore()
    limiter = create_limiter(store, clock=ManualClock())
    for _ in range(2):
        assert decide(limiter, cost=5).allowed
        finish(limiter.reset("alice"))
    decide(limiter, cost=5)
    store.fail()
    assert not decide(limiter).allowed  # by the fallback, which was charged
    with pytest.raises(StoreError, match="no answer"):
        finish(limiter.reset("alice"))
    assert decide(limiter).remaining == 4
    store.recover()
    assert not decide(limiter).allowed  # by the store, which did not confirm the reset


def test_a_reset_needs_a_store_that_has_one() -> None:
    class HitOnly:
        policy = create("gcra", "2/s")
        policies = (policy,)

        async def hit(self, key: Keys, cost: Costs = 1) -> Decision:
            raise AssertionError

        async def hit_each(self, key: Keys, cost: Costs = 1) -> tuple[Decision, tuple[Decision, ...]]:
            raise AssertionError

    with pytest.raises(InputError, match="has no reset: use a store such as"):
        finish(create_limiter(HitOnly()).reset("alice"))


def test_a_store_that_is_up_takes_every_decision() -> None:
    store = FlakyStore()
    limiter = create_limiter(store, clock=ManualClock())
    hits = [("alice", 0), ("alice", 1), ("bob", 6), ("alice", 4)]
    decisions = [decide(limiter, key, cost) for key, cost in hits]
    assert [decision.allowed for decision in decisions] == [True, True, False, True]
    assert (store.calls, limiter.health) == (hits, (True, {}, 0))


def test_an_error_that_a_caller_keeps_does_not_keep_the_probe() -> None:
    store, clock = FlakyStore(), ManualClock()
    limiter = limiter_with_store_down(store, "closed", clock)
    kept = []
    for number in range(1, 4):
        clock.advance(SECOND)
        kept.append(raised_error(limiter))  # with the frames of its traceback
        assert len(store.calls) == number


def test_an_outage_starts_with_the_charges_of_requests_admitted_here(kind: type[Algorithm]) -> None:
    clock, policy = ManualClock(), build_policy(kind, Quota.parse("1/h", burst=5))
    store, charged = FlakyStore(policy), MemoryLimiter(policy, clock)
    limiter = create_limiter(store, clock=clock)
    for cost in (2, 0, 4, 1):  # the third is denied and not charged
        if decide(limiter, cost=cost).allowed:
            charged.hit("alice", cost)
    store.fail()
    assert [decide(limiter) for _ in range(5)] == [charged.hit("alice") for _ in range(5)]
    assert decide(limiter, "bob") == charged.hit("bob")


def test_a_request_that_the_store_denies_is_not_charged_here() -> None:
    store = FlakyStore()
    store.memory.hit("alice", 5)  # by another process
    limiter = create_limiter(store, clock=ManualClock())
    assert not decide(limiter).allowed
    store.fail()
    assert decide(limiter, cost=0).remaining == 5


def test_the_fallback_keeps_at_most_max_keys() -> None:
    limiter = create_limiter(FlakyStore(), clock=ManualClock(), max_keys=2)
    for key in ("alice", "bob", "carol"):
        decide(limiter, key)
    assert limiter.stats == (2, 0, 1)


@pytest.mark.parametrize("on_store_error", ["open", "closed"])
def test_only_the_local_fallback_keeps_keys(on_store_error: str) -> None:
    limiter = create_limiter(FlakyStore(), on_store_error, ManualClock())
    decide(limiter)
    assert limiter.stats == (0, 0, 0)


def test_failing_open_treats_every_key_as_new(kind: type[Algorithm]) -> None:
    policy = build_policy(kind, Quota.parse("2/s", burst=3))
    limiter = limiter_with_store_down(FlakyStore(policy), "open")
    new = MemoryLimiter(policy, ManualClock()).hit("new", 2)
    assert [decide(limiter, cost=2) for _ in range(9)] == [new] * 9
    assert (decide(limiter, cost=4).allowed, decide(limiter, cost=4).retry_after_ns) == (False, NEVER)


def test_failing_closed_raises_the_reason_and_when_to_retry() -> None:
    store = FlakyStore()
    limiter = create_limiter(store, "closed", ManualClock())
    store.fail("readonly", "the store is a replica")
    errors = [raised_error(limiter) for _ in range(4)]
    assert [error.kind for error in errors] == ["readonly"] * 3 + ["down"]
    assert [error.retry_after_ns for error in errors] == [SECOND] * 4
    assert str(errors[0]) == "the store is a replica"


@pytest.mark.parametrize(("on_store_error", "allowed"), [("local", [True, False]), ("open", [True, True])])
def test_the_fallback_decides_before_the_store_counts_as_down(on_store_error: str, allowed: list[bool]) -> None:
    store = FlakyStore(create("gcra", "1/h", 1))
    limiter = create_limiter(store, on_store_error, ManualClock())
    store.fail()
    assert [decide(limiter).allowed for _ in range(2)] == allowed
    assert limiter.health == (True, {"timeout": 2}, 2)


# --- errors that are not failures of the store


@pytest.mark.parametrize("cost", [-1, True, 1.0, "1", None])
@pytest.mark.parametrize("down", [False, True])
def test_an_invalid_cost_does_not_count_as_a_failure(cost: int, down: bool) -> None:
    store, clock = FlakyStore(), ManualClock()
    make = limiter_with_store_down if down else create_limiter
    limiter = make(store, "closed", clock)
    before = limiter.health
    clock.advance(SECOND)
    for _ in range(4):
        with pytest.raises(InputError, match="cost must be a whole number >= 0, got"):
            decide(limiter, cost=cost)
    assert (limiter.health, limiter.stats.keys, store.calls) == (before, 0, [])


def test_other_exceptions_of_a_store_pass_and_do_not_count() -> None:
    store, clock = FlakyStore(), ManualClock()
    limiter = limiter_with_store_down(store, clock=clock)
    store.error = InputError("key must be text")
    for _ in range(3):
        clock.advance(SECOND)
        with pytest.raises(InputError, match="key must be text"):
            decide(limiter)
    assert limiter.health == (False, {"timeout": 3}, 3)


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"on_store_error": "ignore"}, "on_store_error must be one of local, open, closed, got 'ignore'"),
    ({"on_store_error": None}, "on_store_error must be one of local, open, closed, got None"),
    ({"max_keys": 0}, "max_keys must be a whole number >= 1, got 0"),
]


@pytest.mark.parametrize(("options", "message"), INVALID, ids=[str(options) for options, _ in INVALID])
def test_an_invalid_argument_is_rejected_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        create_limiter(FlakyStore(), **options)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("limiter", "store", "message"),
    [
        (ResilientLimiter, None, "store must be an asynchronous limiter, such as AsyncValkeyLimiter, got None"),
        (
            ResilientLimiter,
            MemoryLimiter(create("gcra", "2/s")),
            "store must be an asynchronous limiter, such as Async",
        ),
        (BlockingResilientLimiter, None, "store must be a limiter that blocks, such as ValkeyLimiter, got None"),
        (BlockingResilientLimiter, FlakyStore(), "store must be a limiter that blocks, such as ValkeyLimiter, got"),
    ],
)
def test_a_store_of_the_other_form_is_rejected(limiter: Any, store: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        limiter(store)


class Unchangeable(MemoryLimiter):
    """A store that rejects every change of its policies."""

    def update(self, *arguments: object, **options: object) -> None:
        raise InputError("no")


def test_a_change_that_the_store_rejects_does_not_change_the_fallback() -> None:
    first, second = (create("gcra", rate) for rate in ("1/s", "2/s"))
    limiter = BlockingResilientLimiter(Unchangeable(first))
    with pytest.raises(InputError, match="no"):
        limiter.update(second)
    assert limiter.plans.policies == (first,)


@pytest.mark.parametrize("fallback", ["local", "open", "closed"])
def test_a_look_while_the_store_is_down_is_one_at_the_local_fallback(fallback: str) -> None:
    url, plans = "unix:///nowhere", {"more": {"gcra": "9/h"}}

    def check(look: Callable[[], int]) -> None:
        if fallback == "local":
            assert look() == 7
        else:
            with pytest.raises(StoreError):
                look()

    async def look_in_a_task() -> int:
        limiter = ResilientLimiter(AsyncValkeyLimiter(url, "gcra", "5/h", plans=plans), fallback)
        if fallback == "local":
            await limiter.hit("alice", 2, plan="more")
        return (await limiter.look("alice"))["gcra"].remaining

    def look_in_a_thread() -> int:
        with ValkeyLimiter(url, "gcra", "5/h", plans=plans, name="blocking") as store:
            limiter = BlockingResilientLimiter(store, fallback)
            if fallback == "local":
                limiter.hit("alice", 2, plan="more")
            return limiter.look("alice")["gcra"].remaining

    check(lambda: asyncio.run(look_in_a_task()))
    check(look_in_a_thread)
