"""Tests of the manual clock."""

from __future__ import annotations

from ratelab import ManualClock


def test_a_manual_clock_moves_only_when_set_or_advanced() -> None:
    clock = ManualClock(5)
    assert [clock(), clock()] == [5, 5]
    clock.advance(10)
    assert clock() == 15
    clock.advance(-20)
    assert clock() == -5
    clock.now = 7
    assert clock() == 7
