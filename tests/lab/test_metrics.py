"""Metrics: each figure equals what a slow and obvious count of the same run gives."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from statistics import fmean, pstdev

import numpy as np
import pytest
from hypothesis import given
from random_runs import (
    SECOND,
    Request,
    departed,
    exact_in,
    integers,
    made_in,
    quotas,
    rows_of,
    runs,
    traffic_of,
    windows_counted,
)

from ratelab import Quota, create
from ratelab.algorithms import COMPARED, find
from ratelab.lab.comparison import compare
from ratelab.lab.metrics import Result, burstiness, fairness, measure
from ratelab.lab.traffic import Traffic


def measured(run: list[Request], quota: Quota) -> Result:
    return measure(create("token-bucket", quota), quota, traffic_of(run), made_in(run), exact_in(run))


# --- the slow and obvious


def variation_counted(left: list[int]) -> float | None:
    gaps = [Fraction(later - at) for at, later in pairwise(sorted(left))]
    return pstdev(gaps) / fmean(gaps) if len(gaps) > 1 and any(gaps) else None


def fairness_counted(run: list[Request]) -> float | None:
    sent = {client: [request.allowed for request in run if request.client == client] for client in range(4)}
    shares = [Fraction(sum(allowed), len(allowed)) for allowed in sent.values() if allowed]
    squares = sum(share**2 for share in shares)
    return float(sum(shares) ** 2 / (len(shares) * squares)) if squares else 1.0 if shares else None


@given(runs, quotas)
def test_counts_are_what_counting_gives(run: list[Request], quota: Quota) -> None:
    result, total, admitted = measured(run, quota), len(run), sum(request.allowed for request in run)
    assert (result.offered, result.admitted, result.denied) == (total, admitted, total - admitted)
    assert result.delayed == sum(request.allowed and request.delay > 0 for request in run)
    assert result.admit_ratio == (round(admitted / total, 4) if total else 0)
    assert result.over_admitted == sum(request.allowed and not request.exact for request in run)
    assert result.over_denied == sum(request.exact and not request.allowed for request in run)


@given(runs, quotas)
def test_clients_are_counted_one_by_one(run: list[Request], quota: Quota) -> None:
    result = measured(run, quota)
    offered = [sum(request.client == client for request in run) for client in range(4)]
    admitted = [sum(request.client == client and request.allowed for request in run) for client in range(4)]
    assert (result.client_offered.tolist(), result.client_admitted.tolist()) == (offered, admitted)
    denied = sum(one < many for one, many in zip(admitted, offered, strict=True))
    senders = sum(map(bool, offered))
    assert (result.clients, result.clients_denied) == (senders, denied)
    assert result.clients_denied_ratio == (round(denied / senders, 6) if senders else 0)


@given(runs, quotas)
def test_delays_are_taken_over_the_admitted(run: list[Request], quota: Quota) -> None:
    result, delays = measured(run, quota), [request.delay for request in run if request.allowed] or [0]
    assert result.mean_delay == pytest.approx(sum(delays) / len(delays) / SECOND, abs=6e-7)
    assert result.max_delay == pytest.approx(max(delays) / SECOND, abs=6e-7)


@given(runs, quotas)
def test_the_peak_is_the_fullest_window_of_one_key(run: list[Request], quota: Quota) -> None:
    result, peak = measured(run, quota), max(windows_counted(departed(run), quota.window).values(), default=0)
    assert (result.peak_in_window, result.overshoot) == (peak, round(peak / quota.burst, 4))


@given(runs, quotas)
def test_burstiness_is_the_spread_of_the_gaps_over_their_mean(run: list[Request], quota: Quota) -> None:
    counted = variation_counted([at for at, _, _ in departed(run)])
    assert measured(run, quota).burstiness == (counted if counted is None else pytest.approx(counted, abs=6e-5))


@given(runs, quotas)
def test_fairness_is_jains_index_of_the_shares(run: list[Request], quota: Quota) -> None:
    counted = fairness_counted(run)
    assert measured(run, quota).fairness == (counted if counted is None else pytest.approx(counted, abs=6e-5))


# --- by hand


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
def test_burstiness_by_hand(times: list[int], expected: float | None) -> None:
    assert burstiness(rows_of([(time, 1, 0) for time in times])) == expected


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
def test_fairness_by_hand(offered: list[int], admitted: list[int], expected: float | None) -> None:
    assert fairness(integers(offered), integers(admitted)) == expected


def test_what_poisson_arrivals_leave_behind_has_a_burstiness_of_one() -> None:
    gaps = np.random.PCG64(1).random_raw(20_000) / 2.0**64
    times = np.cumsum(-np.log(1 - gaps) * SECOND).astype(np.int64)
    assert burstiness(rows_of([(time, 1, 0) for time in times.tolist()])) == pytest.approx(1, abs=0.03)


# --- a run through real algorithms


def run_through(quota: Quota, times: list[int]) -> dict[str, Result]:
    one = integers([0] * len(times))
    traffic = Traffic(integers(times), one, one + 1, ("alice",), integers([0]), times[-1] + 1 if times else 1)
    return {result.algorithm: result for result in compare(quota, traffic, [find(name) for name in COMPARED]).results}


def test_ten_at_once_by_hand() -> None:
    results = run_through(Quota.parse("2/s", burst=5), [SECOND] * 10)
    told = {
        name: (one.admitted, one.delayed, one.mean_delay, one.max_delay, one.peak_in_window, one.burstiness)
        for name, one in results.items()
    }
    assert told.pop("leaky-bucket") == (5, 4, 1.0, 2.0, 5, 0.0)
    assert set(told.values()) == {(5, 0, 0.0, 0.0, 5, None)}


def test_a_boundary_by_hand() -> None:
    results = run_through(Quota.parse("2/s", burst=5), [2_400_000_000] * 5 + [2_500_000_000] * 5)
    told = {name: (one.overshoot, one.over_admitted, one.over_denied) for name, one in results.items()}
    assert told.pop("fixed-window") == (2.0, 5, 0)
    assert set(told.values()) == {(1.0, 0, 0)}


def test_nothing_sent_is_nothing_to_measure() -> None:
    for result in run_through(Quota.parse("2/s", burst=5), []).values():
        assert (result.offered, result.peak_in_window, result.overshoot, result.admit_ratio) == (0, 0, 0, 0)
        assert (result.burstiness, result.fairness, result.clients_denied_ratio) == (None, None, 0)


def test_one_request_is_admitted_by_all() -> None:
    for result in run_through(Quota.parse("2/s", burst=5), [0]).values():
        assert (result.admitted, result.peak_in_window, result.fairness, result.burstiness) == (1, 1, 1, None)


def test_a_log_that_could_not_be_held_leaves_its_comparison_out() -> None:
    quota = Quota.parse("1000/s", burst=2_000_000)
    traffic = Traffic(integers([0]), integers([0]), integers([1]), ("a",), integers([0]), SECOND)
    (result,) = compare(quota, traffic, [find("gcra")]).results
    assert (result.over_admitted, result.over_denied) == (None, None)
    assert math.isclose(result.overshoot, 0, abs_tol=1e-4)


def test_state_is_eight_bytes_a_number() -> None:
    results = run_through(Quota.parse("2/s", burst=5), [0])
    assert [one.state_bytes_per_key for one in results.values()] == [16, 16, 16, 72, 24]
