"""Series and levels of charts: their values equal counts one by one."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import ceil, floor

import numpy as np
import pytest
from drawn_rows import draw_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from random_runs import Request, count_windows, create_column, create_traffic, list_departures, runs

from ratelab import ALGORITHMS, Quota, create
from ratelab.lab.levels import create_level_reader, rebuild_levels, sample_levels
from ratelab.lab.replay import replay
from ratelab.report.charts.series import (
    Curve,
    accumulate,
    compute_band,
    count_in_parts,
    count_turns,
    downsample,
    find_window_peaks,
    split_time,
)

few = settings(max_examples=40)
ends = st.integers(50, 52)
POINT = range(51), range(10)
points = draw_rows(*POINT, max_size=60).map(sorted)


def value_at(curve: Curve, time: float) -> int:
    return int(curve.values[curve.times <= time][-1])


@few
@given(points)
def test_the_cumulative_curve_is_the_sum_of_costs_so_far(drawn: list[tuple[int, int]]) -> None:
    curve = accumulate(create_column([at for at, _ in drawn]), create_column([cost for _, cost in drawn]))
    for time in range(52):
        assert value_at(curve, time) == sum(cost for at, cost in drawn if at <= time)


@few
@given(points, ends, st.integers(1, 60))
def test_each_time_is_in_one_part_and_the_last_part_has_its_end(
    drawn: list[tuple[int, int]], end: int, parts: int
) -> None:
    times, chosen = create_column([at for at, _ in drawn]), np.array([value % 2 == 1 for _, value in drawn], np.bool_)
    edges = split_time(end, parts).tolist()
    assert (edges[0], edges[-1], len(edges)) == (0, end, parts + 1)
    counts = [sum(begin <= at < stop for at in times[chosen]) for begin, stop in pairwise([*edges[:-1], end + 1])]
    assert count_in_parts(chosen, times, create_column(edges)).tolist() == counts


@few
@given(runs, st.integers(1, 20), st.integers(1, 9))
def test_a_window_peak_is_the_maximum_at_all_times_of_the_part(run: list[Request], window: int, parts: int) -> None:
    left = sorted((at % 60, cost) for at, cost, key in list_departures(run) if key == 1)
    edges = split_time(60, parts).tolist()
    times, costs = (create_column([departure[column] for departure in left]) for column in (0, 1))
    peaks = find_window_peaks(times, costs, window, create_column(edges))
    costs_in_window = [sum(cost for at, cost in left if now - window < at <= now) for now in range(61)]
    for peak, (begin, stop) in zip(peaks.tolist(), pairwise([*edges[:-1], 61]), strict=True):
        assert peak == max(costs_in_window[begin:stop])
    counted = count_windows([(at, cost, 1) for at, cost in left], window)
    assert int(peaks.max()) == max(counted.values(), default=0)


@few
@given(draw_rows(*POINT, min_size=21, max_size=60).map(sorted), ends, st.integers(1, 4))
def test_downsampling_keeps_the_first_lowest_highest_and_last_of_parts(
    drawn: list[tuple[int, int]], end: int, parts: int
) -> None:
    times, values = (create_column([point[column] for point in drawn]) for column in (0, 1))
    edges = split_time(end, parts)
    some_times, some_values = downsample(times, values, edges)
    assert len(some_values) <= 4 * (parts + 1)
    for begin, stop in pairwise([*edges.tolist()[:-1], end + 1]):
        every, sampled = (
            column[(begin <= at) & (at < stop)].tolist() for at, column in ((times, values), (some_times, some_values))
        )
        shape = (every[0], min(every), max(every), every[-1]) if every else ()
        assert shape == ((sampled[0], min(sampled), max(sampled), sampled[-1]) if sampled else ())


def test_a_band_holds_the_minimum_mean_and_maximum_of_each_part() -> None:
    times, values = create_column([0, 10, 10, 20, 40]), create_column([4, 0, 6, 6, 2])
    band = compute_band(times, values, split_time(40, 2))
    assert (band.low.tolist(), band.mean.tolist(), band.high.tolist()) == ([0, 2], [4, 4], [6, 6])
    assert count_turns(values) == 2


# --- levels


@few
@given(run=runs, moments=st.lists(st.integers(0, 10**10), min_size=5))
def test_a_level_agrees_with_the_remaining_cost(run: list[Request], moments: list[int]) -> None:
    quota, traffic = Quota.parse("2/s", burst=7), create_traffic(run)
    for name, kind in ALGORITHMS.items():
        algorithm = kind.from_quota(quota)
        levels = sample_levels(algorithm, traffic.times, traffic.costs, create_column(sorted(moments)))
        is_full_at_start = create_level_reader(algorithm)(algorithm.start(0), 0, 7) > 0
        for level, remaining in zip(levels.level.tolist(), levels.remaining.tolist(), strict=True):
            near = round(level, 11)  # a nanosecond changes it by more, a rounding error by less
            assert remaining == (floor(near) if is_full_at_start else max(0, 7 - ceil(near))), name


@few
@given(name=st.sampled_from(list(ALGORITHMS)), run=runs)
def test_sampled_levels_agree_with_those_rebuilt_from_decisions(name: str, run: list[Request]) -> None:
    quota = Quota.parse("2/s", burst=7)
    traffic = replace(create_traffic(run), keys=np.zeros(4, np.int64))
    policy = create(name, quota)
    sampled = sample_levels(policy.algorithm, traffic.times, traffic.costs, create_column([0]))
    rows = replay(policy, traffic).rows
    before = rows["remaining"] + np.where(rows["allowed"], traffic.costs, 0)
    rebuilt = rebuild_levels(policy, traffic.times, before, rows["remaining"])
    latest = {at: (remaining, level) for at, level, remaining in zip(*map(list, sampled), strict=True)}
    for at, level, remaining in zip(*(column[1::2].tolist() for column in rebuilt), strict=True):
        if (traffic.times == at).sum() == 1:
            assert latest[at][0] == remaining
            assert abs(latest[at][1] - level) < 1


def test_the_exhausted_ratio_is_the_fraction_of_time_with_nothing_left() -> None:
    quota = Quota.parse("1/s", burst=1)
    algorithm = ALGORITHMS["token-bucket"].from_quota(quota)
    levels = sample_levels(algorithm, create_column([0]), create_column([1]), np.arange(0, 4 * 10**9 + 1, 10**7))
    assert levels.cut(0, 4 * 10**9).exhausted_ratio() == pytest.approx(0.25, abs=0.005)
    assert levels.cut(0, 2 * 10**9).exhausted_ratio() == pytest.approx(0.5, abs=0.01)  # later times do not count
