"""The loop of clients that know each result at once does what the general one and the model do."""

from __future__ import annotations

import gc
from array import array
from dataclasses import fields, replace

import numpy as np
import pytest
from loop_comparison import find_differences, list_rows, shrink_batches
from random_populations import ALGORITHMS, draw_instant_population
from test_loop_properties import create_population

from ratelab import create
from ratelab.algorithms import Policy
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.lab.closed_loop import loop, state, streams
from ratelab.lab.closed_loop.batches import MAX_TABLE_WIDTH
from ratelab.lab.closed_loop.behavior import MS, Behavior, Delay, Population, Retry
from ratelab.lab.closed_loop.engine import Engine, PythonEngine
from ratelab.lab.closed_loop.instant_loop import InstantEngine, answers_at_once
from ratelab.lab.closed_loop.outcome import advance
from ratelab.lab.scenarios.arrivals import negative_logs
from ratelab.quota import NS_PER_S, Quota


def list_instant_seeds(seeds: range) -> list[int]:
    return [seed for seed in seeds if answers_at_once(*draw_instant_population(seed))]


# --- the same tries as the model


def test_populations_are_those_of_the_model() -> None:
    seeds = list_instant_seeds(range(50))
    assert len(seeds) > 35
    assert find_differences(seeds, draw=draw_instant_population) == []


@pytest.mark.slow
def test_small_batches_are_those_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_batches(monkeypatch)
    assert find_differences(list_instant_seeds(range(1_000, 2_000)), draw=draw_instant_population) == []


# --- the same tries as the general loop


@pytest.mark.parametrize("clients", [100, 1_000])
@pytest.mark.parametrize("algorithm", sorted({*ALGORITHMS} - {"leaky-bucket"}))
def test_many_clients_are_those_of_the_general_loop(algorithm: str, clients: int) -> None:
    behaviors = (
        Behavior("serial", think=Delay(NS_PER_S, "exponential"), retry=Retry("full-jitter", attempts=5)),
        Behavior("serial", think=Delay(700 * MS), retry=Retry("fixed", honors="retry-after", jitter="equal")),
    )
    population = create_population(tuple(map(str, range(clients))), behaviors[0])
    population = replace(population, behaviors=behaviors, behavior_of=np.arange(clients) % 2)
    policy = create(algorithm, "2/s", 10 if algorithm == "sliding-log" else 2)
    assert len(policy.algorithm.start(0)) > MAX_TABLE_WIDTH or algorithm != "sliding-log"
    assert_equal(policy, population)


def assert_equal(policy: Policy | None, population: Population) -> None:
    """Compare the engines after each run, and their outcomes."""
    engines = PythonEngine(policy, population), InstantEngine(policy, population)
    status = loop.PAUSED
    while status != loop.FINISHED:
        status, other = (engine.run(501) for engine in engines)
        assert status == other
        assert read_totals(engines[0]) == read_totals(engines[1])
    plain, instant = (advance(engine, policy, population, lambda _: None) for engine in engines)
    assert list_rows(instant) == list_rows(plain)
    for table in ("tries", "requests"):
        for field in fields(getattr(plain, table)):
            columns = [getattr(getattr(each, table), field.name) for each in (plain, instant)]
            assert columns[0].dtype == columns[1].dtype, field.name


def test_each_pause_is_that_of_the_general_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_batches(monkeypatch)
    for seed in list_instant_seeds(range(20)):
        policy, population = draw_instant_population(seed)
        engines = PythonEngine(policy, population), InstantEngine(policy, population)
        for _ in range(60):
            assert engines[0].run(9) == engines[1].run(9), seed
            assert read_totals(engines[0]) == read_totals(engines[1]), seed


def test_integers_of_any_size_are_those_of_the_general_loop() -> None:
    quota = Quota.parse("1/s", burst=10)
    policy = Policy("large", quota, TokenBucket(quota.limit, quota.period, 2**70))
    population = create_population(("a", "b"), Behavior("serial", think=Delay(10 * MS, "exponential")))
    assert_equal(policy, population)


def read_totals(engine: Engine) -> list[int]:
    totals = (state.NOW, state.STALLED, state.EVENTS, state.TRY_COUNT, state.TRY_ROWS, state.REQUEST_ROWS, state.CHANGE)
    return [int(engine.world.totals[total]) for total in totals]


def test_delays_of_a_century_end_after_the_run() -> None:
    retry = Retry("full-jitter", base=2**61, cap=2**61)
    for think in (Delay(2**61, "exponential"), Delay(2**61, "spread", 2**62), Delay(NS_PER_S)):
        population = create_population(tuple(map(str, range(200))), Behavior("serial", think=think, retry=retry))
        assert_equal(create("gcra", "1/min", 1), population)


# --- draws


def test_draws_ahead_have_the_bits_of_those_one_by_one() -> None:
    places = np.arange(200_000)
    columns = streams.mix_all(places.astype(np.uint64))
    ahead = streams.look_ahead(columns, places)
    one_by_one = array("Q", columns.tobytes())
    assert ahead.tolist() == [streams.draw_uniform(one_by_one, place) for place in places.tolist()]
    edges = [2.0**-power for power in range(54)]
    near = [factor * edge for edge in edges for factor in (0.7071067811865475, 0.7071067811865476, 0.7071067811865477)]
    uniform = np.array([*ahead.tolist(), *edges, *near, 1 - 2.0**-53])
    assert negative_logs(uniform).tolist() == [streams.negative_log(number) for number in uniform.tolist()]


# --- the process


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_of_garbage_is_left_as_it_was(enabled: bool) -> None:
    population = create_population(("a",), Behavior("serial", think=Delay(MS)))
    try:
        if not enabled:
            gc.disable()
        InstantEngine(create("gcra", "1/s", 1), population).run(100)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
