"""Curves and levels of charts: their values equal counts one by one."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_runs import Request, departed, integers, runs, traffic_of, windows_counted

from ratelab import ALGORITHMS, Quota, create
from ratelab.lab.levels import looked, recorded
from ratelab.lab.replay import replay
from ratelab.report.charts.series import Curve, banded, borders, cumulative, most_in_window, thinned, turns, within

few = settings(max_examples=40)
ends = st.integers(50, 52)
points = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=60).map(sorted)


def value_at(curve: Curve, moment: float) -> int:
    return int(curve.values[curve.times <= moment][-1])


@few
@given(points)
def test_the_cumulative_curve_is_the_sum_of_costs_so_far(drawn: list[tuple[int, int]]) -> None:
    curve = cumulative(integers([at for at, _ in drawn]), integers([cost for _, cost in drawn]))
    for moment in range(52):
        assert value_at(curve, moment) == sum(cost for at, cost in drawn if at <= moment)


@few
@given(points, ends, st.integers(1, 60))
def test_parts_hold_each_time_once_and_the_last_one_its_end(drawn: list[tuple[int, int]], end: int, parts: int) -> None:
    times, chosen = integers([at for at, _ in drawn]), np.array([value % 2 == 1 for _, value in drawn], np.bool_)
    cuts = borders(end, parts).tolist()
    assert (cuts[0], cuts[-1], len(cuts)) == (0, end, parts + 1)
    counted = [sum(begin <= at < stop for at in times[chosen]) for begin, stop in pairwise([*cuts[:-1], end + 1])]
    assert within(chosen, times, integers(cuts)).tolist() == counted


@few
@given(runs, st.integers(1, 20), st.integers(1, 9))
def test_the_largest_cost_in_a_window_is_that_of_every_moment(run: list[Request], window: int, parts: int) -> None:
    left = sorted((at % 60, cost) for at, cost, key in departed(run) if key == 1)
    cuts = borders(60, parts).tolist()
    times, costs = (integers([departure[column] for departure in left]) for column in (0, 1))
    found = most_in_window(times, costs, window, integers(cuts))
    held = [sum(cost for at, cost in left if now - window < at <= now) for now in range(61)]
    for most, (begin, stop) in zip(found.tolist(), pairwise([*cuts[:-1], 61]), strict=True):
        assert most == max(held[begin:stop])
    counted = windows_counted([(at, cost, 1) for at, cost in left], window)
    assert int(found.max()) == max(counted.values(), default=0)


@few
@given(points.filter(lambda drawn: len(drawn) > 20), ends, st.integers(1, 4))
def test_thinning_keeps_the_first_lowest_highest_and_last_of_parts(
    drawn: list[tuple[int, int]], end: int, parts: int
) -> None:
    times, values = (integers([point[column] for point in drawn]) for column in (0, 1))
    cuts = borders(end, parts)
    kept_times, kept = thinned(times, values, cuts)
    assert len(kept) <= 4 * (parts + 1)
    for begin, stop in pairwise([*cuts.tolist()[:-1], end + 1]):
        whole, part = (
            column[(begin <= at) & (at < stop)].tolist() for at, column in ((times, values), (kept_times, kept))
        )
        shape = (whole[0], min(whole), max(whole), whole[-1]) if whole else ()
        assert shape == ((part[0], min(part), max(part), part[-1]) if part else ())


@few
@given(run=runs, moments=st.lists(st.integers(0, 10**10), min_size=5))
def test_a_level_agrees_with_the_remaining_cost(run: list[Request], moments: list[int]) -> None:
    quota, traffic = Quota.parse("2/s", burst=7), traffic_of(run)
    for name, kind in ALGORITHMS.items():
        levels = looked(kind.from_quota(quota), traffic.times, traffic.costs, integers(sorted(moments)))
        for level, left in zip(levels.level.tolist(), levels.left.tolist(), strict=True):
            near = round(level, 11)  # a nanosecond changes it by more, a rounding error by less
            assert left == (floor(near) if name == "token-bucket" else max(0, 7 - ceil(near))), name


@few
@given(name=st.sampled_from(list(ALGORITHMS)), run=runs)
def test_looks_change_no_decision_and_recorded_levels_agree_with_them(name: str, run: list[Request]) -> None:
    quota = Quota.parse("2/s", burst=7)
    traffic = replace(traffic_of(run), keys=np.zeros(4, np.int64))
    policy = create(name, quota)
    seen = looked(policy.algorithm, traffic.times, traffic.costs, integers([0]))
    made = replay(policy, traffic).rows
    before = made["remaining"] + np.where(made["allowed"], traffic.costs, 0)
    written = recorded(policy, traffic.times, before, made["remaining"])
    last_seen = {at: (left, level) for at, level, left in zip(*map(list, seen), strict=True)}
    for at, level, left in zip(*(column[1::2].tolist() for column in written), strict=True):
        if (traffic.times == at).sum() == 1:
            assert last_seen[at][0] == left
            assert abs(last_seen[at][1] - level) < 1


def test_the_share_of_time_with_nothing_left() -> None:
    quota = Quota.parse("1/s", burst=1)
    algorithm = ALGORITHMS["token-bucket"].from_quota(quota)
    levels = looked(algorithm, integers([0]), integers([1]), np.arange(0, 4 * 10**9 + 1, 10**7))
    assert levels.spent(4 * 10**9) == pytest.approx(0.25, abs=0.005)
    assert levels.spent(2 * 10**9) == pytest.approx(0.5, abs=0.01)  # times after the traffic do not count


def test_a_band_holds_the_minimum_mean_and_maximum_of_each_part() -> None:
    times, values = integers([0, 10, 10, 20, 40]), integers([4, 0, 6, 6, 2])
    band = banded(times, values, borders(40, 2))
    assert (band.least.tolist(), band.mean.tolist(), band.most.tolist()) == ([0, 2], [4, 4], [6, 6])
    assert turns(values) == 2
