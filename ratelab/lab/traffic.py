"""Traffic: timed requests of clients, as columns, and their order in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ratelab.lab import spill
from ratelab.lab.spill import REQUEST_DTYPE, Integers, map_column, release_pages

Booleans = NDArray[np.bool_]

BATCH_REQUESTS = 1 << 18
"""Requests that are processed at a time; results do not depend on it."""


def split_batches(length: int) -> Iterator[slice]:
    """Yield slices of `BATCH_REQUESTS` that cover `length` requests; release mapped pages between them."""
    for begin in range(0, length, BATCH_REQUESTS):
        if begin:
            release_pages()
        yield slice(begin, min(begin + BATCH_REQUESTS, length))


@dataclass(frozen=True, eq=False)
class Traffic:
    """Requests in the order of their arrival, as columns of one length.

    A client sends requests; a key has the quota that they are charged to. They differ only where clients share a quota.
    """

    times: Integers
    """Nanoseconds since the traffic began, in order."""
    clients: Integers
    """The client of each request, as an index into `names`."""
    costs: Integers
    """The cost of each request, at least 1."""
    names: tuple[str, ...]
    """The names of the clients."""
    keys: Integers
    """The key of each client, numbered from 0."""
    duration: int
    """Nanoseconds from the beginning to the end, including a quiet time at the end."""
    origin: int = 0
    """Clock time at the beginning; windows are aligned to the clock."""
    on_disk: bool = False
    """Whether its columns, and those allocated for it, are mapped from temporary files."""

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, part: slice) -> Traffic:
        if (part.start, part.stop) == (0, len(self)):
            return self
        traffic = replace(self, times=self.times[part], clients=self.clients[part], costs=self.costs[part])
        vars(traffic)["request_keys"] = self.request_keys[part]  # computed only once
        return traffic

    def batches(self) -> Iterator[tuple[slice, Traffic]]:
        """Yield the requests in batches, each with its position."""
        return ((part, self[part]) for part in split_batches(len(self)))

    def allocate(self, kind: DTypeLike) -> NDArray[Any]:
        """Allocate a column with a value for each request."""
        return map_column(kind, len(self)) if self.on_disk else np.empty(len(self), kind)

    @property
    def clock_times(self) -> Integers:
        """The clock time of each request."""
        return self.times + self.origin

    @property
    def key_count(self) -> int:
        """The number of keys."""
        return int(self.keys.max(initial=-1)) + 1

    @cached_property
    def request_keys(self) -> NDArray[np.uint32]:
        """The key of each request."""
        keys, column = self.keys.astype(np.uint32), self.allocate(np.uint32)
        for part in split_batches(len(self)):
            column[part] = keys[self.clients[part]]
        return column

    @cached_property
    def max_cost(self) -> int:
        """The largest cost; 0 without requests."""
        return max((int(self.costs[part].max()) for part in split_batches(len(self))), default=0)

    @cached_property
    def has_unit_costs(self) -> bool:
        """Whether every request costs 1."""
        return all(bool((self.costs[part] == 1).all()) for part in split_batches(len(self)))

    @cached_property
    def requested_cost(self) -> Integers:
        """The total cost that each key requests; costs are cut off so that the sum of all is below 2**62."""
        totals = np.zeros(self.key_count, np.int64)
        for _, batch in self.batches():
            np.add.at(totals, batch.request_keys, np.minimum(batch.costs, 2**62 // len(self)))
        return totals

    @cached_property
    def client_requests(self) -> Integers:
        """The number of requests of each client."""
        counts = np.zeros(len(self.names), np.int64)
        for part in split_batches(len(self)):
            counts += np.bincount(self.clients[part], minlength=len(counts))
        return counts

    @cached_property
    def key_requests(self) -> Integers:
        """The number of requests of each key."""
        counts = np.zeros(self.key_count, np.int64)
        np.add.at(counts, self.keys, self.client_requests)
        return counts

    def name_key(self, key: int) -> str:
        """Return the name of a key: that of its first client, and the number of others that share it."""
        clients = np.flatnonzero(self.keys == key)
        name, others = self.names[int(clients[0])], len(clients) - 1
        return f"{name} and {others:,} other{'s' * (others > 1)}" if others else name

    def count_costlier(self, burst: int) -> int:
        """Count the requests that cost more than `burst`."""
        if self.max_cost <= burst:
            return 0
        return sum(int(np.count_nonzero(self.costs[part] > burst)) for part in split_batches(len(self)))


def select_keys(traffic: Traffic, selected: Booleans) -> Traffic:
    """Return the requests of the selected keys."""
    is_selected = selected[traffic.keys]
    size = int(traffic.client_requests[is_selected].sum())
    if size == len(traffic):
        return traffic
    on_disk = traffic.on_disk and size > spill.MAX_ROWS_IN_MEMORY
    times, clients, costs = (map_column(np.int64, size) if on_disk else np.empty(size, np.int64) for _ in range(3))
    end = 0
    for _, batch in traffic.batches():
        places = np.flatnonzero(is_selected[batch.clients])
        part = slice(end, end + len(places))
        times[part], clients[part], costs[part] = batch.times[places], batch.clients[places], batch.costs[places]
        end = part.stop
    return replace(traffic, times=times, clients=clients, costs=costs, on_disk=on_disk)


class RequestSorter:
    """Collects requests and sorts them by time: in memory, or on disk from `spill.MAX_ROWS_IN_MEMORY` on."""

    def __init__(self) -> None:
        self._in_memory: list[NDArray[Any]] = []
        self._on_disk: spill.RowFile | None = None
        self._count = 0
        self._latest: int | None = None
        self._sorted = True

    def __len__(self) -> int:
        return self._count

    @property
    def on_disk(self) -> bool:
        """Whether there are too many requests for memory."""
        return self._on_disk is not None

    def add(self, times: Integers, owners: NDArray[Any], costs: Integers) -> None:
        """Add requests, given as columns."""
        if not len(times):
            return
        rows = np.empty(len(times), REQUEST_DTYPE)
        rows["time"], rows["owner"], rows["cost"] = times, owners, costs
        previous = times[0] if self._latest is None else self._latest
        self._sorted = self._sorted and previous <= times[0] and bool((times[1:] >= times[:-1]).all())
        self._latest = int(times[-1])
        self._count += len(rows)
        self._in_memory.append(rows)
        if self._on_disk is not None or self._count > spill.MAX_ROWS_IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        if self._on_disk is None:
            self._on_disk = spill.RowFile()
        for rows in self._in_memory:
            self._on_disk.append(rows)
        self._in_memory.clear()

    def sort(self) -> NDArray[Any]:
        """Return all rows by time, those of one time in the order in which they were added; call it once."""
        if self._on_disk is None:
            rows = np.concatenate([np.empty(0, REQUEST_DTYPE), *self._in_memory])
            return rows if self._sorted else rows[np.argsort(rows["time"], kind="stable")]
        rows = self._on_disk.map()
        return rows if self._sorted else spill.sort_mapped(rows)
