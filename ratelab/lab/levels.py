"""Level of one key's bucket, queue or counter over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms import Policy, traits_of
from ratelab.algorithms.plugins import attribute_errors
from ratelab.lab.spill import Integers
from ratelab.limiter import Algorithm, State


class Levels(NamedTuple):
    """Levels of a key at several times, in units of cost."""

    times: Integers
    """Clock times in nanoseconds, in order."""
    level: NDArray[Any]
    """The level that the algorithm's traits declare; by default the remaining cost."""
    remaining: Integers
    """The cost that would be admitted at that time."""

    def cut(self, begin: int, end: int) -> Levels:
        """Return the levels from `begin` to `end`, both included."""
        part = slice(*np.searchsorted(self.times, [begin, end + 1]))
        return Levels(self.times[part], self.level[part], self.remaining[part])

    def exhausted_ratio(self) -> float:
        """Return the fraction of the time during which nothing remains."""
        durations = np.diff(self.times)
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
    level = remaining if counts_remaining(policy) else policy.quota.burst - remaining
    return Levels(np.repeat(times, 2), level, remaining)


def counts_remaining(policy: Policy) -> bool:
    """Return whether an algorithm's level is the remaining quota, such as tokens; a count of the used starts at 0."""
    algorithm = policy.algorithm
    with attribute_errors(algorithm):
        return create_level_reader(algorithm)(algorithm.start(0), 0, policy.quota.burst) > 0
