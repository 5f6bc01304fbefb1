"""States of keys in one array, and the requests of a batch as the compiled loops take them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms import traits_of
from ratelab.lab.compiled.intrinsics import compile_for, jit
from ratelab.lab.compiled.optimize import LONG_STATES
from ratelab.lab.decisions import Columns, is_complete
from ratelab.lab.partition import KeyRequests
from ratelab.lab.spill import Integers
from ratelab.lab.step_source import UnfitError
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Algorithm

MIN_LONG_STATE = 8
"""Integers from which on a state is long: it may be truncated for a key that never reaches its end."""

STATE_PREFETCH, ENTRY_PREFETCH = 96, 48
"""Requests in advance at which the state of a key is fetched into the cache, and an entry within a long state."""

COLUMN_BLOCK, COLUMN_PREFETCH = 64, 128
"""Requests whose values in columns are fetched into the cache together, and how many in advance.

A processor does so itself, but no longer when it also accesses more states than fit in its cache.
"""


def state_widths(algorithm: Algorithm, width: int, traffic: Traffic, columns: Columns) -> Integers:
    """Return how many integers of each key's state, of `width` in all, `columns` can depend on."""
    long_state = LONG_STATES.get(type(algorithm))
    if width < MIN_LONG_STATE or long_state is None or is_complete(columns):
        return np.broadcast_to(np.int64(width), traffic.key_count)
    reached: Integers = np.minimum(long_state.reached(traffic.requested_cost), width)
    return reached


class States:
    """The states of keys, one after the other in an array.

    An algorithm with a declared bound has the same state whenever a key is new, so all keys start with the first
    request. Any other may depend on the time, so each key starts at its own first request.
    """

    def __init__(self, algorithm: Algorithm, width: int, widths: Integers) -> None:
        """Prepare states of `width` integers, of which only the first `widths`, by key, are kept."""
        self._algorithm = algorithm
        self._width = width
        self._widths = widths
        self._started = np.zeros(len(widths), np.bool_)
        self._states: Integers | None = None
        self._begins: Integers | None = None

    def start(self, requests: KeyRequests, origin: int) -> tuple[Integers, Integers | None]:
        """Start the keys of `requests`; return all states, and the position of each if they are long."""
        if self._states is None:
            self._states = self._allocate(origin + int(requests.times[0]) if len(requests.times) else origin)
        if traits_of(self._algorithm).bound is None:
            self._start_keys(self._states, requests, origin)
        return self._states, self._begins

    def _allocate(self, now: int) -> Integers:
        starts_at_once = traits_of(self._algorithm).bound is not None
        first = np.array(self._algorithm.start(now) if starts_at_once else [0] * self._width, np.int64)
        if self._width < MIN_LONG_STATE:
            return np.tile(first, len(self._widths))

        self._begins = np.concatenate(([0], np.cumsum(self._widths)))
        states = np.empty(self._begins[-1] + self._width, np.int64)  # the last, truncated state may be read to its end
        _compile_fill()(first, self._begins, states)
        return states

    def _start_keys(self, states: Integers, requests: KeyRequests, origin: int) -> None:
        """Start the keys that have their first request."""
        new = np.flatnonzero(~self._started[requests.keys])
        keys, firsts = np.unique(requests.keys[new], return_index=True)
        if not len(keys):
            return
        starts = [self._algorithm.start(time + origin) for time in requests.times[new][firsts].tolist()]
        if {len(start) for start in starts} != {self._width}:
            raise UnfitError("its start() returns states of different lengths")
        if np.array(starts).dtype != np.int64:
            raise UnfitError("its start() must return integers below 2**63")
        self._started[keys] = True
        states[: self._widths.sum()].reshape(len(self._started), self._width)[keys] = starts


@cache
def _compile_fill() -> Callable[..., None]:
    """Return a function that writes the start of a new state between each two of some positions in an array."""
    return compile_for(_FILL, numba.void(*[numba.int64[::1]] * 3))


def _fill(first: Any, begins: Any, states: Any) -> None:
    for n in range(len(begins) - 1):
        states[begins[n] : begins[n + 1]] = first[: begins[n + 1] - begins[n]]


_FILL = jit(_fill)


def look_ahead(keys: NDArray[np.uint32]) -> Iterator[tuple[slice, NDArray[np.uint32]]]:
    """Yield slices of requests with their keys, which the `STATE_PREFETCH` further keys that the loops read follow."""
    last = max(0, len(keys) - STATE_PREFETCH)
    rest = keys[last:]
    yield slice(0, last), keys
    yield slice(last, None), np.append(rest, np.repeat(rest[-1:], STATE_PREFETCH))


def prepare_requests(
    requests: KeyRequests, origin: int, unit_costs: bool
) -> Iterator[tuple[slice, tuple[NDArray[Any] | None, ...]]]:
    """Yield slices of the requests with the keys, the clock times and, unless all are 1, the costs of each."""
    times = requests.times + origin if origin else requests.times
    for some, keys in look_ahead(requests.keys):
        yield some, (keys, times[some], None if unit_costs else requests.costs[some])
