"""Requests put in the order of time: gathered in memory, and from some number on in sorted runs on disk."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.spill import REQUEST, Column, Integers, Stored

IN_MEMORY = 1 << 22
"""Requests that are held and sorted in memory, 80 MB of them; more go to disk."""


class Cursor:
    """A place in a table of rows that moves on."""

    def __init__(self, table: Any, begin: int, end: int, size: int) -> None:
        """Stand at `begin`; so many rows are read at a time, or fewer where the table leaves out some."""
        self._table, self._next, self._end, self._size = table, begin, end, size
        self.ahead: NDArray[Any] = np.empty(0, REQUEST)
        """The next rows, in part; none at the end alone."""
        self._fill()

    def take(self, count: int) -> NDArray[Any]:
        """Return so many of the rows ahead, and move on behind them."""
        taken, self.ahead = self.ahead[:count], self.ahead[count:]
        self._fill()
        return taken

    def _fill(self) -> None:
        while not len(self.ahead) and self._next < self._end:
            begin, self._next = self._next, min(self._next + self._size, self._end)
            self.ahead = self._table[begin : self._next]


class Gathering:
    """Takes requests as they come, and gives them back in the order of time."""

    def __init__(self) -> None:
        self._held: list[NDArray[Any]] = []
        self._stored: Stored | None = None
        self._count = 0
        self._latest: int | None = None
        self._sorted = True

    def __len__(self) -> int:
        return self._count

    def add(self, times: Integers, who: NDArray[Any], costs: Integers) -> None:
        """Take some requests."""
        if not len(times):
            return
        rows = np.empty(len(times), REQUEST)
        rows["time"], rows["who"], rows["cost"] = times, who, costs
        first = times[0] if self._latest is None else self._latest
        self._sorted = self._sorted and first <= times[0] and bool((times[1:] >= times[:-1]).all())
        self._latest = int(times[-1])
        self._count += len(rows)
        self._keep(rows)

    def _keep(self, rows: NDArray[Any]) -> None:
        self._held.append(rows)
        if self._stored is None and self._count <= IN_MEMORY:
            return
        if self._stored is None:
            self._stored = Stored(REQUEST)
        for held in self._held:
            self._stored.append(held)
        self._held.clear()

    def in_order(self) -> Column:
        """Return all rows by time, those of the same time as they came."""
        if self._stored is None:
            rows = np.concatenate([np.empty(0, REQUEST), *self._held])
            return rows if self._sorted else _by_time(rows)
        return self._stored if self._sorted else _merged(self._stored)


def _by_time(rows: NDArray[Any]) -> NDArray[Any]:
    return rows[np.argsort(rows["time"], kind="stable")]


def _merged(table: Stored) -> Stored:
    """Sort a table on disk: as many rows at a time as fit in memory, then these runs into one another.

    Knuth, "The Art of Computer Programming" 3 (1998), section 5.4.1.
    """
    begins = range(0, len(table), IN_MEMORY)
    for begin in begins:
        run = slice(begin, begin + IN_MEMORY)
        table[run] = _by_time(table[run])
    size = max(1, IN_MEMORY // len(begins))
    runs = [Cursor(table, begin, min(begin + IN_MEMORY, len(table)), size) for begin in begins]
    merged = Stored(REQUEST)
    while runs := [run for run in runs if len(run.ahead)]:
        merged.append(_by_time(np.concatenate(_next_of(runs))))
    return merged


def _next_of(runs: list[Cursor]) -> list[NDArray[Any]]:
    """Take the rows ahead that nothing further on comes before: up to the end of what is seen of one of the runs.

    Of rows of that very time, those in later runs wait, since more may follow in this one.
    """
    lasts = [run.ahead["time"][-1] for run in runs]
    bound = min(lasts)
    shortest = lasts.index(bound)
    return [
        run.take(int(np.searchsorted(run.ahead["time"], bound, "right" if place <= shortest else "left")))
        for place, run in enumerate(runs)
    ]
