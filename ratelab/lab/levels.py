"""What an algorithm remembers of one key, over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms.plugins import attribute_errors
from ratelab.lab.spill import Integers
from ratelab.limiter import Algorithm, State
from ratelab.quota import Quota


class Levels(NamedTuple):
    """A key's level at some moments, in units of cost."""

    times: Integers
    """Nanoseconds of the clock, never falling."""
    level: NDArray[Any]
    """What `Algorithm.level` says, or what is left where an algorithm does not say it."""
    left: Integers
    """The cost that would be admitted at this moment."""

    def spent(self, until: int) -> float:
        """Return the share of the time up to `until` in which nothing is left."""
        lasting = np.diff(np.minimum(self.times, until))
        return float(lasting[self.left[:-1] == 0].sum() / max(1, lasting.sum()))


def gauge(algorithm: Algorithm) -> Callable[[State, int, int], float]:
    """Return how to read a level from a state, the time of its last step and what that left."""
    level: Callable[[State, int], float] | None = getattr(algorithm, "level", None)

    def read(state: State, now: int, left: int) -> float:
        return left if level is None else level(state, now)

    return read


def looked(algorithm: Algorithm, times: Integers, costs: Integers, moments: Integers) -> Levels:
    """Decide the requests of one key again, and look (with cost 0) before each and at `moments`; all never fall.

    Raises `InputError` if an algorithm from outside fails.
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


def recorded(algorithm: Algorithm, quota: Quota, times: Integers, before: Integers, after: Integers) -> Levels:
    """Return whole levels from what was left before and after each request of one key."""
    left = np.column_stack([before, after]).ravel()
    with attribute_errors(algorithm):
        falls = gauge(algorithm)(algorithm.start(0), 0, quota.burst) > 0  # as tokens do, while counts rise
    return Levels(np.repeat(times, 2), left if falls else quota.burst - left, left)
