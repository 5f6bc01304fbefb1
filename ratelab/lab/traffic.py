"""Traffic: who asks for how much, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ratelab.lab.spill import Column, DiskColumn, Integers

Booleans = NDArray[np.bool_]

BATCH_REQUESTS = 1 << 18
"""Requests that are looked at together; what is found of them does not depend on it."""


def parts_of(length: int) -> Iterator[slice]:
    """Cut so many requests into slices of `BATCH_REQUESTS`."""
    return (slice(begin, min(begin + BATCH_REQUESTS, length)) for begin in range(0, length, BATCH_REQUESTS))


@dataclass(frozen=True, eq=False)
class Traffic:
    """Requests in the order of their arrival, as columns of one length.

    A client is who asks; a key is whose quota is charged. They differ only where clients share a quota.
    """

    times: Integers
    """Nanoseconds since the traffic began, never falling."""
    clients: Integers
    """Each request's client, as an index into `names`."""
    costs: Integers
    """Each request's cost, at least 1."""
    names: tuple[str, ...]
    """The clients' names."""
    keys: Integers
    """Each client's key, from 0 up: as long as `names`."""
    duration: int
    """Nanoseconds that the traffic lasts, the quiet at its end included."""
    origin: int = 0
    """What the clock read when the traffic began: windows are aligned to the clock."""

    def __len__(self) -> int:
        return len(self.times)

    @property
    def clock_times(self) -> Integers:
        """What the clock read at each request."""
        return self.times + self.origin

    @cached_property
    def request_keys(self) -> Integers:
        """Each request's key."""
        return self.keys[self.clients]

    @cached_property
    def narrow_keys(self) -> NDArray[np.uint32]:
        """`request_keys` in half the room."""
        return self.request_keys.astype(np.uint32)

    @cached_property
    def dearest(self) -> int:
        """The largest cost."""
        return int(self.costs.max(initial=0))

    @cached_property
    def is_priced(self) -> bool:
        """Whether some request costs something else than 1."""
        return bool((self.costs != 1).any())

    @cached_property
    def asked(self) -> Integers:
        """What each key asks for in all."""
        return _asked(self)

    @cached_property
    def client_requests(self) -> Integers:
        """The number of requests of each client."""
        return _client_requests(self)

    def parts(self) -> list[slice]:
        """Return slices that hold all requests together."""
        return list(parts_of(len(self)))

    def part(self, part: slice) -> Traffic:
        """Return some of the requests."""
        if (part.start, part.stop) == (0, len(self)):
            return self
        some = replace(self, times=self.times[part], clients=self.clients[part], costs=self.costs[part])
        vars(some).update(request_keys=self.request_keys[part], narrow_keys=self.narrow_keys[part])  # made but once
        return some

    def column(self, kind: DTypeLike) -> Column:
        """Make room for a value of each request."""
        return np.empty(len(self), kind)

    def whole(self) -> Traffic:
        """Return itself."""
        return self


@dataclass(frozen=True, eq=False)
class LongTraffic:
    """Requests on disk, otherwise as in `Traffic`."""

    requests: DiskColumn
    """Rows of `REQUEST`, with clients."""
    names: tuple[str, ...]
    keys: Integers
    duration: int
    origin: int
    dearest: int

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def is_priced(self) -> bool:
        """Whether some request costs more than 1."""
        return self.dearest > 1

    @cached_property
    def asked(self) -> Integers:
        """What each key asks for in all."""
        return _asked(self)

    @cached_property
    def client_requests(self) -> Integers:
        """The number of requests of each client."""
        return _client_requests(self)

    def parts(self) -> list[slice]:
        """Return slices that hold all requests together."""
        return list(parts_of(len(self)))

    def part(self, part: slice) -> Traffic:
        """Read some of the requests."""
        return from_rows(self.requests[part], self.names, self.keys, self.duration, self.origin)

    def column(self, kind: DTypeLike) -> Column:
        """Make room for a value of each request, on disk."""
        return DiskColumn(kind, len(self))

    def whole(self) -> Traffic:
        """Read all requests into memory."""
        return self.part(slice(0, len(self)))


Asked: TypeAlias = Traffic | LongTraffic
"""Traffic of any length, looked at a part at a time."""


def key_count(traffic: Asked) -> int:
    """Return how many keys there are."""
    return int(traffic.keys.max(initial=-1)) + 1


def _asked(traffic: Asked) -> Integers:
    """Add up what keys ask for, costs that would add up to more than 2**62 cut down before."""
    asked = np.zeros(key_count(traffic), np.int64)
    for part in traffic.parts():
        some = traffic.part(part)
        np.add.at(asked, some.request_keys, np.minimum(some.costs, 2**62 // len(traffic)))
    return asked


def _client_requests(traffic: Asked) -> Integers:
    counts = np.zeros(len(traffic.names), np.int64)
    for part in traffic.parts():
        counts += np.bincount(traffic.part(part).clients, minlength=len(counts))
    return counts


def costing_more(traffic: Asked, burst: int) -> int:
    """Return how many requests cost more than `burst`."""
    if traffic.dearest <= burst:
        return 0
    return sum(int(np.count_nonzero(traffic.part(part).costs > burst)) for part in traffic.parts())


def from_rows(rows: NDArray[Any], names: tuple[str, ...], keys: Integers, duration: int, origin: int) -> Traffic:
    """Make traffic of rows of `REQUEST`."""
    times, clients, costs = (rows[name].astype(np.int64) for name in ("time", "who", "cost"))
    return Traffic(times, clients, costs, names, keys, duration, origin)
