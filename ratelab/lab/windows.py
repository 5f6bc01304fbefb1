"""Cost in a moving window: the fullest one that there was, and what stood in it before each request."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.traffic import Integers, Traffic

Booleans = NDArray[np.bool_]


class Window(NamedTuple):
    """The half-open window `[begin, begin + length)` of one key."""

    cost: int
    """What left in it."""
    begin: int
    """Nanoseconds since the traffic began."""
    key: int


def fullest_window(departures: Integers, costs: Integers, keys: Integers, length: int) -> Window | None:
    """Return the window of `length` nanoseconds in which the most cost of one key left, the first if several did.

    A request leaves at its arrival plus its delay; None if nothing left. It is enough to lay a window at each
    departure. This is the arrival curve at one width: Le Boudec and Thiran, "Network Calculus" (2001), section 1.2.
    """
    if not len(departures):
        return None
    moments, moment = np.unique(departures, return_inverse=True)  # ranks keep key and time together in 64 bits
    window_ends = np.searchsorted(moments, moments + min(length, int(np.ptp(moments)) + 1))
    places = keys * (len(moments) + 1) + moment
    order = np.argsort(places, kind="stable")
    until = np.searchsorted(places[order], (places - moment + window_ends[moment])[order])
    within = _sums(costs[order])[until] - _sums(costs[order])[:-1]
    fullest = order[within == within.max()]
    first = fullest[np.lexsort((keys[fullest], departures[fullest]))[0]]
    return Window(int(within.max()), int(departures[first]), int(keys[first]))


class Trailing:
    """The window of `length` nanoseconds that ends with each request of `traffic`, its beginning left out.

    It holds the requests of the same key that came before this one and less than `length` ago: what a sliding log
    counts. Those of the same instant count in the order of arrival.
    """

    def __init__(self, traffic: Traffic, length: int) -> None:
        keys, stride = traffic.request_keys, len(traffic) + 1
        since = np.searchsorted(traffic.times, traffic.times - length, side="right")
        self._order = np.argsort(keys, kind="stable")  # times never fall, so each key's requests are in their order
        places = (keys * stride)[self._order] + self._order
        self._since = np.searchsorted(places, (keys * stride + since)[self._order])
        self._costs = traffic.costs[self._order]

    def cost(self, counted: Booleans | None = None) -> Integers:
        """Return what stood in each request's window, of those requests that are `counted`; by default of all."""
        costs = self._costs if counted is None else np.where(counted[self._order], self._costs, 0)
        sums = _sums(costs)
        found = np.empty(len(costs), np.int64)
        found[self._order] = sums[:-1] - sums[self._since]
        return found


def _sums(costs: NDArray[Any]) -> Integers:
    """Return the sum of all before each place, and at the end that of all."""
    return np.concatenate([[0], np.cumsum(costs)])
