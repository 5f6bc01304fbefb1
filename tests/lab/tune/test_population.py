"""Populations: percentiles by nearest rank, the guarantee of a tolerance, and gaps."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelab.lab.tune.population import ClientNeeds, Gap, limit_tolerance


def build(needs: list[int]) -> ClientNeeds:
    return ClientNeeds.sort(np.array(needs, np.int64), np.array(needs, np.int64))


def test_clients_without_requests_do_not_count() -> None:
    assert len(build([0, 3, 0, 1])) == 2


@pytest.mark.parametrize(("share", "need"), [("0.5", 5), ("0.9", 9), ("0.91", 10), ("0.99", 10), ("1", 10)])
def test_a_percentile_is_a_need_by_nearest_rank(share: str, need: int) -> None:
    assert build([*range(10, 0, -1)]).percentile(Fraction(share)) == need


@pytest.mark.parametrize(
    ("clients", "tolerate", "burst"),
    [(9, "0.1", 9), (8, "0.1", None), (19, "0.1", 18), (999, "0.001", 999), (998, "0.001", None), (9, "0.999", 1)],
)
def test_a_tolerance_is_an_order_statistic(clients: int, tolerate: str, burst: int | None) -> None:
    assert build([*range(1, clients + 1)]).tolerated_burst(Fraction(tolerate)) == burst


@given(needs=st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_the_supported_tolerance_is_the_smallest_that_has_a_burst(needs: list[int]) -> None:
    population = build(needs)
    supported = limit_tolerance(Fraction(0), len(needs))
    assert population.tolerated_burst(supported) == max(needs)
    assert population.tolerated_burst(supported - Fraction(1, 10**9)) is None


@given(needs=st.lists(st.integers(1, 50), min_size=1, max_size=60), burst=st.integers(0, 60))
def test_clients_above_a_burst_are_counted(needs: list[int], burst: int) -> None:
    assert build(needs).count_above(burst) == sum(need > burst for need in needs)


def test_the_gap_is_the_largest_ratio_from_the_99th_percentile_on() -> None:
    assert build([1] * 50 + [30] * 48 + [40, 400]).find_gap() == Gap(40, 400, 1, 400 / 1930)
    assert build([1] * 950 + [10] * 40 + [20, 25, 26, 27, 80, 90, 91, 300, 301, 900]).find_gap() == Gap(
        91, 300, 3, 1501 / 3210
    )


def test_of_equal_gaps_the_lowest_counts() -> None:
    assert build([1] * 296 + [2, 4, 8, 9]).find_gap() == Gap(2, 4, 3, 21 / 319)


def test_a_hundred_clients_are_needed_for_a_gap() -> None:
    assert build([1] * 98 + [9]).find_gap() is None
    assert build([1] * 99 + [9]).find_gap() == Gap(1, 9, 1, 9 / 108)


def test_there_is_no_gap_between_equal_needs() -> None:
    assert build([7] * 300).find_gap() is None
