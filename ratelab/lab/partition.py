"""Partitions of the keys of some traffic, so that the states of one partition fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic

MAX_STATE_INTEGERS = 1 << 25
"""Integers in the states of a partition, 256 MB in all; the state of a single key may have more."""

MAX_BITS = 12
"""Binary logarithm of the largest number of partitions."""


class KeyRequests(NamedTuple):
    """Requests of a partition's keys in a batch of traffic, in the order of arrival."""

    keys: NDArray[np.uint32]
    """The key of each request, numbered from 0 within the partition."""
    times: Integers
    costs: Integers
    places: slice | Integers
    """Their positions in the batch."""


class Partition(NamedTuple):
    """The keys whose lowest `bits` bits are `number`."""

    bits: int
    number: int

    def select_keys(self, values: Integers) -> Integers:
        """Return the values of these keys, given one value for each key."""
        return values[self.number :: 1 << self.bits]

    def select(self, batch: Traffic) -> KeyRequests:
        """Return the requests of these keys."""
        keys = batch.request_keys
        if not self.bits:
            return KeyRequests(keys, batch.times, batch.costs, slice(None))
        places = np.flatnonzero(keys & np.uint32((1 << self.bits) - 1) == self.number)
        return KeyRequests(keys[places] >> np.uint32(self.bits), batch.times[places], batch.costs[places], places)


def split_keys(traffic: Traffic, integers: int) -> Iterator[Partition]:
    """Yield partitions of the keys, whose states have this many `integers` in all; one after the other fits in memory.

    Keys are independent, so partitions may be replayed one after the other.
    """
    most = max(0, traffic.key_count - 1).bit_length()
    bits = min((integers // MAX_STATE_INTEGERS).bit_length(), most, MAX_BITS)
    return (Partition(bits, number) for number in range(1 << bits))
