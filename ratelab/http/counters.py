"""Counters of a service: requests by outcome, keys, store errors; and their sum over all workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import islice
from mmap import mmap
from types import MappingProxyType
from typing import NamedTuple, Self

from ratelab.errors import STORE_ERRORS
from ratelab.stores.key_table import Stats
from ratelab.stores.outages import Health

MAX_COUNTED_POLICIES = 32
"""Policies that are counted; further ones are not."""


@dataclass(slots=True)
class PolicyCounts:
    """Decisions of one of several policies."""

    shadow: bool
    denied: int = 0
    """Requests that the policy denied or, as a shadow policy, would have denied."""
    stricter: int = 0
    """Admitted requests that a shadow policy would have denied."""
    looser: int = 0
    """Denied requests that a shadow policy would have admitted."""


@dataclass(slots=True)
class Counts:
    """Requests by outcome; exempt requests are not counted."""

    admitted: int = 0
    """Passed to the application, at once or after a wait."""
    delayed: int = 0
    """Those of `admitted` that had to queue."""
    denied: int = 0
    """Answered 429, or 400 for a cost above the burst."""
    dropped: int = 0
    """Left the queue, because the client disconnected or the service stopped; still charged."""
    ambiguous: int = 0
    """Answered 400, because the request named two clients, or 411, because its length is unknown; not charged."""
    unavailable: int = 0
    """Answered 503, because the limiter's store made no decision."""
    waiting: int = 0
    """In the queue now; not yet in any other count."""
    policies: dict[str, PolicyCounts] = field(default_factory=dict)
    """The decisions of each of several policies, by name and in order."""


OUTCOMES = ("admitted", "denied", "dropped", "ambiguous", "unavailable")
"""The fields of `Counts` that are outcomes of requests."""


class CounterValues(NamedTuple):
    """The counters of a service at one moment."""

    counts: Counts
    stats: Stats
    health: Health | None = None
    """Health of the shared store; None without one."""

    def to_row(self) -> list[int]:
        """Flatten to integers, as for a service with a shared store: the gauges, then the counters."""
        up, errors, fallbacks = self.health or Health(True, {}, 0)
        keys, evictions, overflow_hits = self.stats
        *ended, waiting = (getattr(self.counts, name) for name in _REQUEST_COUNTS)
        policies = [(each.denied, each.stricter, each.looser) for each in self.counts.policies.values()]
        decided = [count for each in policies[:MAX_COUNTED_POLICIES] for count in each]
        counters = (*ended, evictions, overflow_hits, fallbacks, *(errors.get(kind, 0) for kind in STORE_ERRORS))
        return [not up, keys, waiting, *counters, *decided, *[0] * (_POLICY_COLUMNS - len(decided))]

    @classmethod
    def from_row(cls, row: list[int], shadows: Mapping[str, bool] = MappingProxyType({})) -> Self:
        """Restore the values from a row, or from the sum of several, where the store is up if it is up in all.

        `shadows` are the names of the policies, in order, and whether they are shadow policies.
        """
        decided = iter(row[-_POLICY_COLUMNS:])
        policies = {
            name: PolicyCounts(shadow, next(decided), next(decided), next(decided))
            for name, shadow in islice(shadows.items(), MAX_COUNTED_POLICIES)
        }
        down, keys, waiting, *counters = row[:-_POLICY_COLUMNS]
        evictions, overflow_hits, fallbacks, *errors = counters[_REQUEST_COLUMNS:]
        failed = {kind: count for kind, count in zip(STORE_ERRORS, errors, strict=True) if count}
        health = Health(not down, failed, fallbacks)
        counts = Counts(
            **dict(zip(_REQUEST_COUNTS, [*counters[:_REQUEST_COLUMNS], waiting], strict=True)), policies=policies
        )
        return cls(counts, Stats(keys, evictions, overflow_hits), health)


_REQUEST_COUNTS = tuple(each.name for each in fields(Counts) if each.name != "policies")
_GAUGE_COLUMNS = 3  # down, keys, waiting: they belong to one process, and end with it
_REQUEST_COLUMNS = len(_REQUEST_COUNTS) - 1  # all but `waiting`
_POLICY_COLUMNS = 3 * MAX_COUNTED_POLICIES
_ROW_COLUMNS = _GAUGE_COLUMNS + _REQUEST_COLUMNS + 3 + len(STORE_ERRORS) + _POLICY_COLUMNS


class SharedCounters:
    """One row of counters for each worker, in memory shared by forks; a worker that dies leaves its counts."""

    def __init__(self, workers: int) -> None:
        self._shadows: Mapping[str, bool] = {}
        self._cells = memoryview(mmap(-1, workers * _ROW_COLUMNS * 8)).cast("q")
        self._worker = 0
        self._inherited = [0] * _ROW_COLUMNS

    def attach(self, worker: int) -> None:
        """Write to the row of this worker from now on, and add to the counts of its predecessor."""
        self._worker = worker
        self._inherited = [0] * _GAUGE_COLUMNS + self._row(worker)[_GAUGE_COLUMNS:]

    def publish(self, values: CounterValues) -> None:
        """Write the counters of this worker; those of policies start at 0 when the policies change."""
        shadows = {name: each.shadow for name, each in values.counts.policies.items()}
        if shadows != self._shadows:
            if self._shadows:
                self._inherited[-_POLICY_COLUMNS:] = [0] * _POLICY_COLUMNS
            self._shadows = shadows
        for column, (before, value) in enumerate(zip(self._inherited, values.to_row(), strict=True)):
            self._cells[self._worker * _ROW_COLUMNS + column] = before + value

    def total(self) -> CounterValues:
        """Return the sum over all workers, as last published."""
        rows = [self._row(worker) for worker in range(len(self._cells) // _ROW_COLUMNS)]
        return CounterValues.from_row([sum(column) for column in zip(*rows, strict=True)], self._shadows)

    def _row(self, worker: int) -> list[int]:
        return self._cells[worker * _ROW_COLUMNS : (worker + 1) * _ROW_COLUMNS].tolist()
