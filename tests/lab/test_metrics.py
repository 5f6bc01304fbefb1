"""Metrics: each figure equals a slow and obvious count of the same run."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from fractions import Fraction
from itertools import pairwise
from statistics import fmean, pstdev

import numpy as np
import pytest
from durations import SECOND
from hypothesis import given
from random_runs import (
    Request,
    count_windows,
    create_column,
    create_outcomes,
    create_rows,
    create_traffic,
    list_departures,
    quotas,
    runs,
)

from ratelab import Quota, create
from ratelab.algorithms import COMPARED
from ratelab.lab.comparison import compare
from ratelab.lab.metrics import Result, compute_fairness, measure, measure_gaps
from ratelab.lab.traffic import Traffic


def measure_run(run: list[Request], quota: Quota) -> Result:
    outcome, exact = create_outcomes(run, quota)
    return measure(outcome, exact)


# --- random runs


def count_variation(departures: list[int]) -> float | None:
    gaps = [Fraction(later - at) for at, later in pairwise(sorted(departures))]
    return pstdev(gaps) / fmean(gaps) if len(gaps) > 1 and any(gaps) else None


def count_fairness(run: list[Request]) -> float | None:
    sent = {client: [request.allowed for request in run if request.client == client] for client in range(4)}
    shares = [Fraction(sum(allowed), len(allowed)) for allowed in sent.values() if allowed]
    squares = sum(share**2 for share in shares)
    return float(sum(shares) ** 2 / (len(shares) * squares)) if squares else 1.0 if shares else None


@given(runs, quotas)
def test_requests_are_counted_by_outcome(run: list[Request], quota: Quota) -> None:
    result, total, admitted = measure_run(run, quota), len(run), sum(request.allowed for request in run)
    assert (result.offered, result.admitted, result.denied) == (total, admitted, total - admitted)
    assert result.delayed == sum(request.allowed and request.delay > 0 for request in run)
    assert result.admit_ratio == (round(admitted / total, 4) if total else 0)
    assert result.over_admitted == sum(request.allowed and not request.exact for request in run)
    assert result.over_denied == sum(request.exact and not request.allowed for request in run)


@given(runs, quotas)
def test_requests_are_counted_by_client(run: list[Request], quota: Quota) -> None:
    result = measure_run(run, quota)
    offered = [sum(request.client == client for request in run) for client in range(4)]
    admitted = [sum(request.client == client and request.allowed for request in run) for client in range(4)]
    assert (result.client_offered.tolist(), result.client_admitted.tolist()) == (offered, admitted)
    denied = sum(passed < sent for passed, sent in zip(admitted, offered, strict=True))
    senders = sum(map(bool, offered))
    assert (result.clients, result.clients_denied) == (senders, denied)
    assert result.clients_denied_ratio == (round(denied / senders, 6) if senders else 0)


@given(runs, quotas)
def test_delays_are_averaged_over_admitted_requests(run: list[Request], quota: Quota) -> None:
    result, delays = measure_run(run, quota), [request.delay for request in run if request.allowed] or [0]
    assert result.mean_delay == pytest.approx(sum(delays) / len(delays) / SECOND, abs=6e-7)
    assert result.max_delay == pytest.approx(max(delays) / SECOND, abs=6e-7)


@given(runs, quotas)
def test_the_peak_is_the_fullest_window_of_one_key(run: list[Request], quota: Quota) -> None:
    result, peak = measure_run(run, quota), max(count_windows(list_departures(run), quota.window).values(), default=0)
    assert (result.peak_in_window, result.overshoot) == (peak, round(peak / quota.burst, 4))


@given(runs, quotas)
def test_burstiness_is_the_deviation_of_gaps_over_their_mean(run: list[Request], quota: Quota) -> None:
    counted = count_variation([at for at, _, _ in list_departures(run)])
    assert measure_run(run, quota).burstiness == (counted if counted is None else pytest.approx(counted, abs=6e-5))


@given(runs, quotas)
def test_fairness_is_jains_index_of_admitted_shares(run: list[Request], quota: Quota) -> None:
    counted = count_fairness(run)
    assert measure_run(run, quota).fairness == (counted if counted is None else pytest.approx(counted, abs=6e-5))


# --- burstiness and fairness of given values


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([], None),
        ([5], None),
        ([0, 5], None),
        ([3, 3, 3], None),
        ([0, 10, 20, 30], 0),
        ([30, 0, 20, 10], 0),
        ([0, 0, 0, 4], 1.4142),
        ([0, 1, 4], 0.5),
    ],
)
def test_burstiness_of_given_departures(times: list[int], expected: float | None) -> None:
    assert measure_gaps(create_rows([(time, 1, 0) for time in times])).variation == expected


@pytest.mark.parametrize(
    ("offered", "admitted", "expected"),
    [
        ([0, 0], [0, 0], None),
        ([5, 0], [2, 0], 1),
        ([5, 9], [0, 0], 1),
        ([10, 1000], [5, 500], 1),
        ([4, 4, 4, 4], [4, 0, 0, 0], 0.25),
        ([2, 2], [2, 1], 0.9),
    ],
)
def test_fairness_of_given_counts(offered: list[int], admitted: list[int], expected: float | None) -> None:
    assert compute_fairness(create_column(offered), create_column(admitted)) == expected


def test_poisson_departures_have_a_burstiness_of_one() -> None:
    gaps = np.random.PCG64(1).random_raw(20_000) / 2.0**64
    times = np.cumsum(-np.log(1 - gaps) * SECOND).astype(np.int64)
    assert measure_gaps(create_rows([(time, 1, 0) for time in times.tolist()])).variation == pytest.approx(1, abs=0.03)


# --- runs through real algorithms


def compare_algorithms(quota: Quota, times: list[int]) -> dict[str, Result]:
    zeros = create_column([0] * len(times))
    traffic = Traffic(
        create_column(times), zeros, zeros + 1, ("alice",), create_column([0]), times[-1] + 1 if times else 1
    )
    comparison = compare([create(name, quota) for name in COMPARED], traffic)
    return {result.algorithm: result for result in comparison.results}


def test_figures_of_ten_requests_at_once() -> None:
    results = compare_algorithms(Quota.parse("2/s", burst=5), [SECOND] * 10)
    figures = {
        name: (
            result.admitted,
            result.delayed,
            result.mean_delay,
            result.max_delay,
            result.peak_in_window,
            result.burstiness,
        )
        for name, result in results.items()
    }
    assert figures.pop("leaky-bucket") == (5, 4, 1.0, 2.0, 5, 0.0)
    assert set(figures.values()) == {(5, 0, 0.0, 0.0, 5, None)}


def test_figures_of_two_bursts_around_a_boundary() -> None:
    results = compare_algorithms(Quota.parse("2/s", burst=5), [2_400_000_000] * 5 + [2_500_000_000] * 5)
    figures = {name: (result.overshoot, result.over_admitted, result.over_denied) for name, result in results.items()}
    assert figures.pop("fixed-window") == (2.0, 5, 0)
    assert set(figures.values()) == {(1.0, 0, 0)}


def test_figures_without_requests_are_zero_or_none() -> None:
    for result in compare_algorithms(Quota.parse("2/s", burst=5), []).values():
        assert (result.offered, result.peak_in_window, result.overshoot, result.admit_ratio) == (0, 0, 0, 0)
        assert (result.burstiness, result.fairness, result.clients_denied_ratio) == (None, None, 0)


def test_every_algorithm_admits_a_single_request() -> None:
    for result in compare_algorithms(Quota.parse("2/s", burst=5), [0]).values():
        assert (result.admitted, result.peak_in_window, result.fairness, result.burstiness) == (1, 1, 1, None)


def test_without_an_exact_log_its_figures_are_none() -> None:
    traffic = Traffic(create_column([0]), create_column([0]), create_column([1]), ("a",), create_column([0]), SECOND)
    (result,) = compare([create("gcra", "1000/s", burst=2_000_000)], traffic).results
    assert (result.over_admitted, result.over_denied) == (None, None)
    assert math.isclose(result.overshoot, 0, abs_tol=1e-4)


@given(runs, quotas)
def test_figures_by_decision_need_a_reference_for_the_same_traffic(run: list[Request], quota: Quota) -> None:
    outcome, exact = create_outcomes(run, quota)
    same, other = measure(outcome, exact), measure(outcome, replace(exact, traffic=create_traffic(run)))
    assert (other.over_admitted, other.over_denied) == (None, None)
    assert None not in (same.over_admitted, same.over_denied)
    for figure in {field.name for field in fields(Result)} - {"over_admitted", "over_denied"}:
        assert np.array_equal(getattr(other, figure), getattr(same, figure)), figure


def test_the_overshoot_is_that_of_the_references_quota() -> None:
    run = [Request(0, 0, 1, True, 0, True)] * 6
    outcome, _ = create_outcomes(run, Quota(2, SECOND, 6))
    _, exact = create_outcomes(run, Quota(2, SECOND, 3))
    assert (measure(outcome, None).overshoot, measure(outcome, exact).overshoot) == (1, 2)


def test_each_integer_of_a_state_takes_eight_bytes() -> None:
    results = compare_algorithms(Quota.parse("2/s", burst=5), [0])
    assert [result.state_bytes_per_key for result in results.values()] == [16, 16, 16, 72, 24]
