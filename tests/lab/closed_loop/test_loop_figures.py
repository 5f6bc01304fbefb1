"""Figures of closed loops: counts of requests and tries, times to success, herds and recovery."""

from __future__ import annotations

import numpy as np
import pytest
from loop_outcomes import MS, Request, Try, make_outcome, make_policy

from ratelab import create
from ratelab.errors import InputError
from ratelab.lab.closed_loop.behavior import Behavior, Fault, Population, Retry
from ratelab.lab.closed_loop.figures import (
    LoopCase,
    compare_loops,
    compute_herd_peak,
    compute_recovery_time,
    is_metastable,
    measure_loop,
)
from ratelab.lab.closed_loop.outcome import DENIED, ERROR, GAVE_UP, NO_LIMIT, PENDING, SHED, SUCCESS, TIMEOUT
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic

S = 1000
"""A second in milliseconds."""

REQUESTS = [
    Request(0, 0, 0, 1, SUCCESS),
    Request(0, 100, 2100, 3, SUCCESS),
    Request(1, 200, 500, 2, GAVE_UP),
    Request(1, 900, -1, 1, PENDING),
]
TRIES = [
    Try(0, 0, 1, SUCCESS),
    Try(100, 1, 1, DENIED, allowed=False),
    Try(200, 2, 1, TIMEOUT, wasted=True),
    Try(500, 2, 2, SHED),
    Try(900, 3, 1, PENDING),
    Try(1100, 1, 2, ERROR),
    Try(2100, 1, 3, SUCCESS),
]


def test_requests_and_tries_are_counted_by_their_results() -> None:
    result = measure_loop(make_outcome(REQUESTS, TRIES, 4 * S, policy=make_policy(), clients=3))
    assert (result.first_tries, result.attempts, result.amplification) == (4, 7, 1.75)
    assert (result.successes, result.gave_up, result.pending) == (2, 1, 1)
    assert (result.denied, result.errors, result.shed, result.timeouts, result.wasted) == (1, 1, 1, 1, 1)
    assert (result.goodput, result.goodput_ratio, result.success_ratio) == (0.5, 0.5, 0.666667)
    assert (result.time_to_success_p50, result.time_to_success_p99) == (0, 2)
    assert (result.peak_in_window, result.overshoot) == (3, 1.5)
    assert (result.clients, result.fairness) == (2, 0.5)
    counts = {name: column.tolist() for name, column in result.client_counts.items()}
    assert counts == {
        "first_tries": [2, 2, 0],
        "attempts": [4, 3, 0],
        "denied": [1, 0, 0],
        "successes": [2, 0, 0],
        "gave_up": [0, 1, 0],
    }
    assert result.requests_by_tries[SUCCESS].tolist() == [0, 1, 0, 1]
    assert result.requests_by_tries[GAVE_UP].tolist() == [0, 0, 1]


def test_first_tries_are_successes_given_up_or_pending() -> None:
    result = measure_loop(make_outcome(REQUESTS, TRIES, 4 * S, clients=2))
    assert result.first_tries == result.successes + result.gave_up + result.pending


def test_figures_without_requests_or_limiter_are_none() -> None:
    result = measure_loop(make_outcome([], [], S))
    assert (result.algorithm, result.first_tries, result.amplification, result.goodput) == (NO_LIMIT, 0, 0, 0)
    none = ("success_ratio", "time_to_success_p50", "time_to_success_p99", "herd_peak", "recovery_time")
    assert [getattr(result, name) for name in (*none, "peak_in_window", "overshoot", "fairness")] == [None] * 8
    assert result.metastable is False


def test_percentiles_are_nearest_ranks() -> None:
    requests = [Request(0, 0, 10 * number, 1, SUCCESS) for number in range(1, 101)]
    result = measure_loop(make_outcome(requests, [], 2 * S))
    assert (result.time_to_success_p50, result.time_to_success_p99) == (0.5, 0.99)


def test_a_herd_is_the_fullest_tenth_of_a_second_over_the_mean() -> None:
    spread = np.arange(0, 1000 * MS, 10 * MS)
    assert compute_herd_peak(spread, 1000 * MS) == 1
    herd = np.sort(np.concatenate([np.full(30, 450 * MS), np.array([450 * MS + 100 * MS - 1, 550 * MS])]))
    assert compute_herd_peak(herd, 1000 * MS) == round(31 / 3.2, 4)
    assert compute_herd_peak(spread[:0], 1000 * MS) is None


def make_successes(*rates: tuple[int, int]) -> Integers:
    """Return the times of evenly spaced successes, for spans in seconds with as many successes a second."""
    times, begin = [], 0
    for seconds, rate in rates:
        times += [begin + (2 * n + 1) * 10**9 // (2 * rate) for n in range(seconds * rate)]
        begin += seconds * 10**9
    return np.array(times, np.int64)


OUTAGE = (Fault("outage", 20 * 10**9, 30 * 10**9),)


def test_recovery_lasts_until_three_windows_in_a_row_have_enough_successes() -> None:
    succeeded = make_successes((20, 20), (10, 0), (4, 10), (2, 19), (1, 10), (23, 18))
    assert compute_recovery_time(succeeded, OUTAGE, 60 * 10**9) == 7
    assert compute_recovery_time(make_successes((20, 20), (10, 0), (30, 20)), OUTAGE, 60 * 10**9) == 0
    assert compute_recovery_time(make_successes((20, 20), (10, 0), (30, 17)), OUTAGE, 60 * 10**9) is None


def test_recovery_counts_in_hundredths_of_a_long_duration() -> None:
    succeeded = make_successes((20, 10), (10, 0), (5, 0), (365, 10))
    assert compute_recovery_time(succeeded, OUTAGE, 400 * 10**9) == 8


def test_there_is_no_recovery_without_a_fault_or_success_before_it() -> None:
    assert compute_recovery_time(make_successes((60, 10)), (), 60 * 10**9) is None
    assert compute_recovery_time(make_successes((30, 0), (30, 10)), OUTAGE, 60 * 10**9) is None
    begins = (Fault("outage", 0, 10**9),)
    assert compute_recovery_time(make_successes((60, 10)), begins, 60 * 10**9) is None


def test_goodput_under_half_late_after_the_fault_is_metastable() -> None:
    low = make_successes((20, 20), (10, 0), (20, 20), (10, 9))
    assert is_metastable(low, OUTAGE, 60 * 10**9)
    assert not is_metastable(make_successes((20, 20), (10, 0), (20, 0), (10, 10)), OUTAGE, 60 * 10**9)
    assert not is_metastable(low, OUTAGE, 30 * 10**9)
    assert not is_metastable(low, (), 60 * 10**9)


def make_population() -> Population:
    times = np.arange(10) * 10**8
    traffic = Traffic(times, np.zeros(10, np.int64), np.ones(10, np.int64), ("alice",), np.zeros(1, np.int64), 10**10)
    return Population(traffic, (Behavior(retry=Retry("fixed")),), np.zeros(1, np.int64), 1)


def test_each_policy_meets_traffic_of_its_own() -> None:
    policies = tuple(create(name, "2/s", 2) for name in ("token-bucket", "leaky-bucket"))
    passed: list[int] = []
    comparison = compare_loops([LoopCase(make_population(), policies)], passed.append, keep=True)
    assert comparison.has_same_requests
    assert comparison.quotas == [policies[0].quota]
    assert [result.label for result in comparison.results] == ["token-bucket", "leaky-bucket"]
    assert [result.attempts for result in comparison.results] == [len(each.tries) for each in comparison.outcomes]
    assert sum(passed) == 2 * 10**10


def test_a_row_is_called_after_its_variant_and_its_algorithm() -> None:
    both = tuple(create(name, "2/s", 2) for name in ("token-bucket", "leaky-bucket"))
    cases = [LoopCase(make_population(), both, "a"), LoopCase(make_population(), both[:1], "b")]
    labels = [result.label for result in compare_loops(cases).results]
    assert labels == ["token-bucket (a)", "leaky-bucket (a)", "b"]


def test_without_a_quota_there_is_one_run_without_a_limiter() -> None:
    comparison = compare_loops([LoopCase(make_population(), ())])
    assert [(result.label, result.denied) for result in comparison.results] == [(NO_LIMIT, 0)]
    assert (comparison.quotas, comparison.outcomes) == ([], ())


def test_two_algorithms_of_one_name_are_rejected() -> None:
    with pytest.raises(InputError, match="two algorithms are called 'gcra'"):
        compare_loops([LoopCase(make_population(), (create("gcra", "2/s"),) * 2)])
