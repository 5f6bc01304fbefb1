"""Times that tell only whole seconds, and where in its second each request then stands."""

from __future__ import annotations

import numpy as np

from ratelab.lab.spill import Column
from ratelab.lab.traffic import parts_of
from ratelab.quota import UNITS

SECOND = UNITS["s"]


def count_from(table: Column, start: int) -> None:
    """Count the times of a table from `start`."""
    for part in parts_of(len(table)):
        rows = table[part]
        rows["time"] -= start
        table[part] = rows


def spread(table: Column) -> None:
    """Spread the requests of each second of an ordered table evenly over it: the k-th of n (from 0) at k/n of it."""
    second, seen, total = None, 0, 0  # of the second that goes on from part to part
    for part in parts_of(len(table)):
        rows = table[part]
        times = rows["time"]
        firsts = np.flatnonzero(np.diff(times, prepend=times[0] - 1))
        counts = np.diff(firsts, append=len(times))
        totals, ranks = counts.copy(), np.arange(len(times)) - np.repeat(firsts, counts)
        if times[0] == second:
            ranks[: counts[0]] += seen
            totals[0] = total
        if times[-1] != second:
            totals[-1] += _following(table, part.stop, int(times[-1]))
        second, seen, total = int(times[-1]), int(ranks[-1]) + 1, int(totals[-1])
        rows["time"] += ranks * SECOND // np.repeat(totals, counts)
        table[part] = rows


def _following(table: Column, begin: int, time: int) -> int:
    """Count the rows from `begin` on that are of the same time."""
    count = 0
    for part in parts_of(len(table) - begin):
        times = table[begin + part.start : begin + part.stop]["time"]
        count += int(np.searchsorted(times, time, "right"))
        if times[-1] != time:
            break
    return count
