"""Frontier: the burst that each key needs to be denied nothing, for every rate at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ratelab.errors import InputError
from ratelab.lab.decisions import Progress
from ratelab.lab.partition import Partition, split_keys
from ratelab.lab.replay import has_compiler
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic
from ratelab.lab.tune import hulls
from ratelab.lab.windows import sort_by_key
from ratelab.quota import Quota

MIN_COMPILED_REQUESTS = 20_000
"""Requests from which on loading the compiler takes less time than it saves."""

MAX_INTEGER = 2**63 - 1
_HULL_INTEGERS_PER_REQUEST = 48  # of a partition, while its hulls are merged; about four times as many as are in use


@dataclass(frozen=True, eq=False)
class Frontier:
    """The corners of the needs of all keys, those of one key next to each other.

    The need of a key at a rate is the smallest burst with which a token bucket of that rate denies it nothing: the
    most that it requests within any span of time, less what the rate grants within that span. Only the corners of that
    function of the rate are kept (see `hulls`), so memory does not depend on the number of requests.

    Cruz, "A calculus for network delay" (1991); Le Boudec and Thiran, "Network Calculus" (2001), section 1.2.
    """

    begins: Integers
    """The position of the first corner of each key, and the number of corners."""
    spans: Integers
    """Nanoseconds between the first and the last request of the span that makes a corner."""
    amounts: Integers
    """The cost that the key requests within that span."""

    def __len__(self) -> int:
        return len(self.begins) - 1

    def find_needs(self, rate: Quota) -> Integers:
        """Return the burst that each key needs at the rate of `rate`, rounded up; 0 for a key without requests."""
        needs = np.zeros(len(self), np.int64)
        has_requests = np.diff(self.begins) > 0
        if has_requests.any():
            needed = self.amounts - _grant(rate, self.spans)
            needs[has_requests] = np.maximum.reduceat(needed, self.begins[:-1][has_requests])
        return needs

    def find_largest_at_once(self) -> int:
        """Return the most that a key requests at one time, which is the largest need at every fast rate."""
        return int(self.amounts[self.spans == 0].max(initial=0))


def _grant(rate: Quota, spans: Integers) -> Integers:
    """Return the whole units that a rate grants within each span; more than 64 bits hold are cut off."""
    if int(spans.max()) * rate.limit <= MAX_INTEGER:
        return spans * rate.limit // rate.period
    granted = (min(span * rate.limit // rate.period, MAX_INTEGER) for span in spans.tolist())
    return np.fromiter(granted, np.int64, len(spans))


def measure_frontier(traffic: Traffic, progress: Progress = lambda _: None) -> Frontier:
    """Find the needs of every key; `progress` is called with the number of further requests handled.

    Raises `InputError` if the costs of one key add up to more than 64 bits hold.
    """
    find = _load_compiled() if len(traffic) >= MIN_COMPILED_REQUESTS and has_compiler() else _find_in_python
    counts = np.zeros(traffic.key_count, np.int64)
    found: list[tuple[Partition, _Corners]] = []
    for partition in split_keys(traffic, _HULL_INTEGERS_PER_REQUEST * len(traffic)):
        times, costs, begins = group_by_key(traffic, partition, len(partition.select_keys(counts)))
        corners = find(times, costs, begins)
        partition.select_keys(counts)[:] = corners.counts
        found.append((partition, corners))
        progress(len(times))
    return _join(counts, found)


class _Corners(NamedTuple):
    """The number of corners of each key of a partition, and their spans and amounts."""

    counts: Integers
    spans: Integers
    amounts: Integers


def group_by_key(traffic: Traffic, partition: Partition, keys: int) -> tuple[Integers, Integers, Integers]:
    """Return the times and costs of a partition's requests, grouped by key, and where each group begins."""
    batches = [partition.select(batch) for _, batch in traffic.batches()]
    owners = np.concatenate([np.empty(0, np.uint32), *(requests.keys for requests in batches)])
    order = sort_by_key(owners)
    begins = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=keys))]).astype(np.int64)
    times = np.concatenate([np.empty(0, np.int64), *(requests.times for requests in batches)])[order]
    costs = np.concatenate([np.empty(0, np.int64), *(requests.costs for requests in batches)])[order]
    if float(costs.sum(dtype=np.float64)) > MAX_INTEGER // 2:
        raise InputError(f"costs must add up to at most {MAX_INTEGER // 2:,}: use a larger unit of cost")
    return times, costs, begins


def _find_in_python(times: Integers, costs: Integers, begins: Integers) -> _Corners:
    columns = hulls.find_all_corners(times.tolist(), costs.tolist(), begins.tolist())
    return _Corners(*(np.array(column, np.int64) for column in columns))


def _load_compiled() -> Callable[[Integers, Integers, Integers], _Corners]:
    from ratelab.lab.compiled.loops import compile_corner_finder  # it needs Numba, which is slow to import

    find = compile_corner_finder()
    return lambda times, costs, begins: _Corners(*find(times, costs, begins))


def _join(counts: Integers, found: list[tuple[Partition, _Corners]]) -> Frontier:
    """Put the corners of all partitions in the order of their keys."""
    begins = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    if len(found) == 1:
        return Frontier(begins, found[0][1].spans, found[0][1].amounts)
    spans, amounts = np.empty(begins[-1], np.int64), np.empty(begins[-1], np.int64)
    for partition, corners in found:
        firsts = partition.select_keys(begins[:-1])
        offsets = firsts - np.cumsum(corners.counts) + corners.counts
        places = np.repeat(offsets, corners.counts) + np.arange(len(corners.spans))
        spans[places], amounts[places] = corners.spans, corners.amounts
    return Frontier(begins, spans, amounts)
