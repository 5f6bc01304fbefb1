"""The memory limiter with more keys than it has room for: memory is bounded, and no key gains or loses quota."""

from __future__ import annotations

import sys
import tracemalloc
from contextlib import suppress
from typing import ClassVar

import pytest

from ratelab import Algorithm, ManualClock, MemoryLimiter, Quota, State, create
from ratelab.algorithms import build_policy
from ratelab.algorithms.token_bucket import TokenBucket


def flood(limiter: type[MemoryLimiter], names: int, max_keys: int) -> None:
    """Check that a flood of new keys changes no used key and needs limited memory."""
    limited = limiter(create("fixed-window", "4/h"), ManualClock(), max_keys)
    limited.hit("attacker", 4)
    honest = [f"honest {n}" for n in range(10)]
    before = [limited.hit(key, 2) for key in honest]
    blocks = sys.getallocatedblocks()
    admitted = sum(limited.hit(f"flood {n}").allowed for n in range(names))
    assert admitted <= max_keys + 64 * 4  # the first hit of each kept key, and the bursts of the shared buckets
    assert limited.stats.keys <= max_keys
    assert sys.getallocatedblocks() - blocks < 8 * max_keys
    assert not limited.hit("attacker").allowed
    assert [limited.hit(key, 0) for key in honest] == before


@pytest.mark.slow
def test_a_flood_of_keys_obtains_no_quota_and_fills_no_memory() -> None:
    flood(MemoryLimiter, names=300_000, max_keys=30_000)


@pytest.mark.slow
def test_a_kept_key_needs_a_few_hundred_bytes() -> None:
    tracemalloc.start()
    limited = MemoryLimiter(create("token-bucket", "4/h"), ManualClock(), max_keys=5_000)
    for n in range(8_000):
        limited.hit(f"flood {n}")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert limited.stats.keys == 5_000
    assert peak < 640 * 5_000


def test_a_new_key_is_served_while_the_limiter_is_full(limiter: type[MemoryLimiter]) -> None:
    limited = limiter(create("token-bucket", "2/day"), ManualClock(), 100)
    for n in range(100):
        limited.hit(f"old {n}")
    assert limited.hit("new").allowed
    assert limited.stats == (100, 0, 1)


def test_a_key_that_gets_a_separate_state_gets_no_fresh_quota(limiter: type[MemoryLimiter]) -> None:
    clock = ManualClock()
    limited = limiter(create("token-bucket", "2/min"), clock, 10)
    for n in range(10):
        limited.hit(f"old {n}")  # fully replenished after 30 s
    clock.advance(29 * 10**9)
    limited.hit("new", 2)
    denied = limited.hit("new")
    assert (denied.allowed, denied.retry_after) == (False, 30)
    clock.advance(10**9)
    denied = limited.hit("new")  # now with a separate state
    assert (denied.allowed, denied.retry_after) == (False, 29)
    assert limited.stats.evictions > 0
    assert limited.stats.overflow_hits == 2


def test_idle_keys_are_evicted_before_states_are_shared(limiter: type[MemoryLimiter]) -> None:
    clock = ManualClock()
    limited = limiter(create("token-bucket", "2/min"), clock, 100)
    for n in range(50):
        limited.hit(f"idle {n}")
    clock.advance(30 * 10**9)
    busy = [limited.hit(f"busy {n}") for n in range(100)]
    assert limited.stats == (100, 50, 0)
    assert [limited.hit(f"busy {n}", 0) for n in range(100)] == busy


def test_idle_keys_are_evicted_while_there_is_room(limiter: type[MemoryLimiter]) -> None:
    clock = ManualClock()
    limited = limiter(create("token-bucket", "2/min"), clock, 1000)
    for n in range(100):
        limited.hit(f"before {n}")
    clock.advance(120 * 10**9)
    for n in range(50):
        limited.hit(f"after {n}")
    assert limited.stats == (50, 100, 0)


@pytest.mark.slow
def test_evicting_idle_keys_changes_no_decision(limiter: type[MemoryLimiter], kind: type[Algorithm]) -> None:
    clock, policy = ManualClock(), build_policy(kind, Quota.parse("2/s", burst=3))
    small, large = limiter(policy, clock, 100), MemoryLimiter(policy, clock)
    for n in range(5000):
        clock.advance(40_000_000)  # a key is in use for at most 3 s, so at most 75 at once
        key, cost = f"key {n * n % 397}", n % 4
        assert (small.hit(key, cost), small.stats.overflow_hits) == (large.hit(key, cost), 0)
    assert small.stats.evictions > 0


class FailingBucket(TokenBucket):
    """A bucket whose every seventh step raises an exception."""

    steps: ClassVar[list[int]] = []

    def step(self, state: State, now: int, cost: int) -> tuple[bool, int, int, int, int]:
        self.steps.append(now)
        if len(self.steps) % 7 == 0:
            raise ArithmeticError
        return super().step(state, now, cost)


def test_a_failing_step_neither_loses_keys_nor_exceeds_max_keys() -> None:
    limited = MemoryLimiter(build_policy(FailingBucket, Quota.parse("1/day", 2)), ManualClock(), max_keys=4)
    for n in range(50):
        with suppress(ArithmeticError):
            limited.hit(f"key {n}")
    assert sum(map(len, limited._table.shards)) == limited.stats.keys == 4
