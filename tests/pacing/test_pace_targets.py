"""Use of an unknown quota in simulated time: at most 1 % denied after the first minute, at least 95 % used."""

from __future__ import annotations

import pytest
from paced_service import DIALECTS, Service, simulate
from slow_parameters import mark_slow

from ratelab import ALGORITHMS
from ratelab.pacing.pace import LearnedPace

ALONE, MANY = 1, 60


def check(algorithm: str, rate: int, burst: int, dialect: str, workers: int, seconds: int = 600) -> None:
    result = simulate(algorithm, rate, burst, dialect, workers, seconds=seconds)
    assert result.denied_share <= 0.01, result
    assert result.used >= 0.95, result


@pytest.mark.parametrize("dialect", mark_slow(DIALECTS, ("ietf", "bare")))
@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "gcra"])
def test_sixty_workers_use_a_quota_that_they_do_not_know(algorithm: str, dialect: str) -> None:
    check(algorithm, 10, 5, dialect, MANY, seconds=180)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("rate", "burst", "workers", "seconds"), [(3, 1, ALONE, 600), (3, 10, ALONE, 600), (10, 60, MANY, 180)]
)
@pytest.mark.slow
def test_each_algorithm_and_dialect_is_used_fully(
    algorithm: str, dialect: str, rate: int, burst: int, workers: int, seconds: int
) -> None:
    check(algorithm, rate, burst, dialect, workers, seconds)


@pytest.mark.slow
def test_a_thousand_requests_per_second_are_used_fully() -> None:
    check("fixed-window", 1000, 10, "ietf", MANY, seconds=80)


@pytest.mark.parametrize("algorithm", ["token-bucket", "fixed-window"])
def test_the_whole_quota_of_a_long_window_is_used_without_a_denial(algorithm: str) -> None:
    result = simulate(algorithm, 2, 240, "ietf", MANY, seconds=600, skipped=120)
    assert result.denied == 0
    assert result.used >= 0.95


@pytest.mark.parametrize("dialect", ["ietf", "bare"])
def test_two_clients_of_one_quota_share_it(dialect: str) -> None:
    result = simulate("token-bucket", 10, 10, dialect, 20, paces=[LearnedPace(), LearnedPace()], seconds=300)
    assert result.denied_share <= 0.02
    assert result.used >= 0.9


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_pace_follows_other_clients_of_the_quota(dialect: str) -> None:
    taken = [0]

    def take_half(service: Service, elapsed: int) -> None:
        while taken[0] * 200_000_000 < elapsed:  # five of ten requests per second
            service.decide()
            taken[0] += 1

    result = simulate("token-bucket", 10, 10, dialect, MANY, seconds=300, disturb=take_half)
    assert 0.4 <= result.used <= 0.7
    assert result.denied_share <= 0.02


def test_a_service_without_a_limit_is_not_held_back() -> None:
    result = simulate("token-bucket", 10_000, 10_000, "bare", MANY, seconds=5, skipped=1)
    assert (result.used >= 0.99, result.denied) == (True, 0)
