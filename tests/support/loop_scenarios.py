"""Runs of shipped scenarios whose clients react to their answers, each once."""

from __future__ import annotations

from functools import cache

from cli_runner import SCENARIOS

from ratelab.algorithms import Policy, build_policy, select
from ratelab.lab.closed_loop.behavior import Population
from ratelab.lab.closed_loop.figures import LoopResult, measure_loop
from ratelab.lab.closed_loop.outcome import (
    SUCCESS,
    LoopOutcome,
    advance,
    create_engine,
    estimate_tries,
)
from ratelab.lab.replay import has_compiler
from ratelab.lab.scenarios import Scenario, load_variants
from ratelab.quota import NS_PER_S

RETRY_SCENARIOS = sorted((SCENARIOS / "clients-that-retry").glob("*.yaml"))
PUBLISHED_SCENARIOS = sorted((SCENARIOS / "published-figures").glob("*.yaml"))

COMPILED_TRIES = 20_000
"""Tries without retries from which on a scenario is long."""


@cache
def load_by_variant(stem: str) -> dict[str | None, Scenario]:
    """Return the variants of one of these scenarios by their names."""
    (path,) = (path for path in (*RETRY_SCENARIOS, *PUBLISHED_SCENARIOS) if path.stem == stem)
    return {scenario.variant: scenario for scenario in load_variants(str(path))}


@cache
def run_variant(stem: str, variant: str, algorithm: str | None = None) -> tuple[LoopOutcome, LoopResult]:
    """Run a variant against one of its algorithms, by default its only one, or without a limiter."""
    scenario = load_by_variant(stem)[variant]
    assert scenario.population is not None
    policy = None
    if scenario.quota is not None:
        (kind,) = select((algorithm,) if algorithm else (), scenario.algorithms)
        policy = build_policy(kind, scenario.quota)
    outcome = run_population(policy, scenario.population, estimate_tries(scenario.population) >= COMPILED_TRIES)
    return outcome, measure_loop(outcome)


def run_population(policy: Policy | None, population: Population, is_long: bool) -> LoopOutcome:
    """Run a population, compiled if it is one of many long ones without a limiter, for which the compiler runs once."""
    engine = create_engine(policy, population, compiled=is_long and policy is None and has_compiler())
    return advance(engine, policy, population, lambda _: None)


def count_successes(outcome: LoopOutcome, begin: float, end: float) -> float:
    """Return the successes a second from `begin` to `end`, in seconds."""
    ended = outcome.requests.ended[outcome.requests.results == SUCCESS] / NS_PER_S
    return float(((ended >= begin) & (ended < end)).sum() / (end - begin))
