"""What a service has counted, and what several processes of it have together."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from mmap import mmap
from typing import NamedTuple, Self

from ratelab.errors import STORE_ERRORS
from ratelab.stores.memory import Stats
from ratelab.stores.resilient import Health


@dataclass(slots=True)
class Counts:
    """What became of the requests so far; exempt ones are not counted."""

    admitted: int = 0
    """Let through, whether at once or after a delay."""
    delayed: int = 0
    """Those of `admitted` that had to queue."""
    denied: int = 0
    """Answered 429, or 400 for a cost above the burst."""
    dropped: int = 0
    """Ended while they queued: the client left, or the service stopped. Their charge is kept."""
    ambiguous: int = 0
    """Answered 400, because they name two clients; nobody was charged."""
    unavailable: int = 0
    """Answered 503, because the limiter's store did not decide."""
    waiting: int = 0
    """Those that queue now, which are none of the others yet."""


OUTCOMES = len(astuple(Counts())) - 1
GAUGES = 3
COUNTERS_PER_WORKER = GAUGES + OUTCOMES + 3 + len(STORE_ERRORS)


class CounterValues(NamedTuple):
    """The counters of a service as they stand."""

    counts: Counts
    stats: Stats
    health: Health | None = None
    """Of the store, if it is shared."""

    def row(self) -> list[int]:
        """Write the figures of a service with a shared store as numbers: those that can fall, then the counters."""
        up, errors, fallbacks = self.health or Health(True, {}, 0)
        keys, evictions, overflow_hits = self.stats
        *outcomes, waiting = astuple(self.counts)
        counters = (*outcomes, evictions, overflow_hits, fallbacks)
        return [not up, keys, waiting, *counters, *(errors.get(kind, 0) for kind in STORE_ERRORS)]

    @classmethod
    def of(cls, row: list[int]) -> Self:
        """Read what `row` wrote, or the sum of several: the store is up if all of them say so."""
        down, keys, waiting, *counters = row
        evictions, overflow_hits, fallbacks, *errors = counters[OUTCOMES:]
        failed = {kind: count for kind, count in zip(STORE_ERRORS, errors, strict=True) if count}
        health = Health(not down, failed, fallbacks)
        return cls(Counts(*[*counters[:OUTCOMES], waiting]), Stats(keys, evictions, overflow_hits), health)


class SharedCounters:
    """The figures of so many processes, in memory that forks share; what one has counted stays when it has died."""

    def __init__(self, processes: int) -> None:
        self._cells = memoryview(mmap(-1, processes * COUNTERS_PER_WORKER * 8)).cast("q")
        self._number = 0
        self._before = [0] * COUNTERS_PER_WORKER

    def begin(self, number: int) -> None:
        """Be the process of this number, and go on from what its predecessor has counted."""
        self._number = number
        self._before = [0] * GAUGES + self._row(number)[GAUGES:]

    def write(self, figures: CounterValues) -> None:
        """Write down what this process has counted."""
        for column, (before, own) in enumerate(zip(self._before, figures.row(), strict=True)):
            self._cells[self._number * COUNTERS_PER_WORKER + column] = before + own

    def total(self) -> CounterValues:
        """Add up what all have written last."""
        rows = [self._row(number) for number in range(len(self._cells) // COUNTERS_PER_WORKER)]
        return CounterValues.of([sum(column) for column in zip(*rows, strict=True)])

    def _row(self, number: int) -> list[int]:
        return self._cells[number * COUNTERS_PER_WORKER : (number + 1) * COUNTERS_PER_WORKER].tolist()
