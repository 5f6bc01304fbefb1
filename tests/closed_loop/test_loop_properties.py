"""Promises of closed loops on random populations: no try too many, too early or at once with another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from loop_comparison import list_rows
from random_populations import PopulationDrawer, draw_population

from ratelab import create
from ratelab.lab.closed_loop.behavior import MS, Behavior, Delay, Population, Retry
from ratelab.lab.closed_loop.outcome import DENIED, GAVE_UP, PENDING, SUCCESS, LoopOutcome, run_loop
from ratelab.lab.traffic import Traffic
from ratelab.limiter import NEVER
from ratelab.quota import NS_PER_S


def ends(behavior: Behavior) -> bool:
    """Return whether a client surely lets time pass."""
    waits = behavior.loop == "open" or behavior.think is not None or behavior.pace is not None
    return waits and behavior.retry.attempts is not None


SEEDS = [seed for seed in range(70) if all(map(ends, draw_population(seed)[1].behaviors))]


@cache
def run(seed: int) -> LoopOutcome:
    return run_loop(*draw_population(seed))


def behavior_of(outcome: LoopOutcome, client: int) -> Behavior:
    behavior: Behavior = outcome.population.behaviors[outcome.population.behavior_of[client]]
    return behavior


def tries_by_request(outcome: LoopOutcome) -> dict[int, list[int]]:
    """Return the places of the tries of each request, in the order in which they were sent."""
    places = defaultdict(list)
    for place in np.lexsort((outcome.tries.numbers, outcome.tries.requests)).tolist():
        places[int(outcome.tries.requests[place])].append(place)
    return places


@pytest.mark.parametrize("seed", SEEDS)
def test_a_client_awaits_one_try_at_a_time_unless_it_hedges(seed: int) -> None:
    outcome = run(seed)
    for request, places in tries_by_request(outcome).items():
        if behavior_of(outcome, outcome.requests.clients[request]).hedge is None:
            for earlier, later in pairwise(places):
                assert 0 <= outcome.tries.ended[earlier] <= outcome.tries.sent[later]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_request_has_at_most_its_attempts_and_none_after_success(seed: int) -> None:
    outcome = run(seed)
    for request, places in tries_by_request(outcome).items():
        behavior = behavior_of(outcome, outcome.requests.clients[request])
        attempts = 1 if behavior.retry.policy == "none" else behavior.retry.attempts
        if behavior.hedge is None and attempts is not None:
            assert outcome.requests.tries[request] <= attempts
        results = outcome.tries.results[places].tolist()
        assert results.count(SUCCESS) == (outcome.requests.results[request] == SUCCESS)
        if behavior.hedge is None:
            assert SUCCESS not in results[:-1]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_retry_comes_before_its_retry_after(seed: int) -> None:
    outcome = run(seed)
    for request, places in tries_by_request(outcome).items():
        behavior = behavior_of(outcome, outcome.requests.clients[request])
        honors = behavior.retry.honors != "none" or behavior.retry.policy == "retry-after"
        if behavior.hedge is not None or not honors or "local" in behavior.retry.retry_on:
            continue
        for earlier, later in pairwise(places):
            wait = int(outcome.decisions["retry_after_ns"][earlier])
            if outcome.tries.results[earlier] == DENIED and wait != NEVER:
                assert outcome.tries.sent[later] - outcome.tries.ended[earlier] >= -(-wait // NS_PER_S) * NS_PER_S


@pytest.mark.parametrize("seed", SEEDS)
def test_every_request_succeeds_is_given_up_or_is_pending(seed: int) -> None:
    requests = run(seed).requests
    counts = [int(np.count_nonzero(requests.results == result)) for result in (SUCCESS, GAVE_UP, PENDING)]
    assert sum(counts) == len(requests)
    assert ((requests.ended == -1) == (requests.results == PENDING)).all()
    assert (requests.ended[requests.ended >= 0] >= requests.started[requests.ended >= 0]).all()


def create_population(names: tuple[str, ...], behavior: Behavior, duration: int = 5 * NS_PER_S) -> Population:
    empty = np.empty(0, np.int64)
    traffic = Traffic(empty, empty, empty, names, np.arange(len(names)), duration)
    return Population(traffic, (behavior,), np.zeros(len(names), np.int64), 1)


@pytest.mark.parametrize("policy", ["fixed", "exponential", "equal-jitter", "decorrelated-jitter"])
def test_no_retry_comes_before_its_backoff(policy: str) -> None:
    retry = Retry(policy, base=100 * MS, attempts=4)  # type: ignore[arg-type]
    outcome = run_loop(create("token-bucket", "1/s", 1), create_population(("a", "b"), Behavior("serial", retry=retry)))
    gaps = []
    for places in tries_by_request(outcome).values():
        gaps += np.diff(outcome.tries.sent[places]).tolist()
    assert min(gaps) >= (50 if policy == "equal-jitter" else 100) * MS


def test_a_further_client_changes_no_draw_of_another() -> None:
    behavior = Behavior(
        "serial", think=Delay(50 * MS, "exponential"), retry=Retry("full-jitter"), latency=Delay(MS, "exponential")
    )
    drawer = PopulationDrawer(1)
    server = replace(drawer.server(), workers=None, slowdown=0, errors=Fraction(1, 4), optimistic=False)
    outcomes = [
        run_loop(create("token-bucket", "5/s", 2), replace(create_population(names, behavior), server=server))
        for names in (("a", "b"), ("a", "b", "c"))
    ]
    alone, joined = ([row[1:] for row in list_rows(outcome)[1] if row[0] < 2] for outcome in outcomes)
    assert alone == joined
    assert len(alone) > 50


PROGRAM = """
import sys
sys.path.insert(0, "tests/support")
from hashlib import sha256
from loop_comparison import list_rows
from random_populations import draw_population
from ratelab.lab.closed_loop.outcome import run_loop
print(sha256(repr([list_rows(run_loop(*draw_population(seed))) for seed in (1, 2, 3)]).encode()).hexdigest())
"""


@pytest.mark.slow
def test_the_hash_seed_of_python_changes_nothing() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1")
    }
    assert len(outputs) == 1
