"""What has arrived or left so far, and what left within the window that ends now, as finely as it can be seen."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.spill import Integers

Values = TypeVar("Values", NDArray[np.int64], NDArray[np.float64])


class Curve(NamedTuple):
    """A step function: from `times[i]` on, up to the next time, it is `values[i]`."""

    times: Integers
    """Nanoseconds, never falling."""
    values: Integers


def borders(end: int, parts: int) -> Integers:
    """Return where the time from 0 to `end` is cut into so many parts, both ends included."""
    return np.array([part * end // parts for part in range(parts + 1)], np.int64)


def within(chosen: NDArray[np.bool_], times: Integers, cuts: Integers) -> Integers:
    """Count the chosen of `times`, which never fall, in each part between `cuts`; the last holds its end, too."""
    total = np.concatenate([[0], np.cumsum(chosen)])
    return np.diff(total[_places(times, cuts)])


def cumulative(times: Integers, costs: Integers) -> Curve:
    """Return the cost up to and at each moment, from 0 at the beginning; `times` never fall."""
    return Curve(np.concatenate([[0], times]), np.concatenate([[0], np.cumsum(costs)]))


def most_in_window(times: Integers, costs: Integers, window: int, cuts: Integers) -> Integers:
    """Return for each part between `cuts` the most cost that `(t - window, t]` holds at any moment `t` of it.

    `times` never fall. The cost rises at a departure alone, so it is enough to look then and where a part begins.
    """
    total = np.concatenate([[0], np.cumsum(costs)])

    def held(moments: Integers) -> Integers:
        until, since = (np.searchsorted(times, ends, side="right") for ends in (moments, moments - window))
        return np.asarray(total[until] - total[since])

    most = held(cuts[:-1])
    at_departure = held(times)
    for part, (begin, stop) in enumerate(pairwise(_places(times, cuts).tolist())):
        most[part] = max(most[part], at_departure[begin:stop].max(initial=0))
    return most


def thinned(times: Integers, values: Values, cuts: Integers) -> tuple[Integers, Values]:
    """Return the points of a curve without which it would look otherwise, each part one dot wide.

    These are the first, the lowest, the highest and the last in each part. Jugel, Jerzak, Hackenbroich and Markl,
    "M4: a visualization-oriented time series data aggregation" (VLDB 2014).
    """
    if len(times) <= 4 * len(cuts):
        return times, values
    kept: list[int] = []
    for begin, stop in pairwise(_places(times, cuts).tolist()):
        if begin < stop:
            part = values[begin:stop]
            kept += sorted({begin, begin + int(part.argmin()), begin + int(part.argmax()), stop - 1})
    return times[kept], values[kept]


class Band(NamedTuple):
    """What a curve does within each of some parts of the time."""

    least: NDArray[np.float64]
    mean: NDArray[np.float64]
    """Over the time, the curve going straight from point to point."""
    most: NDArray[np.float64]


def turns(values: Values) -> int:
    """Count how often a curve turns from rising to falling, or back."""
    steps = np.sign(np.diff(values))
    steps = steps[steps != 0]
    return int(np.count_nonzero(steps[1:] != steps[:-1]))


def banded(times: Integers, values: Values, cuts: Integers) -> Band:
    """Return a curve's band between `cuts`; in a part without a point it is as at the part's beginning."""
    edges = np.interp(cuts, times, values)
    area = np.concatenate([[0], np.cumsum(np.diff(times) * (values[1:] + values[:-1]) / 2)])
    mean = np.diff(np.interp(cuts, times, area)) / np.diff(cuts)
    least, most = edges[:-1].copy(), edges[:-1].copy()
    for part, (begin, stop) in enumerate(pairwise(_places(times, cuts).tolist())):
        least[part] = values[begin:stop].min(initial=least[part])
        most[part] = values[begin:stop].max(initial=most[part])
    return Band(least, mean, most)


def _places(times: Integers, cuts: Integers) -> Integers:
    """Return where the times of each part begin, and after them where the last ones end."""
    places = np.searchsorted(times, cuts)
    places[-1] = np.searchsorted(times, cuts[-1], side="right")
    return places
