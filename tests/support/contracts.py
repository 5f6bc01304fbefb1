"""Contracts of algorithms and of limiters: functions that raise `AssertionError` if one is broken."""

from __future__ import annotations

from collections.abc import Callable

from reference_models import MODELS, decide

from ratelab import Algorithm, ManualClock, MemoryLimiter, Policy
from ratelab.lab import conformance
from ratelab.lab.conformance import Timeline, decide_on_copy, run
from ratelab.stores.memory import MAX_CLOCK_LAG_NS

HOUR, DAY = 3600 * 10**9, 86400 * 10**9


def decides_as_its_model(algorithm: Algorithm, timeline: Timeline) -> None:
    if algorithm.name in MODELS:
        model = MODELS[algorithm.name](timeline.quota)
        for now, cost, made, _ in run(algorithm, timeline):
            assert made == decide(model, timeline.quota, now, cost)


CONTRACTS = [*conformance.CONTRACTS, decides_as_its_model]

# --- limiters on an unsteady clock


def _policy(algorithm: Algorithm, timeline: Timeline) -> Policy:
    return Policy(algorithm.name, timeline.quota, algorithm)


def swinging_clocks_grant_nothing(limiter: type[MemoryLimiter], algorithm: Algorithm, timeline: Timeline) -> None:
    """While a clock lags behind its latest time by at most `MAX_CLOCK_LAG_NS`, time stands still."""
    clock = ManualClock(timeline.origin)
    limited, state, latest = limiter(_policy(algorithm, timeline), clock), algorithm.start(clock.now), clock.now
    for n, (now, cost, _, _) in enumerate(run(algorithm, timeline)):
        clock.now = now - n % 3 * MAX_CLOCK_LAG_NS // 2
        latest = max(latest, clock.now)
        assert limited.hit("key", cost) == algorithm.step(state, latest, cost)


def clocks_set_back_lock_no_client_out(limiter: type[MemoryLimiter], algorithm: Algorithm, timeline: Timeline) -> None:
    """When a clock is set back by an hour or a day, time continues from where it was."""
    clock = ManualClock(timeline.origin)
    limited, behind = limiter(_policy(algorithm, timeline), clock), 0
    for n, (now, cost, made, after) in enumerate(run(algorithm, timeline)):
        clock.now = now - behind
        assert limited.hit("key", cost) == made
        if n % 3 == 1:
            behind += (HOUR, DAY)[n % 2]
            clock.now = now - behind
            assert limited.hit("key", 0) == decide_on_copy(algorithm, after, now, 0)


CLOCK_CONTRACTS: list[Callable[[type[MemoryLimiter], Algorithm, Timeline], None]] = [
    swinging_clocks_grant_nothing,
    clocks_set_back_lock_no_client_out,
]
