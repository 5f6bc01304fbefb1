"""Timelines that look for an algorithm's edges, and make sense under any quota."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from ratelab.limiter import NEVER, Algorithm, Decision
from ratelab.quota import Quota


class Move(NamedTuple):
    """One request: when it comes, as a nudge in nanoseconds from a landmark ahead, and what it costs."""

    landmark: str
    nudge: int
    cost: str


class Timeline(NamedTuple):
    """The requests of one key from `origin` on, whose times never fall."""

    quota: Quota
    origin: int
    moves: list[Move]


class Visit(NamedTuple):
    """One request as it was decided, and the state of the key after it."""

    now: int
    cost: int
    decision: Decision
    after: list[int]


LANDMARKS = ("now", "unit", "share", "boundary", "windows", "promise", "reset")
COSTS = ("0", "1", "2", "half", "burst", "burst+1", "rest", "rest+1")
MOVES = [Move(*move) for move in itertools.product(LANDMARKS, (-1, 0, 1), COSTS)]
ORIGINS = (0, 12_345, 1_700_000_000_123_456_789)
RATES = ("2/s", "7/13s", "100/min", "999999937/h", "1/day", "1/3s", "3/10ns", "1/1ns", "3/1ns", "5/7ns")
BURSTS = (5, 7, 30, 3, 1, 2, 4, 3, 4, 6)
QUOTAS = [Quota.parse(rate, burst) for rate, burst in zip(RATES, BURSTS, strict=True)]


def visits(algorithm: Algorithm, timeline: Timeline) -> Iterator[Visit]:
    """Send the requests of `timeline`, each when its landmark comes, or at once if that has passed."""
    quota, now, moves = timeline
    state, made, promise = algorithm.start(now), Decision(True, quota.burst, 0, 0, 0), now
    reset = now
    for move in moves:
        now = max(now, _landmarks(quota, now, promise, reset)[move.landmark] + move.nudge)
        cost = _costs(quota.burst, made.remaining)[move.cost]
        made = Decision(*algorithm.step(state, now, cost))
        promise = now + made.retry_after_ns if 0 < made.retry_after_ns < NEVER else promise
        reset = now + made.reset_after_ns
        yield Visit(now, cost, made, list(state))


def _landmarks(quota: Quota, now: int, promise: int, reset: int) -> dict[str, int]:
    window = quota.window
    unit, share, windows = quota.period // quota.limit, 3 * window // 8, 5 * window // 2
    times = (now, now + unit, now + share, (now // window + 1) * window, now + windows, promise, reset)
    return dict(zip(LANDMARKS, times, strict=True))


def _costs(burst: int, rest: int) -> dict[str, int]:
    return dict(zip(COSTS, (0, 1, 2, (burst + 1) // 2, burst, burst + 1, rest, rest + 1), strict=True))
