"""Arrival times of patterns, exact to the nanosecond, and errors for impossible patterns."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from durations import HOUR, MINUTE, SECOND, seconds
from hypothesis import given
from hypothesis import strategies as st

from ratelab import InputError, Quota
from ratelab.lab.scenarios.arrivals import MAX_REQUESTS, Span, burst, on_off, poisson, ramp, sort_times, steady, wave
from ratelab.lab.spill import Integers

rate = Quota.parse


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (steady(rate("2/s"), seconds(0, 2)), [0, 0.5, 1, 1.5]),
        (steady(rate("2/s"), seconds(3, 4.6)), [3, 3.5, 4, 4.5]),
        (steady(rate("1/min"), seconds(0, 2)), [0]),
        (ramp(rate("2/s"), rate("2/s"), seconds(1, 3)), [1, 1.5, 2, 2.5]),
        (on_off(rate("2/s"), SECOND, 2 * SECOND, seconds(0, 6.4)), [0, 0.5, 3, 3.5, 6]),
        (on_off(rate("2/s"), SECOND, 0, seconds(1, 3)), [1, 1.5, 2, 2.5]),
        (on_off(rate("2/s"), 9 * SECOND, SECOND, seconds(1, 2)), [1, 1.5]),
        (burst(3 * SECOND, 3, SECOND // 100, seconds(0, 10)), [3, 3.01, 3.02]),
        (burst(3 * SECOND, 3, 0, seconds(3, 3.1)), [3, 3, 3]),
        (sort_times([2 * SECOND, 0, SECOND // 2, SECOND // 2], seconds(0, 10)), [0, 0.5, 0.5, 2]),
    ],
)
def test_a_pattern_has_the_expected_times(times: Integers, expected: list[float]) -> None:
    assert times.tolist() == [round(time * SECOND) for time in expected]


def test_a_rate_that_does_not_divide_evenly_is_rounded_up() -> None:
    assert steady(rate("7/13s"), seconds(0, 26)).tolist() == [-(-k * 13 * SECOND // 7) for k in range(14)]


@given(st.integers(1, 50), st.integers(1, 10**4), st.integers(0, 10**4), st.integers(1, 10**4))
def test_steady_times_are_exact_for_every_rate(limit: int, period: int, begin: int, length: int) -> None:
    due = (begin - (-k * period // limit) for k in range(length * limit // period + 2))
    expected = [time for time in due if time < begin + length]
    assert steady(Quota(limit, period), (begin, begin + length)).tolist() == expected


def test_a_million_steady_times_do_not_drift() -> None:
    times = steady(rate("1000003/s"), seconds(0, 1))
    assert len(times) == 1_000_003
    assert times[-1] == -(-1_000_002 * SECOND // 1_000_003)


def assert_follows(times: Integers, due: Callable[[float], float], length: int) -> None:
    """Check that request k is at the time when the integral of the rate is k, within 0.5, and that none is missing."""
    integrals = [due(time) for time in times.tolist()]
    assert integrals == pytest.approx(range(len(integrals)), abs=0.5)
    assert due(length) - len(integrals) <= 0.5


@pytest.mark.parametrize(
    ("start", "end", "length"),
    [("1/s", "20/s", MINUTE), ("20/s", "1/s", MINUTE), ("1/h", "7/13s", HOUR), ("100/s", "1/day", 20 * SECOND)],
)
def test_a_ramp_follows_its_line(start: str, end: str, length: int) -> None:
    first, last = (quota.limit / quota.period for quota in (rate(start), rate(end)))
    times = ramp(rate(start), rate(end), (0, length))
    assert_follows(times, lambda time: first * time + (last - first) * time**2 / (2 * length), length)


@pytest.mark.parametrize(
    ("mean", "amplitude", "cycle", "length"),
    [("5/s", "4/s", MINUTE, 10 * SECOND), ("5/s", "5/s", MINUTE, 5 * MINUTE), ("30/min", "25/min", 6 * HOUR, 7 * HOUR)],
)
def test_a_wave_follows_its_sine(mean: str, amplitude: str, cycle: int, length: int) -> None:
    middle, swing = (quota.limit / quota.period for quota in (rate(mean), rate(amplitude)))
    turn = 2 * math.pi / cycle
    times = wave(rate(mean), rate(amplitude), cycle, (0, length))
    assert_follows(times, lambda time: middle * time + swing / turn * (1 - math.cos(turn * time)), length)


PATTERNS: dict[str, Callable[[Span], Integers]] = {
    "steady": lambda span: steady(rate("7/13s"), span),
    "ramp": lambda span: ramp(rate("1/s"), rate("9/s"), span),
    "wave": lambda span: wave(rate("5/s"), rate("4/s"), MINUTE, span),
    "on-off": lambda span: on_off(rate("3/s"), SECOND, SECOND, span),
    "poisson": lambda span: poisson(rate("5/s"), span, "seed"),
}


@pytest.mark.parametrize("times", PATTERNS.values(), ids=PATTERNS)
def test_a_pattern_with_a_later_start_is_only_shifted(times: Callable[[Span], Integers]) -> None:
    assert (times(seconds(20, 40)) - 20 * SECOND).tolist() == times(seconds(0, 20)).tolist()


TOO_MANY = {
    "steady": lambda: steady(rate("1000000/s"), seconds(0, 21)),
    "a ramp up": lambda: ramp(rate("1/s"), rate("1000000/s"), seconds(0, 21)),
    "a ramp down": lambda: ramp(rate("1000000/s"), rate("1/s"), seconds(0, 21)),
    "a wave": lambda: wave(rate("1000000/s"), rate("1/s"), MINUTE, seconds(0, 21)),
    "on and off": lambda: on_off(rate("1000000/s"), SECOND, SECOND, seconds(0, 60)),
    "many short pauses": lambda: on_off(rate("1/day"), 1, 1, seconds(0, 1)),
    "poisson": lambda: poisson(rate("1000000/s"), seconds(0, 21), "seed"),
    "a burst": lambda: burst(0, MAX_REQUESTS + 1, 0, seconds(0, 1)),
}


@pytest.mark.parametrize("draw", TOO_MANY.values(), ids=TOO_MANY)
def test_too_many_requests_are_an_error_before_they_are_drawn(draw: Callable[[], Integers]) -> None:
    with pytest.raises(InputError, match=r"at most 20,000,000 requests, got [0-9,]+: lower the rate or shorten it"):
        draw()


@pytest.mark.parametrize(
    ("at", "size", "spacing", "message"),
    [
        (0, 1, 0, "got 0s to 0s"),
        (1, 5, 1, "got 1s to 5s"),
        (1, 5, 2, "got 1s to 9s"),
        (5, 1, 0, "got 5s to 5s"),
    ],
)
def test_a_burst_must_be_within_its_span(at: int, size: int, spacing: int, message: str) -> None:
    assert len(burst(SECOND, 4, SECOND, seconds(1, 5))) == 4
    with pytest.raises(InputError, match=f"within 1s to 5s .*{message}: move it, shorten it or lengthen the span"):
        burst(at * SECOND, size, spacing * SECOND, seconds(1, 5))


@pytest.mark.parametrize("time", [0.999999999, 5])
def test_a_listed_time_must_be_within_its_span(time: float) -> None:
    with pytest.raises(InputError, match=r"a time must be within 1s to 5s \(end excluded\), got "):
        sort_times([2 * SECOND, round(time * SECOND)], seconds(1, 5))


def test_the_rate_of_a_wave_must_not_be_negative() -> None:
    assert len(wave(rate("2/s"), rate("2/s"), SECOND, seconds(0, 2))) == pytest.approx(4, abs=1)
    with pytest.raises(InputError, match="amplitude must be at most the mean of 2/s, got 3/s"):
        wave(rate("2/s"), rate("3/s"), SECOND, seconds(0, 2))


def test_a_wave_of_too_many_cycles_is_an_error() -> None:
    with pytest.raises(InputError, match="cycle must be longer"):
        wave(rate("1/h"), rate("1/h"), 1, seconds(0, 1))


def test_an_on_off_pattern_that_is_never_on_is_an_error() -> None:
    with pytest.raises(InputError, match="on must be longer than 0s, got 0s"):
        on_off(rate("1/s"), 0, SECOND, seconds(0, 2))
