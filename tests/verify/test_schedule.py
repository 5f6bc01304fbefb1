"""What is to be played, when it begins, and whether it depends on the clock."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from scripted_responses import MS, QUOTA, SECOND, traffic

from ratelab import ALGORITHMS
from ratelab.errors import InputError
from ratelab.lab.traffic import Traffic
from ratelab.verify.schedule import LONGEST_ALIGNMENT, beginning, depends_on_clock, longest_delay, planned

ASKED = traffic(0, 100, 1000, origin=0)


def without_requests() -> Traffic:
    return replace(ASKED, times=ASKED.times[:0], clients=ASKED.clients[:0], costs=ASKED.costs[:0])


@pytest.mark.parametrize(("speed", "times"), [(1, [0, 100, 1000]), (10, [0, 10, 100]), (0.5, [0, 200, 2000])])
def test_speed_divides_all_times(speed: float, times: list[int]) -> None:
    found = planned(ASKED, speed)
    assert (found.times // MS).tolist() == times
    assert found.duration == int(ASKED.duration / speed)
    unchanged = {field.name for field in fields(Traffic)} - {"times", "duration"}
    assert all(getattr(found, name) is getattr(ASKED, name) for name in unchanged)


@pytest.mark.parametrize(
    ("asked", "speed", "says"),
    [
        (ASKED, 0.0, "speed must be a number above 0, got 0.0"),
        (ASKED, -1.0, "above 0"),
        (ASKED, float("nan"), "above 0"),
        (ASKED, float("inf"), "above 0"),
        (ASKED, 1e-12, "146 years: raise it"),
        (without_requests(), 1.0, "makes no requests"),
        (replace(ASKED, costs=ASKED.times // MS + 1), 1.0, "a live request costs 1, got a client whose cost is 101"),
    ],
)
def test_what_cannot_be_played_is_refused(asked: Traffic, speed: float, says: str) -> None:
    with pytest.raises(InputError, match=says):
        planned(asked, speed)


@pytest.mark.parametrize(
    ("window", "earliest", "begins"),
    [
        (10, 100, 100),
        (10, 101, 110),
        (LONGEST_ALIGNMENT, 1, LONGEST_ALIGNMENT),
        (LONGEST_ALIGNMENT + 2, 1, 1),
    ],
)
def test_a_play_begins_with_a_window_that_is_not_far_off(window: int, earliest: int, begins: int) -> None:
    assert beginning(window, earliest) == begins


@pytest.mark.parametrize("name", ALGORITHMS)
def test_only_windows_of_the_clock_depend_on_it(name: str) -> None:
    algorithm = ALGORITHMS[name].from_quota(QUOTA)
    by_clock = name in ("fixed-window", "sliding-counter")
    assert depends_on_clock(algorithm, traffic(0, 0, 0, 0, 1500, 1500), QUOTA.window) == by_clock
    assert not depends_on_clock(algorithm, traffic(0), QUOTA.window)


def test_the_longest_delay_is_in_seconds() -> None:
    asked = traffic(0, 0, 0, 0)
    assert longest_delay(ALGORITHMS["leaky-bucket"].from_quota(QUOTA), asked) == 2 * SECOND / 1e9
    assert longest_delay(ALGORITHMS["gcra"].from_quota(QUOTA), asked) == 0
