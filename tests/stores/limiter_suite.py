"""Promises of every limiter, as functions of a factory that makes one.

A new store needs one factory, as in test_limiter_suite.py and, for a server, test_store_promises.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from random import Random
from typing import Any

import pytest
from durations import DAY, HOUR, SECOND
from limiter_subjects import Factory, Subject

from ratelab import NEVER, Algorithm, InputError, Policy, Quota
from ratelab.algorithms import build_policy
from ratelab.clock import MAX_CLOCK_LAG_NS
from ratelab.lab.conformance import Timeline, decide_on_copy, run

START = 1_700_000_000 * SECOND
"""The time at which the clock of a factory is to start: the beginning of a window of each quota below."""

QUOTA = Quota.parse("2/s", burst=5)
QUOTAS = [QUOTA, Quota.parse("10/min", burst=3), Quota.parse("1/day"), Quota.parse("100/s", burst=40)]
"""Quotas whose windows are whole microseconds, so that a store with that resolution decides as its algorithm does."""

INVALID_COSTS: list[Any] = [-1, True, 1.0, 1.5, float("nan"), "1", None, [1]]
INVALID_KEYS: list[Any] = [1, True, 1.5, None, b"1", ("1",), ["1"], {}]
KEYS = ["alice", "", " ", "two\nlines", "ключ", "\0", "{alice}", "\ud800", "k" * 100_000]


def make_subject(make: Factory, kind: type[Algorithm], quota: Quota = QUOTA) -> AbstractContextManager[Subject]:
    return make(build_policy(kind, quota), START)


# --- decisions


def it_decides_as_its_algorithm(make: Factory, kind: type[Algorithm]) -> None:
    """Decide as the algorithm does for each key, at and near the times at which its decisions change."""
    for quota in QUOTAS:
        random = Random(f"{kind.name} {quota}")
        with make_subject(make, kind, quota) as subject:
            references = {key: subject.reference() for key in "abc"}
            tick, window = subject.tick, quota.window
            for _ in range(100):
                key, cost = random.choice("abc"), random.choice([0, 1, 1, 1, 2, quota.burst, quota.burst + 1, 10**18])
                decision = subject.hit(key, cost)
                assert decision == references[key].hit(cost)
                retry = 0 if decision.retry_after_ns == NEVER else decision.retry_after_ns
                waits = (0, 0, tick, retry - tick, retry, decision.reset_after_ns, window // 2, window - tick, window)
                subject.clock.advance(max(0, random.choice(waits) // tick * tick))


def it_enforces_the_policy_that_it_was_given(make: Factory, kind: type[Algorithm]) -> None:
    with make_subject(make, kind) as subject:
        assert subject.policy == build_policy(kind, QUOTA)


def cost_zero_charges_nothing(make: Factory, kind: type[Algorithm]) -> None:
    with make_subject(make, kind) as subject:
        assert subject.hit("alice", 0).row == (True, QUOTA.burst, 0, 0, 0)
        used = subject.hit("alice", 2)
        looks = [subject.hit("alice", 0).row for _ in range(3)]
        assert looks == [(True, used.remaining, 0, used.reset_after_ns, looks[0][4])] * 3


def a_denied_hit_charges_nothing(make: Factory, kind: type[Algorithm]) -> None:
    with make_subject(make, kind) as subject:
        subject.hit("alice", QUOTA.burst)
        before = subject.hit("alice", 0)
        assert [subject.hit("alice", 1).allowed for _ in range(9)] == [False] * 9
        assert subject.hit("alice", 0) == before


def a_cost_above_the_burst_is_never_admitted(make: Factory, kind: type[Algorithm]) -> None:
    with make_subject(make, kind) as subject:
        for cost in (QUOTA.burst + 1, 10**30):
            denied = subject.hit("alice", cost)
            assert (denied.allowed, denied.remaining, denied.retry_after) == (False, QUOTA.burst, float("inf"))
        assert subject.hit("alice", QUOTA.burst).allowed


def an_invalid_cost_is_rejected_and_changes_nothing(make: Factory, kind: type[Algorithm]) -> None:
    with make_subject(make, kind) as subject:
        subject.hit("used", 1)
        before = [subject.hit(key, 0) for key in ("used", "new")]
        for cost in INVALID_COSTS:
            for key in ("used", "new"):
                with pytest.raises(InputError, match="cost must be a whole number >= 0, got"):
                    subject.hit(key, cost)
        assert [subject.hit(key, 0) for key in ("used", "new")] == before


# --- keys


def keys_do_not_share_a_quota(make: Factory, kind: type[Algorithm]) -> None:
    with make_subject(make, kind) as subject:
        hits = [subject.hit(key, QUOTA.burst).allowed for key in ("alice", "bob", "alice", "bob")]
        assert hits == [True, True, False, False]


def any_text_is_a_key(make: Factory, kind: type[Algorithm]) -> None:
    with make_subject(make, kind) as subject:
        for _ in range(2):
            reference = subject.reference()
            assert [subject.hit(key, 2) for key in KEYS] == [reference.hit(2)] * len(KEYS)
            subject.clock.advance(HOUR)


def reset_restores_the_full_quota_of_one_key(make: Factory, kind: type[Algorithm]) -> None:
    with make_subject(make, kind) as subject:
        if subject.reset is None:
            return  # a limiter that cannot reset a key
        subject.hit("alice", QUOTA.burst)
        subject.hit("bob", 2)
        before = subject.hit("bob", 0)
        for key in ("alice", "carol"):
            subject.reset(key)
            reference = subject.reference()
            for cost in (0, 2, QUOTA.burst, 1):
                assert subject.hit(key, cost) == reference.hit(cost)
        assert subject.hit("bob", 0) == before


def a_key_that_is_not_text_is_rejected_and_changes_nothing(make: Factory, kind: type[Algorithm]) -> None:
    with make_subject(make, kind) as subject:
        subject.hit("1", 1)
        before = subject.hit("1", 0)
        for key in INVALID_KEYS:
            for cost in (0, 1):
                with pytest.raises(InputError, match=r"key must be text, got .*: format it as a str"):
                    subject.hit(key, cost)
        assert subject.hit("1", 0) == before


# --- waits


def waiting_retry_after_is_exactly_enough(make: Factory, kind: type[Algorithm]) -> None:
    with make_subject(make, kind) as subject:
        for cost in (1, 2, QUOTA.burst, 1):
            subject.hit("alice", subject.hit("alice", 0).remaining)
            denied = subject.hit("alice", cost)
            assert not denied.allowed
            subject.clock.advance(denied.retry_after_ns - subject.tick)
            assert not subject.hit("alice", cost).allowed
            subject.clock.advance(subject.tick)
            assert subject.hit("alice", cost).allowed


def a_key_is_new_after_reset_after(make: Factory, kind: type[Algorithm]) -> None:
    with make_subject(make, kind) as subject:
        for cost in (1, 3, QUOTA.burst):
            used = subject.hit("alice", cost)
            subject.clock.advance(used.reset_after_ns - subject.tick)
            assert subject.hit("alice", 0).reset_after_ns > 0
            subject.clock.advance(subject.tick)
            reference = subject.reference()
            assert [subject.hit("alice", cost) for cost in (0, 2, 4)] == [reference.hit(cost) for cost in (0, 2, 4)]
            subject.clock.advance(HOUR)


# --- clocks


def a_jittering_clock_grants_nothing(make: Factory, kind: type[Algorithm]) -> None:
    """Admit at most the burst while the clock swings back and forth across the beginning of a window."""
    for jitter in (1000, 10**6, SECOND // 2, MAX_CLOCK_LAG_NS):
        with make_subject(make, kind) as subject:
            reference = subject.reference()
            expected = sum(reference.hit(1).allowed for _ in range(60))
            admitted = 0
            for number in range(60):
                subject.clock.now = START - jitter * (number % 2)
                admitted += subject.hit(f"alice {jitter}", 1).allowed
            assert admitted == expected


def a_clock_set_back_extends_no_wait(make: Factory, kind: type[Algorithm]) -> None:
    """Continue from the latest time, so that a denied client waits as long as before."""
    for step in (MAX_CLOCK_LAG_NS + 1000, HOUR, DAY):
        with make_subject(make, kind) as subject:
            half_used, exhausted = subject.reference(), subject.reference()
            keys = {f"half used {step}": half_used, f"exhausted {step}": exhausted}
            for (key, reference), cost in zip(keys.items(), (2, QUOTA.burst), strict=True):
                assert subject.hit(key, cost) == reference.hit(cost)
            expected = half_used.hit(3), exhausted.hit(1)
            subject.clock.advance(-step)
            assert [subject.hit(key, cost) for key, cost in zip(keys, (3, 1), strict=True)] == [*expected]
            denied = expected[1]
            assert not denied.allowed
            assert 0 < denied.retry_after_ns <= 2 * QUOTA.window
            subject.clock.advance(denied.retry_after_ns - subject.tick)
            assert not subject.hit(f"exhausted {step}", 1).allowed
            subject.clock.advance(subject.tick)
            assert subject.hit(f"exhausted {step}", 1).allowed


def a_clock_set_forward_grants_one_burst(make: Factory, kind: type[Algorithm]) -> None:
    with make_subject(make, kind) as subject:
        for _ in range(2):
            reference = subject.reference()
            assert [subject.hit("alice", 1) for _ in range(20)] == [reference.hit(1) for _ in range(20)]
            subject.clock.advance(2 * HOUR)


# --- concurrency


def concurrent_hits_get_exactly_the_quota(make: Factory, kind: type[Algorithm]) -> None:
    with make_subject(make, kind, Quota.parse("1/day", burst=100)) as subject:
        reference = subject.reference()
        expected = sorted(reference.hit(1) for _ in range(600))
        assert sorted(subject.hit_concurrently("alice", 600)) == expected


Promise = Callable[[Factory, type[Algorithm]], None]
PROMISES: list[Promise] = [
    it_decides_as_its_algorithm,
    it_enforces_the_policy_that_it_was_given,
    cost_zero_charges_nothing,
    a_denied_hit_charges_nothing,
    a_cost_above_the_burst_is_never_admitted,
    an_invalid_cost_is_rejected_and_changes_nothing,
    keys_do_not_share_a_quota,
    any_text_is_a_key,
    reset_restores_the_full_quota_of_one_key,
    a_key_that_is_not_text_is_rejected_and_changes_nothing,
    waiting_retry_after_is_exactly_enough,
    a_key_is_new_after_reset_after,
    a_jittering_clock_grants_nothing,
    a_clock_set_back_extends_no_wait,
    a_clock_set_forward_grants_one_burst,
    concurrent_hits_get_exactly_the_quota,
]


# --- limiters whose clock is monotonic for all keys, to the nanosecond


def time_stands_still_while_the_clock_lags(make: Factory, algorithm: Algorithm, timeline: Timeline) -> None:
    with make(Policy(algorithm.name, timeline.quota, algorithm), timeline.origin) as subject:
        state, latest = algorithm.start(timeline.origin), timeline.origin
        for number, (now, cost, _, _) in enumerate(run(algorithm, timeline)):
            subject.clock.now = now - number % 3 * MAX_CLOCK_LAG_NS // 2
            latest = max(latest, subject.clock.now)
            assert subject.hit("key", cost).row == algorithm.step(state, latest, cost)


def time_continues_after_a_clock_is_set_back(make: Factory, algorithm: Algorithm, timeline: Timeline) -> None:
    with make(Policy(algorithm.name, timeline.quota, algorithm), timeline.origin) as subject:
        behind = 0
        for number, (now, cost, decision, after) in enumerate(run(algorithm, timeline)):
            subject.clock.now = now - behind
            assert subject.hit("key", cost).row == decision.row
            if number % 3 == 1:
                behind += (HOUR, DAY)[number % 2]
                subject.clock.now = now - behind
                assert subject.hit("key", 0) == decide_on_copy(algorithm, after, now, 0)


TimelinePromise = Callable[[Factory, Algorithm, Timeline], None]
CLOCK_PROMISES: list[TimelinePromise] = [
    time_stands_still_while_the_clock_lags,
    time_continues_after_a_clock_is_set_back,
]
