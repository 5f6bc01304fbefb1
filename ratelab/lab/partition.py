"""Keys split into shares, so that the states of one stay small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.spill import Column, DiskColumn, Integers
from ratelab.lab.traffic import Asked, Traffic

LARGEST_TABLE = 1 << 25
"""Numbers that the states of a share may be, 256 MB in all; a single state may be larger."""

MOST_BITS = 12
"""As many shares at most, as a power of two."""


class Requests(NamedTuple):
    """Those of a share's keys among some requests, in the order of arrival."""

    keys: NDArray[np.uint32]
    """Each request's key, numbered anew."""
    times: Integers
    costs: Integers
    places: slice | Integers
    """Where they stand among all."""


class Share(NamedTuple):
    """The keys whose lowest bits are a number."""

    bits: int
    number: int

    def of_keys(self, values: Integers) -> Integers:
        """Return these keys' values of one for each key."""
        return values[self.number :: 1 << self.bits]

    def of(self, some: Traffic) -> Requests:
        """Return the requests of these keys."""
        keys = some.narrow_keys
        if not self.bits:
            return Requests(keys, some.times, some.costs, slice(None))
        places = np.flatnonzero(keys & np.uint32((1 << self.bits) - 1) == self.number)
        return Requests(keys[places] >> np.uint32(self.bits), some.times[places], some.costs[places], places)


def shares(traffic: Asked, numbers: int) -> Iterator[Share]:
    """Split the keys, whose states have so many `numbers` together, into shares with room for them, done in turn."""
    most = max(0, traffic.key_count - 1).bit_length()
    bits = min((numbers // LARGEST_TABLE).bit_length(), most, MOST_BITS)
    return (Share(bits, number) for number in range(1 << bits))


def room(column: Column, part: slice, own: Requests) -> NDArray[Any]:
    """Return where values of some requests of a part may be written: in the column itself, if it can be."""
    if isinstance(own.places, slice) and not isinstance(column, DiskColumn):
        return column[part]
    return np.empty(len(own.keys), column.dtype)


def put(column: Column, part: slice, own: Requests, values: NDArray[Any]) -> None:
    """Put values of some requests of a part in their places, unless they are there already."""
    if values.base is column:
        return
    if not isinstance(own.places, slice):
        some = column[part]
        some[own.places] = values
        values = some
    column[part] = values
