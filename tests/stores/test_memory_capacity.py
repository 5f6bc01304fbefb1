"""More keys than the limiter in memory has room for: it stays bounded, and no key gains or loses by it."""

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
    """See that an exhausted key stays so, a half-used one keeps its half, and memory stays within bounds."""
    limited = limiter(create("fixed-window", "4/h"), ManualClock(), max_keys)
    limited.hit("attacker", 4)
    honest = [f"honest {n}" for n in range(10)]
    before = [limited.hit(key, 2) for key in honest]
    blocks = sys.getallocatedblocks()
    admitted = sum(limited.hit(f"flood {n}").allowed for n in range(names))
    assert admitted <= max_keys + 64 * 4  # each key its own first hit, and what the shared buckets hold
    assert limited.stats.keys <= max_keys
    assert sys.getallocatedblocks() - blocks < 8 * max_keys
    assert not limited.hit("attacker").allowed
    assert [limited.hit(key, 0) for key in honest] == before


@pytest.mark.slow
def test_a_flood_of_a_million_names_buys_nothing_and_fills_no_memory() -> None:
    flood(MemoryLimiter, names=1_000_000, max_keys=100_000)


def test_a_kept_key_costs_a_few_hundred_bytes() -> None:
    tracemalloc.start()
    limited = MemoryLimiter(create("token-bucket", "4/h"), ManualClock(), max_keys=5_000)
    for n in range(8_000):
        limited.hit(f"flood {n}")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert limited.stats.keys == 5_000
    assert peak < 640 * 5_000


def test_a_newcomer_to_a_full_house_is_served(limiter: type[MemoryLimiter]) -> None:
    limited = limiter(create("token-bucket", "2/day"), ManualClock(), 100)
    for n in range(100):
        limited.hit(f"resident {n}")
    assert limited.hit("newcomer").allowed
    assert limited.stats == (100, 0, 1)


def test_a_newcomer_who_gets_room_later_gets_no_fresh_quota(limiter: type[MemoryLimiter]) -> None:
    clock = ManualClock()
    limited = limiter(create("token-bucket", "2/min"), clock, 10)
    for n in range(10):
        limited.hit(f"resident {n}")  # as new after 30 s
    clock.advance(29 * 10**9)
    limited.hit("newcomer", 2)
    denied = limited.hit("newcomer")
    assert (denied.allowed, denied.retry_after) == (False, 30)
    clock.advance(10**9)
    denied = limited.hit("newcomer")  # in a place of its own by now
    assert (denied.allowed, denied.retry_after) == (False, 29)
    assert limited.stats.evictions > 0
    assert limited.stats.overflow_hits == 2


def test_idle_keys_make_room_before_anything_is_shared(limiter: type[MemoryLimiter]) -> None:
    clock = ManualClock()
    limited = limiter(create("token-bucket", "2/min"), clock, 100)
    for n in range(50):
        limited.hit(f"idle {n}")
    clock.advance(30 * 10**9)
    busy = [limited.hit(f"busy {n}") for n in range(100)]
    assert limited.stats == (100, 50, 0)
    assert [limited.hit(f"busy {n}", 0) for n in range(100)] == busy


def test_idle_keys_go_while_there_is_room_so_that_memory_follows_the_traffic(limiter: type[MemoryLimiter]) -> None:
    clock = ManualClock()
    limited = limiter(create("token-bucket", "2/min"), clock, 1000)
    for n in range(100):
        limited.hit(f"before {n}")
    clock.advance(120 * 10**9)
    for n in range(50):
        limited.hit(f"after {n}")
    assert limited.stats == (50, 100, 0)


def test_dropping_idle_keys_changes_no_decision(limiter: type[MemoryLimiter], kind: type[Algorithm]) -> None:
    clock, policy = ManualClock(), build_policy(kind, Quota.parse("2/s", burst=3))
    small, large = limiter(policy, clock, 100), MemoryLimiter(policy, clock)
    for n in range(5000):
        clock.advance(40_000_000)  # a key is in use for at most 3 s, so at most 75 at once
        key, cost = f"key {n * n % 397}", n % 4
        assert (small.hit(key, cost), small.stats.overflow_hits) == (large.hit(key, cost), 0)
    assert small.stats.evictions > 0


class Stumbling(TokenBucket):
    """A bucket whose every seventh step fails."""

    steps: ClassVar[list[int]] = []

    def step(self, state: State, now: int, cost: int) -> tuple[bool, int, int, int, int]:
        self.steps.append(now)
        if len(self.steps) % 7 == 0:
            raise ArithmeticError
        return super().step(state, now, cost)


def test_a_step_that_fails_neither_loses_a_key_nor_keeps_too_many() -> None:
    limited = MemoryLimiter(build_policy(Stumbling, Quota.parse("1/day", 2)), ManualClock(), max_keys=4)
    for n in range(50):
        with suppress(ArithmeticError):
            limited.hit(f"key {n}")
    assert sum(map(len, limited._shards)) == limited.stats.keys == 4
