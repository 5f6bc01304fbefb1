"""Needs by hour, the band of a bootstrap, outliers and resolutions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from drawn_rows import draw_rows
from hypothesis import given

from ratelab.lab.traffic import Traffic
from ratelab.lab.tune import measure_frontier, tune
from ratelab.lab.tune.outliers import Outlier, find_outliers
from ratelab.lab.tune.resampling import HourNeeds, compare_resolutions, measure_band, measure_hours
from ratelab.quota import NS_PER_S, UNITS, Quota

DAY, HOUR, MINUTE = UNITS["day"], UNITS["h"], UNITS["min"]
MONDAY = int(datetime(2026, 11, 2, tzinfo=UTC).timestamp()) * NS_PER_S


def build_traffic(rows: list[tuple[int, int]], clients: int, origin: int = MONDAY) -> Traffic:
    """Build traffic of these times and clients."""
    times, owners = (np.array(column, np.int64) for column in zip(*sorted(rows), strict=True))
    names = tuple(f"client-{client}" for client in range(clients))
    return Traffic(times, owners, np.ones_like(times), names, np.arange(clients), int(times[-1]) + 1, origin)


def build_days(days: int, bursts: list[int]) -> Traffic:
    """Build traffic in which 40 clients send, at noon of each day, as many requests as `bursts` has for the day."""
    rows = [
        (day * DAY + 12 * HOUR + client, client)
        for day in range(days)
        for client in range(40)
        for _ in range(bursts[day % len(bursts)])
    ]
    return build_traffic([(0, 0), *rows], 40)


def test_needs_belong_to_the_hour_of_the_week() -> None:
    tuning = tune(build_days(9, [2, 2, 5]), [Quota.parse("1/min")])
    rows = {(row.weekday, row.hour): row for row in measure_hours(tuning)}
    assert rows[0, 0] == HourNeeds(0, 0, 1, 1, 1, 1)
    assert rows[2, 12] == HourNeeds(2, 12, 40, 5, 5, 5)
    assert rows[1, 12] == HourNeeds(1, 12, 80, 5, 5, 5)  # two Tuesdays, one with the larger bursts
    assert [hour for _, hour in rows] == [0] + 7 * [12]


@given(rows=draw_rows(range(8 * HOUR), range(5), min_size=1, max_size=60))
def test_needs_of_an_hour_are_those_of_its_requests_alone(rows: list[tuple[int, int]]) -> None:
    traffic, rate = build_traffic(rows, 5), Quota.parse("1/h")
    largest: dict[int, int] = {}
    for hour in {time // HOUR for time, _ in rows}:
        part = build_traffic([row for row in rows if row[0] // HOUR == hour], 5)
        largest[hour] = int(measure_frontier(part).find_needs(rate).max())
    assert {row.hour: row.max for row in measure_hours(tune(traffic, [rate]))} == largest


def test_a_band_shows_how_the_burst_depends_on_single_days() -> None:
    rate = [Quota.parse("1/min")]
    steady, varying = (tune(build_days(14, bursts), rate) for bursts in ([3], [3] * 13 + [60]))
    assert measure_band(steady) == (5, 5, 14)
    assert measure_band(varying) == (5, 90, 14)
    assert measure_band(tune(build_days(6, [3]), rate)) is None


def test_both_ways_to_read_whole_seconds_give_the_burst_of_the_other_reading() -> None:
    rows = [(second * NS_PER_S, client) for second in range(0, 60, 20) for client in range(3) for _ in range(8)]
    start = build_traffic(rows, 3)
    spread = replace(start, times=np.array([time + place % 8 * NS_PER_S // 8 for place, (time, _) in enumerate(rows)]))
    rate = [Quota.parse("4/s")]
    bursts = {"spread": tune(spread, rate).recommended.policy.quota.burst, "start": 12}
    assert compare_resolutions(tune(start, rate), NS_PER_S, is_spread=False)["start"] == 12
    assert compare_resolutions(tune(spread, rate), NS_PER_S, is_spread=True) == bursts


def test_regular_gaps_are_recognized() -> None:
    rows = [(minute * MINUTE, 0) for minute in range(50)] + [(7 * client, client) for client in range(1, 120)]
    tuning = tune(build_traffic(rows, 120), [Quota.parse("1/h")])
    count, outliers = find_outliers(tuning)
    assert count == 1
    assert outliers == [Outlier("client-0", 50, 50, round(50 / 169, 6), 0.0)]
    assert outliers[0].is_regular
