"""A limiter whose store fails: what is decided meanwhile, what is counted, and what the operator is told."""

from __future__ import annotations

from typing import Any, cast

import pytest
from failing_stores import SECOND, Flaky, broken, decided

from ratelab import NEVER, Algorithm, InputError, ManualClock, MemoryLimiter, Quota, create
from ratelab.algorithms import build_policy
from ratelab.errors import StoreError
from ratelab.stores.resilient import ResilientLimiter


def refused(limiter: ResilientLimiter, key: str = "alice", cost: int = 1) -> StoreError:
    with pytest.raises(StoreError) as raised:
        decided(limiter, key, cost)
    return raised.value


# --- decisions


def test_a_store_that_answers_decides(kind: type[Algorithm]) -> None:
    policy = build_policy(kind, Quota.parse("2/s", burst=3))
    limiter, alone = ResilientLimiter(Flaky(policy), clock=ManualClock()), MemoryLimiter(policy, ManualClock())
    for cost in (0, 1, 2, 4, 1, 0):
        assert decided(limiter, cost=cost) == alone.hit("alice", cost)
    assert limiter.policy is policy
    assert limiter.health == (True, {}, 0)


def test_an_outage_starts_with_what_the_store_let_through_here(kind: type[Algorithm]) -> None:
    policy = build_policy(kind, Quota.parse("1/h", burst=5))
    store = Flaky(policy)
    limiter = ResilientLimiter(store, clock=ManualClock())
    for cost in (2, 0, 4, 1):  # the third is denied, and not charged
        decided(limiter, cost=cost)
    store.fail()
    assert [decided(limiter).allowed for _ in range(5)] == [True, True, False, False, False]
    assert decided(limiter, "bob").remaining == 4


def test_a_quota_is_kept_and_refilled_through_an_outage() -> None:
    clock = ManualClock()
    limiter = broken(Flaky(), "local", clock)
    assert [decided(limiter).allowed for _ in range(6)] == [True] * 5 + [False]
    clock.advance(decided(limiter).retry_after_ns)
    assert [decided(limiter).allowed for _ in range(2)] == [True, False]


def test_what_the_store_denies_is_denied_but_not_charged_here() -> None:
    store = Flaky()
    store.memory.hit("alice", 5)  # by another process
    limiter = ResilientLimiter(store, clock=ManualClock())
    assert not decided(limiter).allowed
    store.fail()
    assert decided(limiter, cost=0).remaining == 5


def test_no_more_is_kept_in_memory_than_there_is_room_for() -> None:
    store = Flaky()
    limiter = ResilientLimiter(store, clock=ManualClock(), max_keys=2)
    for key in ("alice", "bob", "carol"):
        decided(limiter, key)
    assert limiter.stats == (2, 0, 1)


@pytest.mark.parametrize("on_store_error", ["open", "closed"])
def test_nothing_is_kept_in_memory_that_is_not_needed(on_store_error: str) -> None:
    limiter = ResilientLimiter(Flaky(), on_store_error, ManualClock())
    decided(limiter)
    assert limiter.stats == (0, 0, 0)


def test_an_open_door_lets_every_key_through_as_new_but_no_cost_above_the_burst(kind: type[Algorithm]) -> None:
    policy = build_policy(kind, Quota.parse("2/s", burst=3))
    limiter = broken(Flaky(policy), "open")
    new = MemoryLimiter(policy, ManualClock()).hit("anybody", 2)
    assert [decided(limiter, cost=2) for _ in range(9)] == [new] * 9
    assert (decided(limiter, cost=4).allowed, decided(limiter, cost=4).retry_after_ns) == (False, NEVER)


def test_a_closed_door_says_why_and_when_to_come_back() -> None:
    store = Flaky()
    limiter = ResilientLimiter(store, "closed", ManualClock())
    store.fail("readonly", "the store is a replica")
    told = [refused(limiter) for _ in range(4)]
    assert [error.kind for error in told] == ["readonly"] * 3 + ["down"]
    assert [error.retry_after_ns for error in told] == [SECOND] * 4
    assert str(told[0]) == "the store is a replica"


@pytest.mark.parametrize(("on_store_error", "allowed"), [("local", [True, False]), ("open", [True, True])])
def test_each_request_that_fails_is_answered_alike_before_the_store_is_found_down(
    on_store_error: str, allowed: list[bool]
) -> None:
    store = Flaky(create("gcra", "1/h", 1))
    limiter = ResilientLimiter(store, on_store_error, ManualClock())
    store.fail()
    assert [decided(limiter).allowed for _ in range(2)] == allowed
    assert limiter.health == (True, {"timeout": 2}, 2)


# --- requests that are no fault of the store


@pytest.mark.parametrize("cost", [-1, True, 1.0, "1", None])
@pytest.mark.parametrize("down", [False, True])
def test_a_cost_that_is_no_whole_number_is_refused_and_says_nothing_of_the_store(cost: int, down: bool) -> None:
    store, clock = Flaky(), ManualClock()
    limiter = broken(store, "closed", clock) if down else ResilientLimiter(store, "closed", clock)
    before = limiter.health
    clock.advance(SECOND)
    for _ in range(4):
        with pytest.raises(InputError, match="cost must be a whole number >= 0, got"):
            decided(limiter, cost=cost)
    assert (limiter.health, limiter.stats.keys, store.asked) == (before, 0, [])


def test_what_else_a_store_raises_is_raised_and_says_nothing_of_the_store() -> None:
    store, clock = Flaky(), ManualClock()
    limiter = broken(store, clock=clock)
    store.error = InputError("key must be text")
    for _ in range(3):
        clock.advance(SECOND)
        with pytest.raises(InputError, match="key must be text"):
            decided(limiter)
    assert limiter.health == (False, {"timeout": 3}, 3)


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"on_store_error": "ignore"}, "on_store_error must be one of local, open, closed, got 'ignore'"),
    ({"on_store_error": None}, "on_store_error must be one of local, open, closed, got None"),
    ({"max_keys": 0}, "max_keys must be a whole number >= 1, got 0"),
    ({"store": None}, "store must be an asynchronous limiter, such as AsyncValkeyLimiter, got None"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=[str(options) for options, _ in MISTAKES])
def test_a_mistake_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        ResilientLimiter(**{"store": Flaky(), **options})
    assert str(raised.value) == message


def test_a_limiter_that_is_not_awaited_is_no_store() -> None:
    with pytest.raises(InputError, match="store must be an asynchronous limiter"):
        ResilientLimiter(cast("Any", MemoryLimiter(create("gcra", "2/s"))))
