"""The states of keys, one behind the other, from part to part of the traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms import traits_of
from ratelab.lab.compiled.intrinsics import jitted, made
from ratelab.lab.compiled.optimize import LONG_STATES
from ratelab.lab.decisions import Columns, is_complete
from ratelab.lab.partition import Requests
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Algorithm

WIDE = 8
"""A state of so many numbers may be cut short: that of a key that will never need the rest of them."""


class UnfitError(Exception):
    """The engine cannot decide as plain Python would; the message says why."""


def widths(algorithm: Algorithm, numbers: int, traffic: Traffic, columns: Columns) -> Integers:
    """Return how many `numbers` to keep of each key's state: as many as `columns` depend on."""
    long_state = LONG_STATES.get(type(algorithm))
    if numbers < WIDE or long_state is None or is_complete(columns):
        return np.broadcast_to(np.int64(numbers), traffic.key_count)
    reached: Integers = np.minimum(long_state.reached(traffic.requested_cost), numbers)
    return reached


class States:
    """The states of keys, each of so many numbers, in one array.

    One of ours that has not been asked stays as good as new, so all start with the first request; whether somebody
    else's does, nobody knows, so each starts when it is first asked.
    """

    def __init__(self, algorithm: Algorithm, numbers: int, widths: Integers) -> None:
        self._algorithm = algorithm
        self._width = numbers
        self._widths = widths
        self._started = np.zeros(len(widths), np.bool_)
        self._numbers: Integers | None = None
        self._begins: Integers | None = None

    def of(self, own: Requests, origin: int) -> tuple[Integers, Integers | None]:
        """Return all numbers, those of all who ask now among them, and where each state begins, if they are wide."""
        if self._numbers is None:
            self._numbers = self._as_new(origin + int(own.times[0]) if len(own.times) else origin)
        if traits_of(self._algorithm).bound is None:
            self._start(self._numbers, own, origin)
        return self._numbers, self._begins

    def _as_new(self, now: int) -> Integers:
        starts_at_once = traits_of(self._algorithm).bound is not None
        first = np.array(self._algorithm.start(now) if starts_at_once else [0] * self._width, np.int64)
        if self._width < WIDE:
            return np.tile(first, len(self._widths))

        self._begins = np.concatenate(([0], np.cumsum(self._widths)))
        numbers = np.empty(self._begins[-1] + self._width, np.int64)  # what is cut off is read at times, to no end
        laying()(first, self._begins, numbers)
        return numbers

    def _start(self, numbers: Integers, own: Requests, origin: int) -> None:
        """Start the keys that are asked for the first time."""
        new = np.flatnonzero(~self._started[own.keys])
        keys, firsts = np.unique(own.keys[new], return_index=True)
        if not len(keys):
            return
        starts = [self._algorithm.start(time + origin) for time in own.times[new][firsts].tolist()]
        if {len(start) for start in starts} != {self._width}:
            raise UnfitError("its start() returns now more numbers, now fewer")
        if np.array(starts).dtype != np.int64:
            raise UnfitError("its start() returns something else than whole numbers below 2**63")
        self._started[keys] = True
        numbers[: self._widths.sum()].reshape(len(self._started), self._width)[keys] = starts


FAR, NEAR = 96, 48
"""So many requests before its turn a key's state is fetched, and, if it is long, where in it there is work to do."""


def stretches(own: Requests, origin: int, priced: bool) -> Iterator[tuple[slice, tuple[NDArray[Any] | None, ...]]]:
    """Yield where some requests stand, their keys and `FAR` more, times by the clock and, if `priced`, costs."""
    times = own.times + origin if origin else own.times
    last = max(0, len(own.keys) - FAR)
    rest = own.keys[last:]
    for some, keys in ((slice(0, last), own.keys), (slice(last, None), np.append(rest, np.repeat(rest[-1:], FAR)))):
        yield some, (keys, times[some], own.costs[some] if priced else None)


@cache
def laying() -> Callable[..., None]:
    """Return what lets a state begin at each place but the last, where all end: as much of a new one as fits."""
    return made(_LAY, numba.void(*[numba.int64[::1]] * 3))


def _lay(first: Any, begins: Any, numbers: Any) -> None:
    for n in range(len(begins) - 1):
        numbers[begins[n] : begins[n + 1]] = first[: begins[n + 1] - begins[n]]


_LAY = jitted(_lay)
