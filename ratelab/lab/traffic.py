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


def split_batches(length: int) -> Iterator[slice]:
    """Yield slices of `BATCH_REQUESTS` that cover `length` requests."""
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
    def key_count(self) -> int:
        """The number of keys."""
        return int(self.keys.max(initial=-1)) + 1

    @cached_property
    def max_cost(self) -> int:
        """The largest cost; 0 without requests."""
        return int(self.costs.max(initial=0))

    @cached_property
    def has_unit_costs(self) -> bool:
        """Whether every request costs 1."""
        return bool((self.costs == 1).all())

    @cached_property
    def requested_cost(self) -> Integers:
        """The total cost that each key requests."""
        return _requested_cost(self)

    @cached_property
    def client_requests(self) -> Integers:
        """The number of requests of each client."""
        return _client_requests(self)

    def batches(self) -> Iterator[tuple[slice, Traffic]]:
        """Yield the requests in batches, each with its position."""
        return ((part, self[part]) for part in split_batches(len(self)))

    def __getitem__(self, part: slice) -> Traffic:
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
    max_cost: int

    def __len__(self) -> int:
        return len(self.requests)

    @cached_property
    def key_count(self) -> int:
        """The number of keys."""
        return int(self.keys.max(initial=-1)) + 1

    @property
    def has_unit_costs(self) -> bool:
        """Whether every request costs 1."""
        return self.max_cost == 1

    @cached_property
    def requested_cost(self) -> Integers:
        """The total cost that each key requests."""
        return _requested_cost(self)

    @cached_property
    def client_requests(self) -> Integers:
        """The number of requests of each client."""
        return _client_requests(self)

    def batches(self) -> Iterator[tuple[slice, Traffic]]:
        """Yield the requests in batches, each with its position."""
        return ((part, self[part]) for part in split_batches(len(self)))

    def __getitem__(self, part: slice) -> Traffic:
        return from_rows(self.requests[part], self.names, self.keys, self.duration, self.origin)

    def column(self, kind: DTypeLike) -> Column:
        """Make room for a value of each request, on disk."""
        return DiskColumn(kind, len(self))

    def whole(self) -> Traffic:
        """Read all requests into memory."""
        return self[0 : len(self)]


Asked: TypeAlias = Traffic | LongTraffic
"""Traffic of any length, looked at a part at a time."""


def _requested_cost(traffic: Asked) -> Integers:
    """Add up the costs of each key, cut off so that the sum of all is below 2**62."""
    totals = np.zeros(traffic.key_count, np.int64)
    for _, batch in traffic.batches():
        np.add.at(totals, batch.request_keys, np.minimum(batch.costs, 2**62 // len(traffic)))
    return totals


def _client_requests(traffic: Asked) -> Integers:
    counts = np.zeros(len(traffic.names), np.int64)
    for _, batch in traffic.batches():
        counts += np.bincount(batch.clients, minlength=len(counts))
    return counts


def count_costlier(traffic: Asked, burst: int) -> int:
    """Count the requests that cost more than `burst`."""
    if traffic.max_cost <= burst:
        return 0
    return sum(int(np.count_nonzero(batch.costs > burst)) for _, batch in traffic.batches())


def from_rows(rows: NDArray[Any], names: tuple[str, ...], keys: Integers, duration: int, origin: int) -> Traffic:
    """Make traffic of rows of `REQUEST`."""
    times, clients, costs = (rows[name].astype(np.int64) for name in ("time", "who", "cost"))
    return Traffic(times, clients, costs, names, keys, duration, origin)
