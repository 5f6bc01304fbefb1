"""Mutants of the memory limiter, each caught by a named test or promise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from random import Random

import limiter_mutants as mutants
import limiter_suite as suite
import pytest
import test_memory
import test_memory_capacity
import test_memory_interrupts as interrupts
import test_memory_threads
from limiter_subjects import Factory, Subject, call_in_threads
from limiter_suite import Promise, TimelinePromise

from ratelab import ALGORITHMS, ManualClock, MemoryLimiter, Policy
from ratelab.lab.conformance import MOVES, ORIGINS, QUOTAS, Timeline

pytestmark = pytest.mark.slow

Check = Callable[[type[MemoryLimiter]], None]


_random = Random(20)
TIMELINES = [
    Timeline(_random.choice(QUOTAS), _random.choice(ORIGINS), _random.choices(MOVES, k=20)) for _ in range(100)
]


def check_promise(promise: Promise, algorithm: str) -> Check:
    """Return a check that a class keeps a promise of the limiter suite."""

    def check(limiter: type[MemoryLimiter]) -> None:
        promise(factory(limiter), ALGORITHMS[algorithm])

    check.__name__ = promise.__name__
    return check


def check_timelines(promise: TimelinePromise, algorithm: str) -> Check:
    """Return a check that a class keeps a promise of the limiter suite on every timeline."""

    def check(limiter: type[MemoryLimiter]) -> None:
        for timeline in TIMELINES:
            promise(factory(limiter), ALGORITHMS[algorithm].from_quota(timeline.quota), timeline)

    check.__name__ = promise.__name__
    return check


def factory(limiter: type[MemoryLimiter]) -> Factory:
    def make(policy: Policy, start: int) -> AbstractContextManager[Subject]:
        clock = ManualClock(start)
        return call_in_threads(limiter(policy, clock), clock)

    return make


def flood(limiter: type[MemoryLimiter]) -> None:
    test_memory_capacity.flood(limiter, names=2_000, max_keys=500)


MUTANTS: list[tuple[Check, type[MemoryLimiter]]] = [
    (test_memory_threads.test_threads_on_one_key_get_exactly_its_quota, mutants.CommitsBlindly),
    (test_memory_threads.test_threads_within_the_quota_are_never_denied, mutants.CommitsBlindly),
    (test_memory_threads.test_threads_on_new_keys_get_exactly_the_quota_of_each, mutants.CommitsBlindly),
    (check_timelines(suite.time_stands_still_while_the_clock_lags, "gcra"), mutants.TrustsTheClock),
    (check_timelines(suite.time_stands_still_while_the_clock_lags, "gcra"), mutants.AcceptsSmallSteps),
    (check_timelines(suite.time_continues_after_a_clock_is_set_back, "token-bucket"), mutants.TrustsTheClock),
    (check_timelines(suite.time_continues_after_a_clock_is_set_back, "token-bucket"), mutants.IgnoresLargeSteps),
    (check_promise(suite.a_jittering_clock_grants_nothing, "gcra"), mutants.AcceptsSmallSteps),
    (check_promise(suite.a_clock_set_back_extends_no_wait, "token-bucket"), mutants.TrustsTheClock),
    (check_promise(suite.a_clock_set_back_extends_no_wait, "token-bucket"), mutants.IgnoresLargeSteps),
    (flood, mutants.EvictsTheOldest),
    (flood, mutants.EvictsTheLeastRecentlyUsed),
    (flood, mutants.IgnoresMaxKeys),
    (test_memory_capacity.test_a_new_key_is_served_while_the_limiter_is_full, mutants.DeniesWhenFull),
    (test_memory_capacity.test_a_key_that_gets_a_separate_state_gets_no_fresh_quota, mutants.ForgetsOverflow),
    (test_memory_capacity.test_idle_keys_are_evicted_before_states_are_shared, mutants.NeverEvicts),
    (test_memory_capacity.test_idle_keys_are_evicted_while_there_is_room, mutants.NeverEvicts),
    (test_memory.test_cost_zero_keeps_no_key, mutants.KeepsUnusedKeys),
]


HITS, EXCEPTIONS = interrupts.check_nested_hits, interrupts.check_exceptions
INTERRUPTED: list[tuple[Callable[..., None], interrupts.Setup, str, type[MemoryLimiter]]] = [
    (HITS, interrupts.a_known_key, "alice", mutants.CommitsBlindly),
    (HITS, interrupts.a_known_key, "alice", mutants.ChangesStatesInPlace),
    (HITS, interrupts.a_new_key, "alice", mutants.OverwritesNewKeys),
    (HITS, interrupts.a_new_key_for_the_last_place, "alice", mutants.ChargesTwoStates),
    (HITS, interrupts.a_new_key_for_the_last_place, "bob", mutants.ReservesNoRoom),
    (EXCEPTIONS, interrupts.a_new_key, "", mutants.QueuesLate),
    (EXCEPTIONS, interrupts.a_new_key, "", mutants.ReleasesOnSuccess),
]
"""Mutants that interrupts break. That they do not break the original is checked in test_memory_interrupts.py."""


def check_repeatedly(check: Check, limiter: type[MemoryLimiter]) -> None:
    """Check until the first failure: once, except for a race on a machine with one processor."""
    for _ in range(50):
        check(limiter)


@pytest.mark.parametrize(("check", "mutant"), MUTANTS, ids=lambda part: part.__name__)
def test_a_mutant_fails_a_check_that_the_original_passes(check: Check, mutant: type[MemoryLimiter]) -> None:
    check(MemoryLimiter)
    with pytest.raises(AssertionError):
        check_repeatedly(check, mutant)


@pytest.mark.parametrize(
    ("check", "setup", "key", "mutant"), INTERRUPTED, ids=[mutant.__name__ for *_, mutant in INTERRUPTED]
)
def test_an_interrupt_breaks_a_mutant(
    check: Callable[..., None], setup: interrupts.Setup, key: str, mutant: type[MemoryLimiter]
) -> None:
    with pytest.raises(AssertionError):
        check(mutant, ALGORITHMS["token-bucket"], setup, *filter(None, [key]), step=interrupts.STEP)
