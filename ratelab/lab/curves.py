"""Step functions of time: what has arrived or left so far, and what left within the window that ends now."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.traffic import Integers

Values = TypeVar("Values", NDArray[np.int64], NDArray[np.float64])


class Curve(NamedTuple):
    """A step function: from `times[i]` on, up to the next time, it is `values[i]`."""

    times: Integers
    """Nanoseconds, never falling."""
    values: Integers


def cumulative(times: Integers, costs: Integers) -> Curve:
    """Return the cost up to and at each moment, from 0 at the beginning; `times` never fall."""
    return Curve(np.concatenate([[0], times]), np.concatenate([[0], np.cumsum(costs)]))


def trailing(times: Integers, costs: Integers, window: int) -> Curve:
    """Return the cost within `(t - window, t]` at each moment `t`; `times` never fall.

    Its largest value is the metric `peak_in_window` of these requests.
    """
    moments = np.concatenate([times, times + window])
    order = np.argsort(moments, kind="stable")
    steps = np.concatenate([costs, -costs])[order]
    last = np.flatnonzero(np.diff(moments[order], append=-1))  # one value for each moment: all that happens in it
    return Curve(np.concatenate([[0], moments[order][last]]), np.concatenate([[0], np.cumsum(steps)[last]]))


def crest(curve: Curve, end: int, columns: int) -> Integers:
    """Return the highest value that `curve` has in each of so many parts of the time from 0 to `end`."""
    borders = np.arange(columns) * end // columns  # exact: no float
    start = np.searchsorted(curve.times, borders, side="right") - 1  # what holds when the part begins
    stop = np.searchsorted(curve.times, np.append(borders[1:], end + 1))
    inner = np.maximum.reduceat(np.append(curve.values, 0), np.column_stack([start, stop]).ravel())[::2]
    return np.where(start < stop, inner, curve.values[start])


def thinned(times: Integers, values: Values, end: int, columns: int) -> tuple[Integers, Values]:
    """Return those points of a curve up to `end` without which it would look otherwise, drawn `columns` wide.

    These are the first, the lowest, the highest and the last in each column. Jugel, Jerzak, Hackenbroich and Markl,
    "M4: a visualization-oriented time series data aggregation" (VLDB 2014).
    """
    if len(times) <= 4 * columns:
        return times, values
    column = (times.astype(np.float64) / end * columns).astype(np.int64)
    first = np.flatnonzero(np.diff(column, prepend=-1))
    sizes = np.diff(first, append=len(times))
    kept = [first, first + sizes - 1]
    for extreme in (np.minimum, np.maximum):
        reached = np.flatnonzero(values == np.repeat(extreme.reduceat(values, first), sizes))
        kept.append(reached[np.flatnonzero(np.diff(column[reached], prepend=-1))])
    places = np.unique(np.concatenate(kept))
    return times[places], values[places]
