"""What every algorithm and every limiter promises: functions that raise `AssertionError` where it is not kept."""

from __future__ import annotations

from collections.abc import Callable

from reference_models import MODELS, decide

from ratelab import Algorithm, ManualClock, MemoryLimiter, Policy
from ratelab.lab import conformance
from ratelab.lab.conformance import Timeline, next_decision, visits
from ratelab.stores.memory import MAX_CLOCK_LAG_NS

HOUR, DAY = 3600 * 10**9, 86400 * 10**9


def decides_as_its_model(algorithm: Algorithm, timeline: Timeline) -> None:
    if algorithm.name in MODELS:
        model = MODELS[algorithm.name](timeline.quota)
        for now, cost, made, _ in visits(algorithm, timeline):
            assert made == decide(model, timeline.quota, now, cost)


PROMISES = [*conformance.PROMISES, decides_as_its_model]

# --- what a limiter promises on a clock that is not steady


def _policy(algorithm: Algorithm, timeline: Timeline) -> Policy:
    return Policy(algorithm.name, timeline.quota, algorithm)


def a_swinging_clock_mints_nothing(limiter: type[MemoryLimiter], algorithm: Algorithm, timeline: Timeline) -> None:
    """While a clock is behind itself by up to `MAX_CLOCK_LAG_NS`, time stands still."""
    clock = ManualClock(timeline.origin)
    limited, state, latest = limiter(_policy(algorithm, timeline), clock), algorithm.start(clock.now), clock.now
    for n, (now, cost, _, _) in enumerate(visits(algorithm, timeline)):
        clock.now = now - n % 3 * MAX_CLOCK_LAG_NS // 2
        latest = max(latest, clock.now)
        assert limited.hit("key", cost) == algorithm.step(state, latest, cost)


def a_clock_set_back_locks_nobody_out(limiter: type[MemoryLimiter], algorithm: Algorithm, timeline: Timeline) -> None:
    """When a clock is set back by an hour or a day, time goes on from where it was."""
    clock = ManualClock(timeline.origin)
    limited, behind = limiter(_policy(algorithm, timeline), clock), 0
    for n, (now, cost, made, after) in enumerate(visits(algorithm, timeline)):
        clock.now = now - behind
        assert limited.hit("key", cost) == made
        if n % 3 == 1:
            behind += (HOUR, DAY)[n % 2]
            clock.now = now - behind
            assert limited.hit("key", 0) == next_decision(algorithm, after, now, 0)


CLOCK_PROMISES: list[Callable[[type[MemoryLimiter], Algorithm, Timeline], None]] = [
    a_swinging_clock_mints_nothing,
    a_clock_set_back_locks_nobody_out,
]
