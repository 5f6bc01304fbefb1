"""Curves and levels: what a picture is drawn from is what counting by hand finds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_runs import Request, departed, integers, runs, traffic_of, windows_counted

from ratelab import ALGORITHMS, Quota
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
def test_what_has_left_so_far_is_the_sum_of_the_costs_up_to_then(drawn: list[tuple[int, int]]) -> None:
    curve = cumulative(integers([at for at, _ in drawn]), integers([cost for _, cost in drawn]))
    for moment in range(52):
        assert value_at(curve, moment) == sum(cost for at, cost in drawn if at <= moment)


@few
@given(points, ends, st.integers(1, 60))
def test_parts_hold_each_time_once_and_the_last_its_end_too(drawn: list[tuple[int, int]], end: int, parts: int) -> None:
    times, chosen = integers([at for at, _ in drawn]), np.array([value % 2 == 1 for _, value in drawn], np.bool_)
    cuts = borders(end, parts).tolist()
    assert (cuts[0], cuts[-1], len(cuts)) == (0, end, parts + 1)
    counted = [sum(begin <= at < stop for at in times[chosen]) for begin, stop in pairwise([*cuts[:-1], end + 1])]
    assert within(chosen, times, integers(cuts)).tolist() == counted


@few
@given(runs, st.integers(1, 20), st.integers(1, 9))
def test_the_most_in_a_window_is_counted_at_every_moment_of_a_part(run: list[Request], window: int, parts: int) -> None:
    left = sorted((at % 60, cost) for at, cost, key in departed(run) if key == 1)
    cuts = borders(60, parts).tolist()
    times, costs = (integers([one[column] for one in left]) for column in (0, 1))
    found = most_in_window(times, costs, window, integers(cuts))
    held = [sum(cost for at, cost in left if now - window < at <= now) for now in range(61)]
    for most, (begin, stop) in zip(found.tolist(), pairwise([*cuts[:-1], 61]), strict=True):
        assert most == max(held[begin:stop])
    counted = windows_counted([(at, cost, 1) for at, cost in left], window)
    assert int(found.max()) == max(counted.values(), default=0)


@few
@given(points.filter(lambda drawn: len(drawn) > 20), ends, st.integers(1, 4))
def test_thinning_keeps_each_parts_first_lowest_highest_and_last(
    drawn: list[tuple[int, int]], end: int, parts: int
) -> None:
    times, values = (integers([one[column] for one in drawn]) for column in (0, 1))
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
def test_a_level_agrees_with_what_is_left(run: list[Request], moments: list[int]) -> None:
    quota, traffic = Quota.parse("2/s", burst=7), traffic_of(run)
    for name, kind in ALGORITHMS.items():
        levels = looked(kind.from_quota(quota), traffic.times, traffic.costs, integers(sorted(moments)))
        for level, left in zip(levels.level.tolist(), levels.left.tolist(), strict=True):
            near = round(level, 11)  # what a nanosecond changes is more, what a float lacks is less
            assert left == (floor(near) if name == "token-bucket" else max(0, 7 - ceil(near))), name


@few
@given(name=st.sampled_from(list(ALGORITHMS)), run=runs)
def test_looking_changes_no_decision_and_the_record_tells_the_same_in_whole_units(
    name: str, run: list[Request]
) -> None:
    quota = Quota.parse("2/s", burst=7)
    traffic = replace(traffic_of(run), keys=np.zeros(4, np.int64))
    algorithm = ALGORITHMS[name].from_quota(quota)
    seen = looked(algorithm, traffic.times, traffic.costs, integers([0]))
    made = replay(algorithm, traffic)
    before = made["remaining"] + np.where(made["allowed"], traffic.costs, 0)
    written = recorded(algorithm, quota, traffic.times, before, made["remaining"])
    last_seen = {at: (left, level) for at, level, left in zip(*map(list, seen), strict=True)}
    for at, level, left in zip(*(column[1::2].tolist() for column in written), strict=True):
        if (traffic.times == at).sum() == 1:
            assert last_seen[at][0] == left
            assert abs(last_seen[at][1] - level) < 1


def test_time_with_nothing_left_is_told_as_a_share() -> None:
    quota = Quota.parse("1/s", burst=1)
    algorithm = ALGORITHMS["token-bucket"].from_quota(quota)
    levels = looked(algorithm, integers([0]), integers([1]), np.arange(0, 4 * 10**9 + 1, 10**7))
    assert levels.spent(4 * 10**9) == pytest.approx(0.25, abs=0.005)
    assert levels.spent(2 * 10**9) == pytest.approx(0.5, abs=0.01)  # what comes after the traffic does not count


def test_a_band_holds_the_least_the_mean_and_the_most_of_each_part() -> None:
    times, values = integers([0, 10, 10, 20, 40]), integers([4, 0, 6, 6, 2])
    band = banded(times, values, borders(40, 2))
    assert (band.least.tolist(), band.mean.tolist(), band.most.tolist()) == ([0, 2], [4, 4], [6, 6])
    assert turns(values) == 2
