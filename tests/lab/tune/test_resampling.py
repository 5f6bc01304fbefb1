"""Needs by hour, the band of a bootstrap, outliers and resolutions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from drawn_rows import draw_rows
from hypothesis import given
from hypothesis import strategies as st

from ratelab.lab import partition
from ratelab.lab.traffic import Traffic, select_keys
from ratelab.lab.tune import LocalDemand, blocks, measure_frontier, tune, tune_demand
from ratelab.lab.tune.blocks import measure_blocks, measure_needs
from ratelab.lab.tune.outliers import Outlier, find_outliers
from ratelab.lab.tune.resampling import HourNeeds, NeedBand, compare_resolutions, measure_hours_and_days
from ratelab.lab.tune.tuning import Tuning
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


def summarize_hours(tuning: Tuning) -> tuple[HourNeeds, ...]:
    return measure_hours_and_days(tuning)[0]


def resample_days(tuning: Tuning) -> NeedBand | None:
    return measure_hours_and_days(tuning)[1]


def test_needs_belong_to_the_hour_of_the_week() -> None:
    tuning = tune(build_days(9, [2, 2, 5]), [Quota.parse("1/min")])
    rows = {(row.weekday, row.hour): row for row in summarize_hours(tuning)}
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
    assert {row.hour: row.max for row in summarize_hours(tune(traffic, [rate]))} == largest


def test_a_band_shows_how_the_burst_depends_on_single_days() -> None:
    rate = [Quota.parse("1/min")]
    steady, varying = (tune(build_days(14, bursts), rate) for bursts in ([3], [3] * 13 + [60]))
    assert resample_days(steady) == (5, 5, 14)
    assert resample_days(varying) == (5, 90, 14)
    assert resample_days(tune(build_days(6, [3]), rate)) is None


def test_both_ways_to_read_whole_seconds_give_the_burst_of_the_other_reading() -> None:
    rows = [(second * NS_PER_S, client) for second in range(0, 60, 20) for client in range(3) for _ in range(8)]
    start = build_traffic(rows, 3)
    spread = replace(start, times=np.array([time + place % 8 * NS_PER_S // 8 for place, (time, _) in enumerate(rows)]))
    rate = [Quota.parse("4/s")]
    bursts = {"spread": tune(spread, rate).recommended.policy.quota.burst, "start": 12}
    assert compare_resolutions(tune(start, rate), NS_PER_S, is_spread=False)["start"] == 12
    assert compare_resolutions(tune(spread, rate), NS_PER_S, is_spread=True) == bursts


def test_ignored_requests_take_their_place_within_a_second() -> None:
    rows = [(second * NS_PER_S, client) for second in range(0, 60, 20) for client in range(3) for _ in range(8)]
    start = build_traffic(rows, 3)
    times = [time + place % 24 * NS_PER_S // 24 for place, (time, _) in enumerate(rows)]
    spread, rate, ignored = replace(start, times=np.array(times)), [Quota.parse("16/s")], np.arange(3) == 0
    expected, found = (tune_demand(LocalDemand(traffic, ignored=ignored), rate) for traffic in (spread, start))
    burst = expected.recommended.policy.quota.burst
    assert compare_resolutions(found, NS_PER_S, is_spread=False)["spread"] == burst
    without = tune(select_keys(start, ~ignored), rate)
    assert compare_resolutions(without, NS_PER_S, is_spread=False)["spread"] != burst


def test_regular_gaps_are_recognized() -> None:
    rows = [(minute * MINUTE, 0) for minute in range(50)] + [(7 * client, client) for client in range(1, 120)]
    tuning = tune(build_traffic(rows, 120), [Quota.parse("1/h")])
    count, outliers = find_outliers(tuning)
    assert count == 1
    assert outliers == [Outlier("client-0", 50, 50, round(50 / 169, 6), 0.0)]
    assert outliers[0].is_regular


def test_outliers_of_equal_needs_are_in_the_order_of_their_keys() -> None:
    rows = [(minute * MINUTE, client) for minute in range(50) for client in (4, 1, 7)]
    rows += [(7 * client, client) for client in range(900)]
    tuning = tune(build_traffic(rows, 900), [Quota.parse("1/h")])
    assert [outlier.client for outlier in find_outliers(tuning)[1]] == ["client-1", "client-4", "client-7"]


def build_costly(rows: list[tuple[int, int, int]]) -> Traffic:
    """Build traffic of times, clients and costs."""
    times, owners, costs = (np.array(column, np.int64) for column in zip(*sorted(rows), strict=True))
    names = tuple(f"client-{client}" for client in range(4))
    return Traffic(times, owners, costs, names, np.arange(4), int(times[-1]) + 1, MONDAY)


costly_rows = st.lists(
    st.tuples(
        st.integers(0, 50) | st.integers(0, 10**17), st.integers(0, 3), st.integers(1, 3) | st.integers(1, 10**9)
    ),
    min_size=1,
    max_size=40,
)
rates = st.builds(Quota, st.integers(1, 1000), st.integers(1, 10) | st.integers(1, 10**15))


@pytest.mark.slow
@pytest.mark.parametrize("compiled_from", [0, 1000], ids=["compiled", "python"])
@given(rows=costly_rows, rate=rates, length=st.sampled_from([7, NS_PER_S, HOUR]))
def test_one_pass_finds_the_needs_of_the_frontier_in_every_block(
    compiled_from: int, rows: list[tuple[int, int, int]], rate: Quota, length: int
) -> None:
    traffic = build_costly(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "MIN_COMPILED_REQUESTS", compiled_from)
        patch.setattr(partition, "MAX_STATE_INTEGERS", 100)
        assert (measure_needs(traffic, rate) == measure_frontier(traffic).find_needs(rate)).all()
        (found,) = measure_blocks(traffic, rate, [length])
    expected = set()
    for block in {(MONDAY + time) // length for time, _, _ in rows}:
        part = build_costly([row for row in rows if (MONDAY + row[0]) // length == block])
        needs = measure_frontier(part).find_needs(rate)
        expected |= {(key, block, need) for key, need in enumerate(needs.tolist()) if need}
    assert {*zip(*(column.tolist() for column in found), strict=True)} == expected
    assert len(found.keys) == len(expected)


def test_a_band_covers_the_needs_of_good_clients() -> None:
    rows = [(day * DAY + client, client) for day in range(9) for client in range(300)]
    rows += [(day * DAY + HOUR, 0) for day in range(9) for _ in range(80)]
    good = np.arange(300) == 0
    tuning = tune(build_traffic(rows, 300), [Quota.parse("1/min")], good=good)
    assert resample_days(tuning) == (tuning.recommended.policy.quota.burst,) * 2 + (9,)
