"""Closed loops that never end, or that are too large, end with an error in one line."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from loop_comparison import list_rows
from test_loop_properties import create_population

from ratelab import InputError, Quota, create
from ratelab.algorithms import Policy
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.lab.closed_loop import outcome
from ratelab.lab.closed_loop.behavior import MS, Behavior, Delay, Population, Retry, Server
from ratelab.lab.closed_loop.engine import Engine, PythonEngine
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


class LargerEngine:
    """An engine of another class, which stands for compiled code."""

    def __init__(self, engine: Engine) -> None:
        self.world, self.run, self.column = engine.world, engine.run, engine.column


def test_a_run_that_retries_make_long_begins_again_in_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[bool] = []

    def create_engine(policy: Policy | None, population: Population, compiled: bool) -> Engine:
        created.append(compiled)
        engine = PythonEngine(policy, population)
        return LargerEngine(engine) if compiled else engine

    behavior = Behavior("serial", think=Delay(500 * MS), retry=Retry("fixed", base=MS, attempts=None))
    policy, population = create("token-bucket", "1/s", 1), create_population(("a", "b"), behavior)
    rows = list_rows(run_loop(policy, population))
    assert len(rows[0]) > 1_000 > 2 * outcome.estimate_tries(population)
    monkeypatch.setattr(outcome, "create_engine", create_engine)
    monkeypatch.setattr(outcome, "has_compiler", lambda: True)
    monkeypatch.setattr(outcome, "FIRST_EVENTS", 100)
    passed: list[int] = []
    for limit, engines in ((10**6, [False]), (400, [False, True]), (1, [True])):
        monkeypatch.setattr(outcome, "MIN_COMPILED_TRIES", limit)
        created.clear()
        passed.clear()
        assert list_rows(run_loop(policy, population, passed.append)) == rows
        assert created == engines
        assert min(passed) > 0
        assert sum(passed) == population.duration


def test_the_runs_of_an_algorithm_are_compiled_for_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    population = create_population(("a",), Behavior("serial", think=Delay(1000 * MS)))
    expected: list[int] = []
    monkeypatch.setattr(outcome, "run_loop", lambda *arguments: expected.append(arguments[-1]))
    policies = [create("gcra", "1/s", 1), create("gcra", "2/s", 1), None]
    assert len([*outcome.run_loops([(policy, population) for policy in policies])]) == 3
    tries = outcome.estimate_tries(population)
    assert expected == [2 * tries, 2 * tries, tries]


def test_an_empty_population_ends_at_once() -> None:
    assert len(run_loop(None, create_population((), Behavior())).requests) == 0
