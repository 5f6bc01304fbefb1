"""Closed loops that never end, or that are too large, end with an error in one line."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from test_loop_properties import create_population

from ratelab import InputError, Quota, create
from ratelab.algorithms import Policy
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.lab.closed_loop import outcome
from ratelab.lab.closed_loop.behavior import MS, Behavior, Delay, Retry, Server
from ratelab.lab.closed_loop.outcome import run_loop


def test_clients_that_try_again_at_one_time_without_end_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "MAX_STALLED_EVENTS", 1_000)
    population = create_population(("a",), Behavior("serial", retry=Retry("immediate", base=0, attempts=None)))
    with pytest.raises(InputError, match="without end at one time, got more than 1,020 events at 0 ns: give them"):
        run_loop(create("token-bucket", "1/s", 1), population)


def test_requests_without_think_time_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "MAX_STALLED_EVENTS", 1_000)
    with pytest.raises(InputError, match="give them a think time"):
        run_loop(None, create_population(("a",), Behavior("serial")))


def test_too_many_tries_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "MAX_TRIES", 1_000)
    with pytest.raises(InputError, match="may have at most 1,000 tries, got more: shorten"):
        run_loop(None, create_population(("a",), Behavior("serial", think=Delay(1))))


def test_a_server_that_always_fails_serves_nothing_with_success() -> None:
    behavior = Behavior("serial", think=Delay(10 * MS), retry=Retry("fixed", base=MS, attempts=None))
    population = create_population(("a", "b"), behavior)
    server = Server(workers=1, service=Delay(MS), queue=0, errors=Fraction(1))
    ended = run_loop(None, replace(population, server=server))
    assert (ended.requests.results == outcome.PENDING).all()


class FailingBucket(TokenBucket):
    """A third-party bucket with a bug."""

    def step(self, state, now, cost):  # type: ignore[no-untyped-def]
        raise ZeroDivisionError


def test_an_error_of_a_custom_algorithm_is_attributed_to_it() -> None:
    quota = Quota.parse("1/s")
    policy = Policy("mine", quota, FailingBucket.from_quota(quota))
    with pytest.raises(InputError, match="token-bucket failed: ZeroDivisionError"):
        run_loop(policy, create_population(("a",), Behavior("serial", think=Delay(MS))))


def test_progress_is_the_simulated_time() -> None:
    passed: list[int] = []
    population = create_population(("a",), Behavior("serial", think=Delay(MS)))
    run_loop(None, population, passed.append)
    assert len(passed) > 1
    assert sum(passed) == population.duration


def test_an_empty_population_ends_at_once() -> None:
    assert len(run_loop(None, create_population((), Behavior())).requests) == 0
