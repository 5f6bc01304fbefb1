"""The compiled event loop does what plain Python does, to the last byte."""

from __future__ import annotations

import numpy as np
import pytest
from loop_comparison import Draw, find_differences, list_rows
from random_populations import draw_instant_population, draw_population

pytest.importorskip("numba")

from ratelab.algorithms import Policy, create
from ratelab.lab.closed_loop.behavior import Behavior, Delay, Population, Retry
from ratelab.lab.closed_loop.instant_loop import answers_at_once
from ratelab.lab.closed_loop.outcome import LoopOutcome, advance, create_engine
from ratelab.lab.traffic import Traffic
from ratelab.quota import NS_PER_S


def run_compiled(policy: Policy | None, population: Population) -> LoopOutcome:
    """Run a population by machine code."""
    engine = create_engine(policy, population, compiled=True)
    assert type(engine).__name__ == "CompiledEngine"
    return advance(engine, policy, population, lambda _: None)


def list_seeds(name: str | None, draw: Draw, count: int = 20) -> list[int]:
    """Return seeds whose populations an algorithm decides, all by the machine code of one slow compilation."""
    populations = ((seed, *draw(seed)) for seed in range(1_000))
    found = [
        seed
        for seed, policy, population in populations
        if (policy and policy.name) == name
        and answers_at_once(policy, population) == (draw is draw_instant_population)
        and (policy is None or policy.name != "sliding-log" or policy.quota.burst == 10)
    ]
    assert len(found) >= count
    return found[:count]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "draw"),
    [
        (None, draw_population),
        ("leaky-bucket", draw_population),
        ("sliding-log", draw_population),
        ("token-bucket", draw_instant_population),
    ],
)
def test_machine_code_treats_populations_as_the_model_does(name: str | None, draw: Draw) -> None:
    assert find_differences(list_seeds(name, draw), run_compiled, draw) == []


@pytest.mark.slow
def test_memory_that_grows_keeps_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the memory after each few events."""
    monkeypatch.setattr("ratelab.lab.closed_loop.outcome.FIRST_EVENTS", 1)
    monkeypatch.setattr("ratelab.lab.closed_loop.outcome.MOST_EVENTS", 7)
    assert find_differences(list_seeds("leaky-bucket", draw_population), run_compiled) == []


def test_rows_have_no_types_of_an_engine() -> None:
    policy, population = draw_population(3)
    outcome = advance(create_engine(policy, population, compiled=False), policy, population, lambda _: None)
    kinds = [column.dtype.kind for column in (outcome.traffic.times, outcome.tries.results, outcome.tries.wasted)]
    assert kinds == ["i", "i", "b"]
    assert list_rows(outcome)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("think", "retry"),
    [
        (Delay(NS_PER_S, "exponential"), Retry("full-jitter", attempts=5)),
        (Delay(0), Retry("fixed", base=NS_PER_S, attempts=3)),
        (Delay(0, "table", values=(1, 1000, 900 * NS_PER_S), weights=(9.0, 9.0, 1.0)), Retry("immediate", base=0)),
    ],
    ids=["spread", "herd", "bursts and pauses"],
)
def test_many_events_come_in_the_order_of_plain_python(think: Delay, retry: Retry) -> None:
    clients = 2_000
    empty = np.empty(0, np.int64)
    names = tuple(map(str, range(clients)))
    traffic = Traffic(empty, empty, empty, names, np.arange(clients) % 7, 10 * NS_PER_S)
    behavior = Behavior("serial", think=think, retry=retry, requests=20)
    population = Population(traffic, (behavior,), np.zeros(clients, np.int64), 1)
    policy = create("token-bucket", "100/s", 100)
    plain = advance(create_engine(policy, population, compiled=False), policy, population, lambda _: None)
    assert len(plain.tries) > 10_000
    assert list_rows(run_compiled(policy, population)) == list_rows(plain)
