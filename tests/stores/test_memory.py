"""The limiter in memory: hits, looks, resets, refusals, and a clock that is set back."""

from __future__ import annotations

import tracemalloc

import pytest
from contracts import DAY, HOUR

from ratelab import Algorithm, InputError, ManualClock, MemoryLimiter, Quota, create
from ratelab.algorithms import build_policy


def test_a_look_makes_no_key_and_takes_nothing(limiter: type[MemoryLimiter]) -> None:
    limited = limiter(create("token-bucket", "2/day"), ManualClock())
    assert limited.hit("alice", 0) == (True, 2, 0, 0, 0)
    assert limited.stats.keys == 0
    used = limited.hit("alice")
    assert [limited.hit("alice", 0) for _ in range(3)] == [used] * 3
    assert limited.stats == (1, 0, 0)


def test_keys_do_not_share_a_quota() -> None:
    limited = MemoryLimiter(create("fixed-window", "1/day"), ManualClock())
    assert [limited.hit(key).allowed for key in ("alice", "bob", "alice", "bob")] == [True, True, False, False]


def test_a_cost_above_burst_is_denied_for_ever() -> None:
    limited = MemoryLimiter(create("token-bucket", "2/s", burst=5), ManualClock())
    denied = limited.hit("alice", 6)
    assert (denied.allowed, denied.remaining, denied.retry_after) == (False, 5, float("inf"))


@pytest.mark.parametrize("cost", [-1, True, 1.0, 1.5, float("nan"), "1", None, [1]])
def test_a_cost_that_is_no_whole_number_is_refused_and_changes_nothing(cost: int) -> None:
    limited = MemoryLimiter(create("token-bucket", "2/s", burst=5), ManualClock())
    used = limited.hit("alice")
    for key in ("alice", "stranger"):
        with pytest.raises(InputError, match="cost must be a whole number >= 0, got"):
            limited.hit(key, cost)
    assert limited.hit("alice", 0) == used
    assert limited.stats == (1, 0, 0)


@pytest.mark.parametrize("max_keys", [0, -1, True, 1.0, "1", None])
def test_max_keys_must_be_a_whole_number_above_zero(max_keys: int) -> None:
    with pytest.raises(InputError, match="max_keys must be a whole number >= 1, got"):
        MemoryLimiter(create("token-bucket", "2/s"), max_keys=max_keys)


def test_reset_gives_a_key_its_quota_back_and_no_other_key() -> None:
    limited = MemoryLimiter(create("token-bucket", "2/day"), ManualClock())
    for key in ("alice", "bob"):
        limited.hit(key, 2)
    limited.reset("alice")
    limited.reset("stranger")
    assert [limited.hit(key).allowed for key in ("alice", "bob", "stranger")] == [True, False, True]


def test_reset_empties_the_bucket_that_a_key_shares() -> None:
    limited = MemoryLimiter(create("token-bucket", "2/day"), ManualClock(), max_keys=1)
    limited.hit("alice")
    limited.hit("late", 2)
    assert not limited.hit("late").allowed
    limited.reset("late")
    assert limited.hit("late").allowed
    assert limited.stats == (1, 0, 3)


def test_reset_gives_a_key_its_own_state_once_there_is_room() -> None:
    clock = ManualClock()
    limited = MemoryLimiter(create("token-bucket", "2/day"), clock, max_keys=1)
    limited.hit("alice")
    assert [limited.hit("late", 2).allowed, limited.hit("late").allowed] == [True, False]
    limited.reset("alice")
    limited.hit("bob", 0)  # finds alice as good as new, and drops her
    limited.reset("late")
    assert limited.hit("late", 2).allowed
    assert limited.stats.keys == 1


def test_a_limiter_of_long_logs_costs_nothing_until_it_is_used() -> None:
    tracemalloc.start()
    MemoryLimiter(create("sliding-log", "1000000/day"))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 1_000_000


# --- a clock that is set back


@pytest.mark.parametrize("back", [HOUR, DAY])
def test_after_a_step_back_waiting_as_told_is_enough(kind: type[Algorithm], back: int) -> None:
    clock = ManualClock(10 * DAY)
    limited = MemoryLimiter(build_policy(kind, Quota.parse("2/s", burst=5)), clock)
    limited.hit("exhausted", 5)
    limited.hit("half used", 2)
    clock.advance(-back)
    assert limited.hit("half used", 3).allowed
    denied = limited.hit("exhausted")
    assert not denied.allowed
    assert 0 < denied.retry_after <= 5  # two windows, the most that any algorithm can ask for
    clock.advance(denied.retry_after_ns - 1)
    assert not limited.hit("exhausted").allowed
    clock.advance(1)
    assert limited.hit("exhausted").allowed
