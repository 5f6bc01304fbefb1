"""The limiter in memory: exact under threads and tasks, bounded under a flood, fair on a clock that steps."""

from __future__ import annotations

import asyncio
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import pytest
from contracts import DAY, HOUR

from ratelab import Algorithm, InputError, ManualClock, MemoryLimiter, Quota, State, create
from ratelab.algorithms.token_bucket import TokenBucket

THREADS = 8
Result = TypeVar("Result")


@pytest.fixture
def limiter() -> type[MemoryLimiter]:
    """Return what is tested; the mutants take its place in test_mutants.py."""
    return MemoryLimiter


# --- hits, looks, resets and refusals


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


# --- threads and tasks


class Dawdler(TokenBucket):
    """A bucket that gives other threads all the time in the world between reading its state and writing it."""

    def step(self, state: State, now: int, cost: int) -> tuple[bool, int, int, int, int]:
        mine = list(state)
        for _ in range(100):
            pass
        decided = super().step(mine, now, cost)
        state[:] = mine
        return decided


def in_threads(work: Callable[[], Result]) -> list[Result]:
    """Do `work` in several threads that start together and switch as often as the interpreter lets them."""
    interval, start = sys.getswitchinterval(), Barrier(THREADS)

    def run() -> Result:
        start.wait()
        return work()

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            return [future.result() for future in [pool.submit(run) for _ in range(THREADS)]]
    finally:
        sys.setswitchinterval(interval)


def allowed_in_threads(limited: MemoryLimiter, hits: int) -> int:
    """Count what one key is allowed when every thread hits it so often."""
    return sum(in_threads(lambda: sum(limited.hit("hot").allowed for _ in range(hits))))


def test_threads_on_one_key_get_exactly_its_quota(limiter: type[MemoryLimiter]) -> None:
    for _ in range(5):
        assert allowed_in_threads(limiter(Dawdler.from_quota(Quota.parse("2000/day"))), 1000) == 2000


def test_threads_that_want_no_more_than_the_quota_are_never_denied(limiter: type[MemoryLimiter]) -> None:
    limited = limiter(Dawdler.from_quota(Quota(THREADS * 1000, DAY)))
    assert allowed_in_threads(limited, 1000) == THREADS * 1000
    assert not limited.hit("hot").allowed


def test_threads_that_touch_new_keys_together_share_each_keys_quota(limiter: type[MemoryLimiter]) -> None:
    limited = limiter(Dawdler.from_quota(Quota.parse("3/day")))
    keys = [f"key {n}" for n in range(2000)]
    allowed = in_threads(lambda: [key for key in keys if limited.hit(key).allowed])
    assert Counter(key for of_one in allowed for key in of_one) == dict.fromkeys(keys, 3)
    assert limited.stats == (len(keys), 0, 0)


def test_every_algorithm_is_exact_under_threads(kind: type[Algorithm]) -> None:
    limited = MemoryLimiter(kind.from_quota(Quota.parse("500/day")), ManualClock())
    assert allowed_in_threads(limited, 500) == 500


def test_a_thousand_tasks_get_exactly_the_quota() -> None:
    limited = MemoryLimiter(create("token-bucket", "100/day"))

    async def request() -> bool:
        await asyncio.sleep(0)
        return limited.hit("hot").allowed

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*(request() for _ in range(1000)))

    assert sum(asyncio.run(all_of_them())) == 100


# --- a clock that is set back


@pytest.mark.parametrize("back", [HOUR, DAY])
def test_after_a_step_back_waiting_as_told_is_enough(kind: type[Algorithm], back: int) -> None:
    clock = ManualClock(10 * DAY)
    limited = MemoryLimiter(kind.from_quota(Quota.parse("2/s", burst=5)), clock)
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


# --- more keys than there is room for


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
    clock, algorithm = ManualClock(), kind.from_quota(Quota.parse("2/s", burst=3))
    small, large = limiter(algorithm, clock, 100), MemoryLimiter(algorithm, clock)
    for n in range(5000):
        clock.advance(40_000_000)  # a key is in use for at most 3 s, so at most 75 at once
        key, cost = f"key {n * n % 397}", n % 4
        assert (small.hit(key, cost), small.stats.overflow_hits) == (large.hit(key, cost), 0)
    assert small.stats.evictions > 0
