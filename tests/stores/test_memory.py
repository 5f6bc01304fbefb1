"""The memory limiter: keys that it keeps, resets and invalid arguments; limiter_suite.py has its other promises."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest
from limiter_suite import INVALID_COSTS

from ratelab import Algorithm, Decision, InputError, ManualClock, MemoryLimiter, Quota, create
from ratelab.algorithms import build_policy
from ratelab.quota import NS_PER_S


def test_cost_zero_keeps_no_key(limiter: type[MemoryLimiter]) -> None:
    limited = limiter(create("token-bucket", "2/day"), ManualClock())
    assert limited.hit("alice", 0).row == (True, 2, 0, 0, 0)
    assert limited.stats.keys == 0
    used = limited.hit("alice")
    assert [limited.hit("alice", 0) for _ in range(3)] == [used] * 3
    assert limited.stats == (1, 0, 0)


@pytest.mark.parametrize("cost", INVALID_COSTS)
def test_an_invalid_cost_keeps_no_key(cost: int) -> None:
    limited = MemoryLimiter(create("token-bucket", "2/s", burst=5), ManualClock())
    limited.hit("alice")
    with pytest.raises(InputError, match="cost must be a whole number >= 0, got"):
        limited.hit("new", cost)
    assert limited.stats == (1, 0, 0)


@pytest.mark.parametrize("max_keys", [0, -1, True, 1.0, "1", None])
def test_max_keys_must_be_a_whole_number_above_zero(max_keys: int) -> None:
    with pytest.raises(InputError, match="max_keys must be a whole number >= 1, got"):
        MemoryLimiter(create("token-bucket", "2/s"), max_keys=max_keys)


async def asynchronous_clock() -> int:
    return 0


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.parametrize("clock", [time.time, time.monotonic, lambda: None, lambda: "1", asynchronous_clock, 7.5])
def test_a_clock_must_return_whole_nanoseconds(limiter: type[MemoryLimiter], clock: Any) -> None:
    with pytest.raises(InputError, match=r"clock must return whole nanoseconds, as time\.monotonic_ns does, got "):
        limiter(create("token-bucket", "2/s"), clock)


def test_hit_row_returns_the_fields_of_hit_as_a_plain_tuple(kind: type[Algorithm]) -> None:
    clock = ManualClock()
    limiters = [MemoryLimiter(build_policy(kind, Quota.parse("2/s", burst=3)), clock, max_keys=2) for _ in range(2)]
    for key, cost in (("alice", 1), ("alice", 5), ("bob", 0), ("bob", 3), ("carol", 2), ("bob", 1), ("carol", 2)):
        clock.advance(NS_PER_S // 10)
        decision, row = limiters[0].hit(key, cost), limiters[1].hit_row(key, cost)
        assert row == decision.row
        assert (type(decision), type(row)) == (Decision, tuple)
    assert limiters[0].stats == limiters[1].stats


def test_reset_restores_the_quota_of_one_key() -> None:
    limited = MemoryLimiter(create("token-bucket", "2/day"), ManualClock())
    for key in ("alice", "bob"):
        limited.hit(key, 2)
    limited.reset("alice")
    limited.reset("new")
    assert [limited.hit(key).allowed for key in ("alice", "bob", "new")] == [True, False, True]


def test_reset_restores_the_overflow_bucket_of_a_key() -> None:
    limited = MemoryLimiter(create("token-bucket", "2/day"), ManualClock(), max_keys=1)
    limited.hit("alice")
    limited.hit("late", 2)
    assert not limited.hit("late").allowed
    limited.reset("late")
    assert limited.hit("late").allowed
    assert limited.stats == (1, 0, 3)


def test_reset_gives_a_key_a_separate_state_if_there_is_room() -> None:
    clock = ManualClock()
    limited = MemoryLimiter(create("token-bucket", "2/day"), clock, max_keys=1)
    limited.hit("alice")
    assert [limited.hit("late", 2).allowed, limited.hit("late").allowed] == [True, False]
    limited.reset("alice")
    limited.hit("bob", 0)  # evicts alice, who is fully replenished
    limited.reset("late")
    assert limited.hit("late", 2).allowed
    assert limited.stats.keys == 1


def test_an_unused_limiter_of_long_logs_needs_little_memory() -> None:
    tracemalloc.start()
    MemoryLimiter(create("sliding-log", "1000000/day"))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 1_000_000
