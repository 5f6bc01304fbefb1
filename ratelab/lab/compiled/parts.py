"""Traffic split by key, so that the states of its keys stay small."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.traffic import Integers, Traffic

LARGEST_TABLE = 1 << 25
"""Numbers that the states of a part may be, 256 MB in all; a single state may be larger."""

MOST_BITS = 12
"""As many parts at most, as a power of two."""


AHEAD = 12
"""So many requests before its turn a key's state is fetched: as long as memory takes."""


class Part(NamedTuple):
    """The requests of some keys, in the order of arrival."""

    rows: int
    """How many keys there are."""
    keys: NDArray[np.uint32]
    """Each request's key, as a row."""
    times: Integers
    costs: Integers | None
    """None if each is 1."""
    places: NDArray[np.uint32] | None
    """Where each request stands in the traffic; None if it is all of it."""

    def stretches(self, longest: int) -> Iterator[tuple[slice, tuple[NDArray[Any] | None, ...]]]:
        """Yield where some requests stand, and their keys, keys to come, times and costs."""
        last = max(0, len(self.keys) - AHEAD)
        for begin, end in pairwise([*range(0, last, longest), last, len(self.keys)]):
            some = slice(begin, end)
            later = self.keys[begin + AHEAD : end + AHEAD] if end <= last else self.keys[some]
            yield some, (self.keys[some], later, self.times[some], None if self.costs is None else self.costs[some])

    def column(self, whole: NDArray[Any]) -> NDArray[Any]:
        """Return what to fill: that of the whole traffic, or a column of one's own."""
        return whole if self.places is None else np.empty(len(self.keys), whole.dtype)

    def put(self, filled: NDArray[Any], whole: NDArray[Any]) -> None:
        """Put what was filled in its place."""
        if self.places is not None:
            whole[self.places] = filled


def split(traffic: Traffic, width: int) -> Iterator[Part]:
    """Split `traffic` into parts of as many keys as states of `width` numbers have room for."""
    from ratelab.lab.compiled import kernels

    costs = traffic.costs if traffic.is_priced else None
    keys = int(traffic.keys.max(initial=0)) + 1
    bits = min((keys * width // LARGEST_TABLE).bit_length(), (keys - 1).bit_length(), MOST_BITS)
    if not bits:
        yield Part(keys, traffic.narrow_keys, traffic.times, costs, None)
        return
    ends, part_keys, times, places = kernels.partition(traffic.narrow_keys, traffic.times, bits)
    for begin, end in pairwise(ends.tolist()):
        own = slice(begin, end)
        own_costs = None if costs is None else costs[places[own]]
        yield Part((keys >> bits) + 1, part_keys[own], times[own], own_costs, places[own])
