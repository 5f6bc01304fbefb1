"""Curves and levels: what a picture is drawn from is what counting by hand finds."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, floor

import numpy as np
import pytest
from drawn import Request, departed, integers, runs, traffic_of, windows_counted
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelab import ALGORITHMS, Quota
from ratelab.lab.curves import Curve, crest, cumulative, thinned, trailing
from ratelab.lab.levels import looked, recorded
from ratelab.lab.replay import replay

few = settings(max_examples=40)
points = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=60).map(sorted)


def curve_of(drawn: list[tuple[int, int]]) -> Curve:
    return Curve(integers([0, *(at for at, _ in drawn)]), integers([0, *(value for _, value in drawn)]))


def value_at(curve: Curve, moment: float) -> int:
    return int(curve.values[curve.times <= moment][-1])


@few
@given(points)
def test_what_has_left_so_far_is_the_sum_of_the_costs_up_to_then(drawn: list[tuple[int, int]]) -> None:
    curve = cumulative(integers([at for at, _ in drawn]), integers([cost for _, cost in drawn]))
    for moment in range(52):
        assert value_at(curve, moment) == sum(cost for at, cost in drawn if at <= moment)


@few
@given(runs, st.integers(1, 20))
def test_the_trailing_window_holds_what_left_within_it_and_peaks_where_the_figure_does(
    run: list[Request], window: int
) -> None:
    left = sorted((at, cost) for at, cost, key in departed(run) if key == 1)
    curve = trailing(integers([at for at, _ in left]), integers([cost for _, cost in left]), window)
    for moment in {0, *(at + offset for at, _ in left for offset in (0, 1, window - 1, window))}:
        assert value_at(curve, moment) == sum(cost for at, cost in left if moment - window < at <= moment)
    counted = windows_counted([(at, cost, 1) for at, cost in left], window)
    assert int(curve.values.max()) == max(counted.values(), default=0)


@few
@given(points, st.integers(51, 80), st.integers(1, 60))
def test_a_crest_is_the_most_at_any_moment_of_a_part(drawn: list[tuple[int, int]], end: int, columns: int) -> None:
    curve = curve_of(drawn)
    for part, most in enumerate(crest(curve, end, columns).tolist()):
        begin, stop = part * end // columns, max((part + 1) * end // columns, part * end // columns + 1)
        assert most == max(value_at(curve, moment) for moment in range(begin, stop))


@few
@given(points, st.integers(51, 80), st.integers(1, 10))
def test_thinning_keeps_each_columns_first_lowest_highest_and_last(
    drawn: list[tuple[int, int]], end: int, columns: int
) -> None:
    curve = curve_of(drawn)
    times, values = thinned(*curve, end, columns)
    assert set(zip(times.tolist(), values.tolist(), strict=True)) <= set(
        zip(curve.times.tolist(), curve.values.tolist(), strict=True)
    )
    for column in range(columns):
        whole, kept = (
            values_in[(times_in * columns // end) == column].tolist()
            for times_in, values_in in (curve, (times, values))
        )
        ends = (whole[0], min(whole), max(whole), whole[-1]) if whole else ()
        assert ends == ((kept[0], min(kept), max(kept), kept[-1]) if kept else ())
    assert len(times) <= 4 * columns or len(times) == len(curve.times)


@few
@given(name=st.sampled_from(list(ALGORITHMS)), run=runs, moments=st.lists(st.integers(0, 10**10), min_size=1))
def test_a_level_agrees_with_what_is_left(name: str, run: list[Request], moments: list[int]) -> None:
    quota, traffic = Quota.parse("2/s", burst=7), traffic_of(run)
    levels = looked(ALGORITHMS[name].from_quota(quota), traffic.times, traffic.costs, integers(sorted(moments)))
    for level, left in zip(levels.level.tolist(), levels.left.tolist(), strict=True):
        near = round(level, 6)  # a picture needs no more
        assert left == (floor(near) if name == "token-bucket" else max(0, 7 - ceil(near)))


@few
@given(name=st.sampled_from(list(ALGORITHMS)), run=runs)
def test_looking_changes_no_decision_and_the_record_tells_the_same_in_whole_units(
    name: str, run: list[Request]
) -> None:
    quota = Quota.parse("2/s", burst=7)
    traffic = replace(traffic_of(run), keys=np.zeros(4, np.int64))
    algorithm = ALGORITHMS[name].from_quota(quota)
    seen = looked(algorithm, traffic.times, traffic.costs, integers([0]))
    written = recorded(algorithm, quota, traffic.times, traffic.costs, replay(algorithm, traffic))
    last_seen = {at: (left, level) for at, level, left in zip(*map(list, seen), strict=True)}
    for at, level, left in zip(*(column[1::2].tolist() for column in written), strict=True):
        if (traffic.times == at).sum() == 1:
            assert last_seen[at][0] == left
            assert abs(last_seen[at][1] - level) < 1


def test_time_with_nothing_left_is_told_as_a_share() -> None:
    quota = Quota.parse("1/s", burst=1)
    algorithm = ALGORITHMS["token-bucket"].from_quota(quota)
    levels = looked(algorithm, integers([0]), integers([1]), np.arange(0, 4 * 10**9 + 1, 10**7))
    assert levels.spent() == pytest.approx(0.25, abs=0.005)
