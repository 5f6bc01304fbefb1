"""A limiter that writes down what it decides, so that it can be decided again."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from threading import Lock
from typing import IO

from ratelab.clock import steady
from ratelab.limiter import Algorithm, Clock, Decision
from ratelab.quota import Quota
from ratelab.stores.memory import MemoryLimiter, Stats

VERSION = 1
"""Of the format: a line that says what was granted, then one for each decision."""


class RecordingLimiter:
    """A `MemoryLimiter` that adds a line of JSON to `file` for each hit: `at_ns`, `key`, `cost` and the five fields.

    A cost of 0 only looks, and is not written down.

    The time is the very one that was decided with. A decision on a bucket that keys share for want of room is marked
    `shared`. Where the file can no longer be written, hits are decided all the same, and `failure` says why.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        quota: Quota,
        file: IO[str],
        clock: Clock = time.monotonic_ns,
        max_keys: int = 1_000_000,
    ) -> None:
        self._clock, self._now = steady(clock), 0
        self._limiter = MemoryLimiter(algorithm, self._read_clock, max_keys)
        self._file = file
        self._lock = Lock()
        self.failure: str | None = None
        """Why recording has ended early; None while it goes on."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        head = {"recording": VERSION, "algorithm": algorithm.name, "rate": quota.rate, "burst": quota.burst}
        self._write({**head, "started": started})

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm that decides."""
        return self._limiter.algorithm

    @property
    def stats(self) -> Stats:
        """Return the counters as they stand."""
        return self._limiter.stats

    def hit(self, key: str, cost: int = 1) -> Decision:
        """Decide as `MemoryLimiter.hit` does, and write it down."""
        with self._lock:
            shared_before = self._limiter.stats.overflow_hits
            decision = self._limiter.hit(key, cost)
            line: dict[str, object] = {"at_ns": self._now, "key": key, "cost": cost, **decision._asdict()}
            if self._limiter.stats.overflow_hits > shared_before:
                line["shared"] = True
            if cost:
                self._write(line)
            return decision

    def flush(self) -> None:
        """Hand what has been written to the system."""
        with self._lock:
            try:
                self._file.flush()
            except (OSError, ValueError) as error:
                self._fail(error)

    def close(self) -> None:
        """Hand over what has been written, and close the file."""
        with self._lock:
            try:
                self._file.close()
            except (OSError, ValueError) as error:
                self._fail(error)

    def _read_clock(self) -> int:
        self._now = self._clock()
        return self._now

    def _write(self, line: dict[str, object]) -> None:
        if self.failure is None:
            try:
                self._file.write(json.dumps(line) + "\n")
            except (OSError, ValueError) as error:
                self._fail(error)

    def _fail(self, error: OSError | ValueError) -> None:
        self.failure = self.failure or (isinstance(error, OSError) and error.strerror) or str(error)
