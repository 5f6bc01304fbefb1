"""The states of keys as rows of a table, from part to part of the traffic."""

from __future__ import annotations

import numpy as np

from ratelab.algorithms.outside import is_ours
from ratelab.lab.shares import Requests
from ratelab.lab.traffic import Integers
from ratelab.limiter import Algorithm


class UnfitError(Exception):
    """The engine cannot decide as plain Python would; the message says why."""


class States:
    """A row for each of so many keys.

    One of ours that has not been asked stays as good as new, so all start with the first request; whether somebody
    else's does, nobody knows, so each starts when it is first asked.
    """

    def __init__(self, algorithm: Algorithm, rows: int) -> None:
        self._algorithm = algorithm
        self._started = np.zeros(rows, np.bool_)
        self._table: Integers = np.empty((0, 0), np.int64)

    def of(self, own: Requests, origin: int) -> Integers:
        """Return the rows, those of all who ask now among them."""
        if not len(self._table):
            self._table = self._as_new(origin + int(own.times[0]) if len(own.times) else origin)
        if not is_ours(self._algorithm):
            self._start(own, origin)
        return self._table

    def _as_new(self, now: int) -> Integers:
        return np.tile(np.array(self._algorithm.start(now), np.int64), (len(self._started), 1))

    def _start(self, own: Requests, origin: int) -> None:
        """Start the keys that are asked for the first time."""
        new = np.flatnonzero(~self._started[own.keys])
        keys, firsts = np.unique(own.keys[new], return_index=True)
        states = np.array([self._algorithm.start(time + origin) for time in own.times[new][firsts].tolist()])
        if not len(keys):
            return
        if states.dtype != np.int64:
            raise UnfitError("its start() returns something else than a list of whole numbers")
        self._started[keys] = True
        self._table[keys] = states
