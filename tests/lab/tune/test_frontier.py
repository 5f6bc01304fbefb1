"""Frontier: the needs of keys at every rate, against a direct model, in plain Python and compiled."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from drawn_rows import draw_rows
from hypothesis import given
from hypothesis import strategies as st
from slow_parameters import mark_slow

from ratelab.lab import partition
from ratelab.lab.traffic import Traffic
from ratelab.lab.tune import frontier
from ratelab.lab.tune.frontier import Frontier, measure_frontier
from ratelab.quota import NS_PER_S, Quota

Request = tuple[int, int, int]
"""Time, key and cost."""

requests = draw_rows(
    (range(4), range(10**17)), range(10**17), range(4), (range(1, 4), range(1, 10**6)), range(10**6), max_size=40
).map(
    lambda rows: [(times[time % len(times)], key, costs[cost % len(costs)]) for times, time, key, costs, cost in rows]
)
rates = st.builds(Quota, st.integers(1, 1000), st.integers(1, 10) | st.integers(1, 10**15))


def build_traffic(rows: list[Request], keys: int = 4) -> Traffic:
    times, clients, costs = (np.array(column, np.int64) for column in zip(*sorted(rows), strict=True))
    names = tuple(f"client-{key}" for key in range(keys))
    return Traffic(times, clients, costs, names, np.arange(keys), int(times[-1]) + 1)


def measure_compiled(traffic: Traffic) -> Frontier:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frontier, "MIN_COMPILED_REQUESTS", 0)
        return measure_frontier(traffic)


def need_of(rows: list[Request], key: int, rate: Quota) -> int:
    """Compute a need as the largest level of a bucket without a bottom that leaks at the rate."""
    most = level = Fraction(0)
    last = 0
    for time, owner, cost in sorted(rows):
        if owner == key:
            level = max(Fraction(0), level - Fraction(rate.limit * (time - last), rate.period)) + cost
            most, last = max(most, level), time
    return ceil(most)


@pytest.mark.parametrize("measure", mark_slow([measure_frontier, measure_compiled], [measure_frontier]))
@given(rows=requests.filter(bool), rate=rates)
def test_a_need_is_the_largest_level_at_that_rate(measure, rows: list[Request], rate: Quota) -> None:  # type: ignore[no-untyped-def]
    needs = measure(build_traffic(rows)).find_needs(rate)
    assert needs.tolist() == [need_of(rows, key, rate) for key in range(4)]


def corners_of(rows: list[Request], key: int) -> list[tuple[int, int]]:
    """Return the corners of the hull of all spans, which are sorted instead of merged."""
    own = [(time, cost) for time, owner, cost in sorted(rows) if owner == key]
    spans = sorted(
        (own[last][0] - own[first][0], sum(cost for _, cost in own[first : last + 1]))
        for first in range(len(own))
        for last in range(first, len(own))
    )
    hull: list[tuple[int, int]] = []
    for span, amount in spans:
        if hull and amount <= hull[-1][1]:
            continue
        if hull and span == hull[-1][0]:
            hull.pop()
        while len(hull) >= 2 and not is_above(hull[-2], hull[-1], (span, amount)):
            hull.pop()
        hull.append((span, amount))
    return hull


def list_corners(found: Frontier, key: int) -> list[tuple[int, int]]:
    """Return the corners of a key as pairs of a span and an amount."""
    part = slice(found.begins[key], found.begins[key + 1])
    return list(zip(found.spans[part].tolist(), found.amounts[part].tolist(), strict=True))


def is_above(left: tuple[int, int], middle: tuple[int, int], right: tuple[int, int]) -> bool:
    """Return whether the middle point lies above the line through the others."""
    line = Fraction(right[1] - left[1], right[0] - left[0])
    return middle[1] > left[1] + line * (middle[0] - left[0])


@pytest.mark.parametrize("measure", mark_slow([measure_frontier, measure_compiled], [measure_frontier]))
@given(rows=requests.filter(bool))
def test_the_corners_are_those_of_the_hull_of_all_spans(measure, rows: list[Request]) -> None:  # type: ignore[no-untyped-def]
    found = measure(build_traffic(rows))
    assert [list_corners(found, key) for key in range(4)] == [corners_of(rows, key) for key in range(4)]


@given(rows=requests.filter(bool))
def test_partitions_do_not_change_the_frontier(rows: list[Request]) -> None:
    whole = measure_frontier(build_traffic(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition, "MAX_STATE_INTEGERS", 3)
        parts = measure_frontier(build_traffic(rows))
    assert [list_corners(parts, key) for key in range(4)] == [list_corners(whole, key) for key in range(4)]


def test_a_client_without_requests_needs_nothing() -> None:
    none = np.empty(0, np.int64)
    empty = Traffic(none, none, none, ("nobody",), np.zeros(1, np.int64), NS_PER_S)
    assert measure_frontier(empty).find_needs(Quota(1, NS_PER_S)).tolist() == [0]


@pytest.mark.slow
def test_products_beyond_64_bits_are_compared_exactly() -> None:
    rows = [(0, 0, 10**9), (10**17, 0, 10**9), (2 * 10**17 + 1, 0, 10**9)]
    assert list_corners(measure_compiled(build_traffic(rows)), 0) == corners_of(rows, 0)
