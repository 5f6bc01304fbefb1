"""Schedules of live runs: speed, start, dependence on the clock, and the longest delay."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from scripted_responses import MS, QUOTA, create_traffic

from ratelab import ALGORITHMS, create
from ratelab.errors import InputError
from ratelab.lab.traffic import Traffic
from ratelab.verify.schedule import MAX_ALIGNMENT_NS, align_start, depends_on_clock, find_max_delay, scale_traffic

TRAFFIC = create_traffic(0, 100, 1000, origin=0)


def without_requests() -> Traffic:
    return replace(TRAFFIC, times=TRAFFIC.times[:0], clients=TRAFFIC.clients[:0], costs=TRAFFIC.costs[:0])


@pytest.mark.parametrize(("speed", "times"), [(1, [0, 100, 1000]), (10, [0, 10, 100]), (0.5, [0, 200, 2000])])
def test_speed_divides_all_times(speed: float, times: list[int]) -> None:
    scaled = scale_traffic(TRAFFIC, speed)
    assert (scaled.times // MS).tolist() == times
    assert scaled.duration == int(TRAFFIC.duration / speed)
    unchanged = {field.name for field in fields(Traffic)} - {"times", "duration"}
    assert all(getattr(scaled, name) is getattr(TRAFFIC, name) for name in unchanged)


@pytest.mark.parametrize(
    ("traffic", "speed", "message"),
    [
        (TRAFFIC, 0.0, "speed must be a number above 0, got 0.0"),
        (TRAFFIC, -1.0, "above 0"),
        (TRAFFIC, float("nan"), "above 0"),
        (TRAFFIC, float("inf"), "above 0"),
        (TRAFFIC, 1e-12, "at most 146 years, got speed 1e-12: raise it"),
        (without_requests(), 1.0, "has no requests"),
        (replace(TRAFFIC, costs=TRAFFIC.times // MS + 1), 1.0, "cost must be 1 for live requests, got 101: remove"),
    ],
)
def test_traffic_that_cannot_be_sent_live_is_rejected(traffic: Traffic, speed: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scale_traffic(traffic, speed)


@pytest.mark.parametrize(
    ("window", "earliest", "start"),
    [
        (10, 100, 100),
        (10, 101, 110),
        (MAX_ALIGNMENT_NS, 1, MAX_ALIGNMENT_NS),
        (MAX_ALIGNMENT_NS + 2, 1, 1),
    ],
)
def test_a_run_starts_with_a_window_unless_that_is_too_far_off(window: int, earliest: int, start: int) -> None:
    assert align_start(window, earliest) == start


@pytest.mark.parametrize("name", ALGORITHMS)
def test_only_algorithms_with_clock_windows_depend_on_the_clock(name: str) -> None:
    policy = create(name, QUOTA)
    has_clock_windows = name in ("fixed-window", "sliding-counter")
    assert depends_on_clock(policy, create_traffic(0, 0, 0, 0, 1500, 1500), QUOTA.window) == has_clock_windows
    assert not depends_on_clock(policy, create_traffic(0), QUOTA.window)


def test_the_longest_delay_is_in_seconds() -> None:
    traffic = create_traffic(0, 0, 0, 0)
    assert find_max_delay(create("leaky-bucket", QUOTA), traffic) == 2.0
    assert find_max_delay(create("gcra", QUOTA), traffic) == 0
