"""Moving windows: their costs equal counts one by one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from durations import SECOND
from hypothesis import given
from hypothesis import strategies as st
from random_runs import Request, count_windows, create_rows, create_traffic, list_departures, runs

from ratelab.lab.spill import Integers
from ratelab.lab.windows import Window, compute_trailing_costs, fullest_window

lengths = st.integers(1, 20) | st.sampled_from([SECOND, 2**62])


@given(runs, lengths, st.integers(0, 2**62))
def test_the_fullest_window_is_the_first_with_the_largest_cost(run: list[Request], length: int, begin: int) -> None:
    left = [(at + begin, cost, key) for at, cost, key in list_departures(run)]
    counted = count_windows(left, length)
    most = max(counted.values(), default=0)
    first = min((place for place, cost in counted.items() if cost == most), default=None)
    assert fullest_window(create_rows(left), 3, length) == (None if first is None else Window(most, *first))


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, (4, 10, 0)), (10, (4, 10, 0)), (11, (6, 10, 0)), (20, (6, 10, 0)), (21, (7, 0, 0)), (2**62, (7, 0, 0))],
)
def test_a_window_does_not_contain_its_end(length: int, expected: tuple[int, int, int]) -> None:
    left = [(0, 1, 0), (10, 3, 0), (10, 1, 0), (20, 2, 0), (20, 4, 1)]
    assert fullest_window(create_rows(left), 3, length) == expected


@pytest.mark.slow
@given(runs, lengths)
def test_the_trailing_cost_is_that_of_earlier_requests_of_the_key(run: list[Request], length: int) -> None:
    traffic, allowed = create_traffic(run), np.array([request.allowed for request in run], np.bool_)
    requests = list(zip(traffic.times.tolist(), traffic.costs.tolist(), traffic.request_keys.tolist(), strict=True))

    def cost_before(number: int, counted: list[bool]) -> int:
        now, _, key = requests[number]
        earlier = zip(requests[:number], counted, strict=False)
        return sum(cost for (at, cost, other), counts in earlier if counts and other == key and at + length > now)

    for mask in (allowed, np.ones(len(run), np.bool_)):
        expected = [cost_before(number, mask.tolist()) for number in range(len(run))]
        assert join_batches(compute_trailing_costs(traffic, length, mask)) == expected
    assert join_batches(compute_trailing_costs(traffic, length)) == expected


def join_batches(batches: Iterator[tuple[slice, Integers]]) -> list[int]:
    return [cost for _, costs in batches for cost in costs.tolist()]
