"""A limiter that records its decisions as JSON lines, so that a replay can check them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from threading import Lock
from typing import IO

from ratelab.clock import Clock
from ratelab.limiter import Decision, Policy
from ratelab.stores.memory import MemoryLimiter, Stats, monotonic

FORMAT_VERSION = 1
"""A recording is a header line with the quota, then a line for each decision."""


class RecordingLimiter:
    """A `MemoryLimiter` that writes a JSON line to `file` for each hit: `at_ns`, `key`, `cost` and the decision.

    `at_ns` is the time that the decision was based on. Hits of cost 0 charge nothing and are not recorded. Decisions by
    an overflow bucket are marked `shared`. If writing fails, recording ends, `failure` holds the reason, and hits are
    still decided.
    """

    def __init__(
        self,
        policy: Policy,
        file: IO[str],
        clock: Clock = time.monotonic_ns,
        max_keys: int = 1_000_000,
    ) -> None:
        self._clock, self._now = monotonic(clock), 0
        self._limiter = MemoryLimiter(policy, self._read_clock, max_keys)
        self._file = file
        self._lock = Lock()
        self.failure: str | None = None
        """Why recording ended early; None while it continues."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        quota = policy.quota
        header = {"recording": FORMAT_VERSION, "algorithm": policy.algorithm.name}
        header |= {"rate": quota.rate, "burst": quota.burst}
        self._write({**header, "started": started})

    @property
    def policy(self) -> Policy:
        """The policy that this limiter enforces."""
        return self._limiter.policy

    @property
    def stats(self) -> Stats:
        """The current counters."""
        return self._limiter.stats

    def hit(self, key: str, cost: int = 1) -> Decision:
        """Decide as `MemoryLimiter.hit` does, and record the decision."""
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
        """Flush the file."""
        with self._lock:
            try:
                self._file.flush()
            except (OSError, ValueError) as error:
                self._fail(error)

    def close(self) -> None:
        """Close the file."""
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
