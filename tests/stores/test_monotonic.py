"""Tests of the monotonic clock that limiters in memory read."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ratelab import ManualClock
from ratelab.clock import MAX_CLOCK_LAG_NS, monotonic

HOUR = 3600 * 10**9


def test_a_clock_that_only_advances_is_returned_unchanged() -> None:
    times = iter([-3, -3, 0, 10, HOUR])
    read = monotonic(lambda: next(times))
    assert [read() for _ in range(5)] == [-3, -3, 0, 10, HOUR]


def test_time_stands_still_while_a_clock_lags_a_little() -> None:
    clock = ManualClock(10 * MAX_CLOCK_LAG_NS)
    read = monotonic(clock)
    before = read()
    for lag in (MAX_CLOCK_LAG_NS, 1, MAX_CLOCK_LAG_NS, 0, MAX_CLOCK_LAG_NS // 2):
        clock.now = before - lag
        assert read() == before
    clock.now = before + 1
    assert read() == before + 1


def test_time_continues_at_once_after_a_large_step_back() -> None:
    clock = ManualClock(10 * HOUR)
    read = monotonic(clock)
    before = read()
    clock.advance(-HOUR)
    assert read() == before
    clock.advance(1)
    assert read() == before + 1
    clock.advance(-MAX_CLOCK_LAG_NS - 2)
    assert read() == before + 1
    clock.advance(5)
    assert read() == before + 6


def test_two_monotonic_clocks_are_independent() -> None:
    clock = ManualClock(HOUR)
    first, second = monotonic(clock), monotonic(clock)
    first()
    clock.now = 0
    assert (first(), second()) == (HOUR, 0)


@given(st.lists(st.integers(-HOUR, HOUR)))
def test_time_never_decreases_nor_advances_faster_than_the_clock(jumps: list[int]) -> None:
    clock = ManualClock()
    read = monotonic(clock)
    times = [read()]
    for jump in jumps:
        clock.advance(jump)
        times.append(read())
    assert all(0 <= later - at <= max(jump, 0) for (at, later), jump in zip(pairwise(times), jumps, strict=True))
