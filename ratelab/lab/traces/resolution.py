"""Resolution of the times of a file: whole minutes, whole seconds or finer, and requests spread over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ratelab.lab.spill import Integers
from ratelab.lab.traffic import split_batches
from ratelab.quota import NS_PER_S, UNITS

MINUTE_NS = UNITS["min"]

_NOTED_SHARE = 0.2
"""Share of whole seconds among finer times from which on they are reported."""


@dataclass
class Resolution:
    """Counts of the times of a file by how exact they are."""

    requests: int = 0
    whole_seconds: int = 0
    whole_minutes: int = 0
    _first: int | None = None
    _varies: bool = False

    def add(self, times: Integers) -> None:
        """Count times."""
        if not len(times):
            return
        self.requests += len(times)
        self.whole_seconds += _count_multiples(times, NS_PER_S)
        if self.whole_minutes == self.requests - len(times):
            self.whole_minutes += _count_multiples(times, MINUTE_NS)
        self._first = int(times[0]) if self._first is None else self._first
        self._varies = self._varies or bool((times != self._first).any())

    @property
    def is_whole(self) -> bool:
        """Whether no time has a fraction of a second."""
        return self.whole_seconds == self.requests

    @property
    def unit(self) -> int:
        """The nanoseconds over which requests of one time may be spread; 1 if times are finer than seconds."""
        if self.whole_seconds * 2 <= self.requests:
            return 1
        return MINUTE_NS if self._varies and self.whole_minutes == self.requests else NS_PER_S

    def describe(self, within_second: str) -> str | None:
        """Return a note on the resolution; None if all times are exact or nearly all of them."""
        what = (
            "requests of each are spread evenly over it" if within_second == "spread" else "requests stay at its start"
        )
        if self.unit == MINUTE_NS:
            return f"times are whole minutes: the {what} (--within-second)"
        if self.is_whole:
            return None
        if self.unit == NS_PER_S:
            return f"{self.whole_seconds:,} of {self.requests:,} times are whole seconds: the {what} (--within-second)"
        if self.whole_seconds >= max(2, _NOTED_SHARE * self.requests):
            return (
                f"{self.whole_seconds:,} of {self.requests:,} times are whole seconds: those requests stay at its start"
            )
        return None


def _count_multiples(times: Integers, unit: int) -> int:
    return len(times) - int(np.count_nonzero(times % unit))


def spread(times: Integers, unit: int) -> None:
    """Spread the requests of each whole `unit` evenly over it, in place: request k of n, from 0, is at k/n of it.

    `times` is sorted. Other times stay as they are, so that the order may change.
    """
    start, seen, total = None, 0, 0  # of the time that continues from batch to batch
    for part in split_batches(len(times)):
        batch = times[part]
        firsts = np.flatnonzero(np.diff(batch, prepend=batch[0] - 1))
        counts = np.diff(firsts, append=len(batch))
        totals, ranks = counts.copy(), np.arange(len(batch)) - np.repeat(firsts, counts)
        if batch[0] == start:
            ranks[: counts[0]] += seen
            totals[0] = total
        if batch[-1] != start:
            totals[-1] += _count_same_time(times[part.stop :], int(batch[-1]))
        start, seen, total = int(batch[-1]), int(ranks[-1]) + 1, int(totals[-1])
        batch += ranks * unit // np.repeat(totals, counts) * (batch % unit == 0)


def _count_same_time(times: Integers, time: int) -> int:
    """Count the leading times that equal `time`."""
    count = 0
    for part in split_batches(len(times)):
        batch = times[part]
        count += int(np.searchsorted(batch, time, "right"))
        if batch[-1] != time:
            break
    return count
