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
    """A key's level at some moments, in units of cost."""

    times: Integers
    """Nanoseconds of the clock, in order."""
    level: NDArray[Any]
    """The level that the algorithm's traits declare; by default the remaining cost."""
    left: Integers
    """The cost that would be admitted at that moment."""

    def spent(self, until: int) -> float:
        """Return the fraction of the time up to `until` in which nothing is left."""
        lasting = np.diff(np.minimum(self.times, until))
        return float(lasting[self.left[:-1] == 0].sum() / max(1, lasting.sum()))


def level_label(algorithm: Algorithm) -> str:
    """Return the name of an algorithm's level."""
    level = traits_of(algorithm).level
    return "left to give" if level is None else level.label


def gauge(algorithm: Algorithm) -> Callable[[State, int, int], float]:
    """Return a function that reads the level from a state, the time of its last step and the remaining cost."""
    level = traits_of(algorithm).level

    def read(state: State, now: int, left: int) -> float:
        return left if level is None else level.read(algorithm, state, now)

    return read


def looked(algorithm: Algorithm, times: Integers, costs: Integers, moments: Integers) -> Levels:
    """Replay the requests of one key, reading the level (with cost 0) before each and at `moments`; all in order.

    Raises `InputError` if a third-party algorithm fails.
    """
    every = np.concatenate([moments, times, times])
    charged = np.concatenate([np.zeros(len(moments) + len(times), np.int64), costs])
    order = np.argsort(every, kind="stable")  # at one time, looks come before requests
    level, left = np.empty(len(every)), np.empty(len(every), np.int64)
    with attribute_errors(algorithm):
        read, state = gauge(algorithm), algorithm.start(int(every[order[0]]))
        for place, (now, cost) in enumerate(zip(every[order].tolist(), charged[order].tolist(), strict=True)):
            left[place] = algorithm.step(state, now, cost)[1]
            level[place] = read(state, now, int(left[place]))
    return Levels(every[order], level, left)


def recorded(policy: Policy, times: Integers, before: Integers, after: Integers) -> Levels:
    """Return levels in whole units from the remaining cost before and after each request of one key."""
    left = np.column_stack([before, after]).ravel()
    algorithm, burst = policy.algorithm, policy.quota.burst
    with attribute_errors(algorithm):
        falls = gauge(algorithm)(algorithm.start(0), 0, burst) > 0  # as tokens do, while counts rise
    return Levels(np.repeat(times, 2), left if falls else burst - left, left)
