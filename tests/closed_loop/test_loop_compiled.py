"""The compiled event loop does what plain Python does, to the last byte."""

from __future__ import annotations

import pytest
from loop_comparison import find_differences, list_rows
from random_populations import draw_population

pytest.importorskip("numba")

from ratelab.algorithms import Policy
from ratelab.lab.closed_loop.behavior import Population
from ratelab.lab.closed_loop.outcome import LoopOutcome, advance, create_engine


def run_compiled(policy: Policy | None, population: Population) -> LoopOutcome:
    """Run a population by machine code."""
    engine = create_engine(policy, population, compiled=True)
    assert type(engine).__name__ == "CompiledEngine"
    return advance(engine, policy, population, lambda _: None)


def is_decided_by(seed: int, name: str) -> bool:
    policy, _ = draw_population(seed)
    return policy is not None and policy.name == name


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter", "gcra"]
)
def test_machine_code_treats_populations_as_the_model_does(name: str) -> None:
    seeds = [seed for seed in range(900) if is_decided_by(seed, name)]
    assert len(seeds) > 100
    assert find_differences(seeds, run_compiled) == []


@pytest.mark.slow
def test_machine_code_without_a_limiter_is_that_of_the_model() -> None:
    seeds = [seed for seed in range(1_000) if draw_population(seed)[0] is None]
    assert find_differences(seeds, run_compiled) == []


@pytest.mark.slow
def test_memory_that_grows_keeps_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the memory after each few events."""
    monkeypatch.setattr("ratelab.lab.closed_loop.outcome.FIRST_EVENTS", 1)
    monkeypatch.setattr("ratelab.lab.closed_loop.outcome.MOST_EVENTS", 7)
    seeds = [seed for seed in range(200) if is_decided_by(seed, "token-bucket")]
    assert find_differences(seeds, run_compiled) == []


def test_rows_have_no_types_of_an_engine() -> None:
    policy, population = draw_population(3)
    outcome = advance(create_engine(policy, population, compiled=False), policy, population, lambda _: None)
    kinds = [column.dtype.kind for column in (outcome.traffic.times, outcome.tries.results, outcome.tries.wasted)]
    assert kinds == ["i", "i", "b"]
    assert list_rows(outcome)[0]
