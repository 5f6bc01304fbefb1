"""A comparison as it stands at a moment that moves on: what has been decided so far, and what is remembered."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms.plugins import blaming
from ratelab.lab.comparison import Comparison
from ratelab.lab.levels import gauge
from ratelab.limiter import Algorithm


class Standing(NamedTuple):
    """What an algorithm has done up to a moment; counts are of requests."""

    at_once: int
    delayed: int
    denied: int
    level: float
    """The level of the key that is looked at, as `Algorithm.level` gives it."""


class Playback:
    """A finished comparison, shown once more as its time goes by; it must have kept its decisions."""

    def __init__(self, comparison: Comparison, looked_at: NDArray[np.bool_] | slice) -> None:
        """Begin at 0; `looked_at` chooses the requests of the one key whose level is told."""
        self.comparison, self.now = comparison, 0
        self._traffic = traffic = comparison.traffic.whole()
        self._times = traffic.times[looked_at].tolist()
        self._costs = traffic.costs[looked_at].tolist()
        self._done = 0
        self._states = {one.name: one.start(traffic.origin) for one in comparison.algorithms}
        self._totals = {
            name: [
                np.concatenate([[0], np.cumsum(chosen)])
                for chosen in (
                    made["allowed"] & (made["delay_ns"] == 0),
                    made["delay_ns"] > 0,
                    ~made["allowed"],
                )
            ]
            for name, made in comparison.decisions.items()
        }

    def advance(self, now: int) -> None:
        """Let time go by until `now`, in nanoseconds since the traffic began; it never goes back."""
        self.now = max(self.now, now)
        stop = bisect_right(self._times, self.now, self._done)
        for algorithm in self.comparison.algorithms:
            with blaming(algorithm):
                for at, cost in zip(self._times[self._done : stop], self._costs[self._done : stop], strict=True):
                    algorithm.step(self._states[algorithm.name], at + self._traffic.origin, cost)
        self._done = stop

    def standing(self, algorithm: Algorithm) -> Standing:
        """Return what an algorithm has done by now, and its level; to look changes nothing (its cost is 0)."""
        arrived = int(np.searchsorted(self._traffic.times, self.now, side="right"))
        counts = [int(total[arrived]) for total in self._totals[algorithm.name]]
        state, clock = self._states[algorithm.name], self.now + self._traffic.origin
        with blaming(algorithm):
            left = algorithm.step(state, clock, 0)[1]
            return Standing(counts[0], counts[1], counts[2], gauge(algorithm)(state, clock, left))

    def following(self) -> int | None:
        """Return when the next request comes, or None if there is none."""
        times = self._traffic.times
        place = int(np.searchsorted(times, self.now, side="right"))
        return int(times[place]) if place < len(times) else None
