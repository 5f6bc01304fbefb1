"""Mutants of kernels and of the memory limiter, each caught by a named contract or test."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import limiter_mutants as mutants
import pytest
import test_memory
import test_memory_capacity
import test_memory_threads
from contracts import clocks_set_back_lock_no_client_out, swinging_clocks_grant_nothing
from kernel_mutants import KERNELS, Mutant

from ratelab import ALGORITHMS, Algorithm, MemoryLimiter
from ratelab.lab.conformance import MOVES, ORIGINS, QUOTAS, Timeline

LimiterPromise = Callable[[type[MemoryLimiter]], None]

_draw = random.Random(20)
TIMELINES = [Timeline(_draw.choice(QUOTAS), _draw.choice(ORIGINS), _draw.choices(MOVES, k=20)) for _ in range(100)]
"""More than needed to catch each mutant; test_contracts.py checks the kernels on thousands."""


@cache  # each original is checked once, not once for each of its mutants
def keeps(promise: Callable[[Algorithm, Timeline], None], kind: type[Algorithm]) -> None:
    for timeline in TIMELINES:
        promise(kind.from_quota(timeline.quota), timeline)


@pytest.mark.parametrize("mutant", KERNELS.values(), ids=KERNELS.keys())
def test_a_mutant_of_a_kernel_breaks_its_contract(mutant: Mutant) -> None:
    keeps(mutant.breaks, mutant.original)
    with pytest.raises(AssertionError):
        keeps(mutant.breaks, mutant.made)


def swinging(limiter: type[MemoryLimiter]) -> None:
    keeps(lambda *case: swinging_clocks_grant_nothing(limiter, *case), ALGORITHMS["gcra"])


def set_back(limiter: type[MemoryLimiter]) -> None:
    keeps(lambda *case: clocks_set_back_lock_no_client_out(limiter, *case), ALGORITHMS["token-bucket"])


def flooded(limiter: type[MemoryLimiter]) -> None:
    test_memory_capacity.flood(limiter, names=2_000, max_keys=500)


def try_repeatedly(promise: LimiterPromise, limiter: type[MemoryLimiter]) -> None:
    """Repeat until the promise is broken: a race on one core may need several attempts."""
    for _ in range(50):
        promise(limiter)


LIMITERS: list[tuple[LimiterPromise, type[MemoryLimiter]]] = [
    (test_memory_threads.test_threads_on_one_key_get_exactly_its_quota, mutants.NoLock),
    (test_memory_threads.test_threads_that_want_no_more_than_the_quota_are_never_denied, mutants.NoLock),
    (test_memory_threads.test_threads_that_touch_new_keys_together_share_each_keys_quota, mutants.NoLock),
    (swinging, mutants.RawClock),
    (swinging, mutants.EveryStepForGood),
    (set_back, mutants.RawClock),
    (set_back, mutants.NoStepForGood),
    (flooded, mutants.DropsTheOldest),
    (flooded, mutants.DropsTheLeastRecentlyUsed),
    (flooded, mutants.KeepsAllKeys),
    (test_memory_capacity.test_a_newcomer_to_a_full_house_is_served, mutants.DeniesWhenFull),
    (test_memory_capacity.test_a_newcomer_who_gets_room_later_gets_no_fresh_quota, mutants.FreshAfterSharing),
    (test_memory_capacity.test_idle_keys_make_room_before_anything_is_shared, mutants.NeverDropsIdleKeys),
    (
        test_memory_capacity.test_idle_keys_go_while_there_is_room_so_that_memory_follows_the_traffic,
        mutants.NeverDropsIdleKeys,
    ),
    (test_memory.test_a_look_makes_no_key_and_takes_nothing, mutants.LookingMakesKeys),
]


@pytest.mark.parametrize(("promise", "mutant"), LIMITERS, ids=lambda part: part.__name__)
def test_a_mutant_of_the_limiter_breaks_its_promise(promise: LimiterPromise, mutant: type[MemoryLimiter]) -> None:
    promise(MemoryLimiter)
    with pytest.raises(AssertionError):
        try_repeatedly(promise, mutant)
