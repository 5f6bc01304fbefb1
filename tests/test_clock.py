"""Clocks: one that moves only when told to, and any other made steady."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ratelab import ManualClock
from ratelab.clock import MAX_CLOCK_LAG_NS, steady

HOUR = 3600 * 10**9


def test_a_manual_clock_moves_only_when_told_to() -> None:
    clock = ManualClock(5)
    assert [clock(), clock()] == [5, 5]
    clock.advance(10)
    assert clock() == 15
    clock.advance(-20)
    assert clock() == -5
    clock.now = 7
    assert clock() == 7


def test_a_steady_clock_tells_the_time() -> None:
    times = iter([-3, -3, 0, 10, HOUR])
    read = steady(lambda: next(times))
    assert [read() for _ in range(5)] == [-3, -3, 0, 10, HOUR]


def test_time_stands_still_while_a_clock_lags_a_little() -> None:
    clock = ManualClock(10 * MAX_CLOCK_LAG_NS)
    read = steady(clock)
    before = read()
    for lag in (MAX_CLOCK_LAG_NS, 1, MAX_CLOCK_LAG_NS, 0, MAX_CLOCK_LAG_NS // 2):
        clock.now = before - lag
        assert read() == before
    clock.now = before + 1
    assert read() == before + 1


def test_time_goes_on_at_once_after_a_large_step_back() -> None:
    clock = ManualClock(10 * HOUR)
    read = steady(clock)
    before = read()
    clock.advance(-HOUR)
    assert read() == before
    clock.advance(1)
    assert read() == before + 1
    clock.advance(-MAX_CLOCK_LAG_NS - 2)
    assert read() == before + 1
    clock.advance(5)
    assert read() == before + 6


def test_two_steadied_clocks_know_nothing_of_each_other() -> None:
    clock = ManualClock(HOUR)
    first, second = steady(clock), steady(clock)
    first()
    clock.now = 0
    assert (first(), second()) == (HOUR, 0)


@given(st.lists(st.integers(-HOUR, HOUR)))
def test_a_steady_clock_never_runs_backwards_nor_faster(jumps: list[int]) -> None:
    clock = ManualClock()
    read = steady(clock)
    times = [read()]
    for jump in jumps:
        clock.advance(jump)
        times.append(read())
    assert all(0 <= later - at <= max(jump, 0) for (at, later), jump in zip(pairwise(times), jumps, strict=True))
