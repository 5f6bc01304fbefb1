"""Level of one key's bucket, queue or counter over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms import traits_of
from ratelab.algorithms.plugins import attribute_errors
from ratelab.lab.spill import Integers
from ratelab.limiter import Algorithm, Policy, State


class Levels(NamedTuple):
    """Levels of a key at several times, in units of cost."""

    times: Integers
    """Clock times in nanoseconds, in order."""
    level: NDArray[Any]
    """The level that the algorithm's traits declare; by default the remaining cost."""
    remaining: Integers
    """The cost that would be admitted at that time."""

    def exhausted_ratio(self, end: int) -> float:
        """Return the fraction of the time up to `end` during which nothing remains."""
        durations = np.diff(np.minimum(self.times, end))
        return float(durations[self.remaining[:-1] == 0].sum() / max(1, durations.sum()))


def describe_level(algorithm: Algorithm) -> str:
    """Return the quantity that an algorithm's level measures."""
    level = traits_of(algorithm).level
    return "remaining" if level is None else level.label


def create_level_reader(algorithm: Algorithm) -> Callable[[State, int, int], float]:
    """Return a function that reads the level from a state, the time of its last step and the remaining cost."""
    level = traits_of(algorithm).level

    def read(state: State, now: int, remaining: int) -> float:
        return remaining if level is None else level.read(algorithm, state, now)

    return read


def sample_levels(algorithm: Algorithm, times: Integers, costs: Integers, moments: Integers) -> Levels:
    """Replay the requests of one key; read its level before and after each request, and at `moments`, all in order.

    A step of cost 0 reads the level without changing it. Raises `InputError` if a third-party algorithm fails.
    """
    every = np.concatenate([moments, times, times])
    charged = np.concatenate([np.zeros(len(moments) + len(times), np.int64), costs])
    order = np.argsort(every, kind="stable")  # at one time, steps of cost 0 come before requests
    level, remaining = np.empty(len(every)), np.empty(len(every), np.int64)
    with attribute_errors(algorithm):
        read, state = create_level_reader(algorithm), algorithm.start(int(every[order[0]]))
        for place, (now, cost) in enumerate(zip(every[order].tolist(), charged[order].tolist(), strict=True)):
            remaining[place] = algorithm.step(state, now, cost)[1]
            level[place] = read(state, now, int(remaining[place]))
    return Levels(every[order], level, remaining)


def rebuild_levels(policy: Policy, times: Integers, before: Integers, after: Integers) -> Levels:
    """Return levels in whole units, given the remaining cost before and after each request of one key."""
    remaining = np.column_stack([before, after]).ravel()
    algorithm, burst = policy.algorithm, policy.quota.burst
    with attribute_errors(algorithm):
        is_full_at_start = (
            create_level_reader(algorithm)(algorithm.start(0), 0, burst) > 0
        )  # tokens; a count starts at 0
    return Levels(np.repeat(times, 2), remaining if is_full_at_start else burst - remaining, remaining)
