"""Data series of charts: cumulative curves, window peaks and downsampling."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.spill import Integers

Values = TypeVar("Values", NDArray[np.int64], NDArray[np.float64])


def split_time(end: int, parts: int, begin: int = 0) -> Integers:
    """Return the edges of `parts` equal parts of the time from `begin` to `end`, both included."""
    return np.array([begin + part * (end - begin) // parts for part in range(parts + 1)], np.int64)


# --- counts and costs


def count_in_parts(chosen: NDArray[np.bool_], times: Integers, edges: Integers) -> Integers:
    """Count the chosen times in each part between `edges`; the last part includes its end. `times` are in order."""
    total = np.concatenate([[0], np.cumsum(chosen)])
    return np.diff(total[_find_places(times, edges)])


def count_times(times: Integers, edges: Integers) -> Integers:
    """Count the times in each part between `edges`; the last part includes its end. `times` are in order."""
    return np.diff(_find_places(times, edges))


class Curve(NamedTuple):
    """A step function: from `times[i]` to the next time, it is `values[i]`."""

    times: Integers
    """Nanoseconds, in order."""
    values: Integers


def accumulate(times: Integers, costs: Integers) -> Curve:
    """Return the total cost up to and including each time, from 0 at the beginning; `times` are in order."""
    return Curve(np.concatenate([[0], times]), np.concatenate([[0], np.cumsum(costs)]))


def find_window_peaks(times: Integers, costs: Integers, window: int, edges: Integers) -> Integers:
    """Return the largest cost that `(t - window, t]` holds at any time `t` of each part between `edges`.

    `times` are in order. The cost in the window rises only at one of them, so `t` need only be those and the beginning
    of each part.
    """
    total = np.concatenate([[0], np.cumsum(costs)])

    def cost_in_window(ends: Integers) -> Integers:
        after, before = (np.searchsorted(times, border, side="right") for border in (ends, ends - window))
        return np.asarray(total[after] - total[before])

    peaks = cost_in_window(edges[:-1])
    at_times = cost_in_window(times)
    for part, (first, stop) in enumerate(pairwise(_find_places(times, edges).tolist())):
        peaks[part] = max(peaks[part], at_times[first:stop].max(initial=0))
    return peaks


# --- curves with more points than a chart can show


def downsample(times: Integers, values: Values, edges: Integers) -> tuple[Integers, Values]:
    """Return the points of a curve that change its picture, if each part between `edges` is one pixel wide.

    These are the first, lowest, highest and last point of each part. Jugel, Jerzak, Hackenbroich and Markl, "M4: a
    visualization-oriented time series data aggregation" (VLDB 2014).
    """
    if len(times) <= 4 * len(edges):
        return times, values
    places: list[int] = []
    for first, stop in pairwise(_find_places(times, edges).tolist()):
        if first < stop:
            part = values[first:stop]
            places += sorted({first, first + int(part.argmin()), first + int(part.argmax()), stop - 1})
    return times[places], values[places]


def count_turns(values: Values) -> int:
    """Count the changes of a curve from rising to falling, or from falling to rising."""
    directions = np.sign(np.diff(values))
    directions = directions[directions != 0]
    return int(np.count_nonzero(directions[1:] != directions[:-1]))


class Band(NamedTuple):
    """The range of a curve within each part of the time."""

    low: NDArray[np.float64]
    mean: NDArray[np.float64]
    """Mean over the time, with straight lines between the points."""
    high: NDArray[np.float64]


def compute_band(times: Integers, values: Values, edges: Integers) -> Band:
    """Return a curve's band between `edges`; a part without a point has the value at its beginning."""
    at_edges = np.interp(edges, times, values)
    area = np.concatenate([[0], np.cumsum(np.diff(times) * (values[1:] + values[:-1]) / 2)])
    mean = np.diff(np.interp(edges, times, area)) / np.diff(edges)
    low, high = at_edges[:-1].copy(), at_edges[:-1].copy()
    for part, (first, stop) in enumerate(pairwise(_find_places(times, edges).tolist())):
        low[part] = values[first:stop].min(initial=low[part])
        high[part] = values[first:stop].max(initial=high[part])
    return Band(low, mean, high)


def _find_places(times: Integers, edges: Integers) -> Integers:
    """Return the position of the first time in each part, and behind them the end of the last part."""
    places = np.searchsorted(times, edges)
    places[-1] = np.searchsorted(times, edges[-1], side="right")
    return places
