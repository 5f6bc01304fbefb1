"""A limiter that records its decisions as JSON lines, so that a replay can check them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from operator import itemgetter
from threading import RLock
from typing import IO, Any

from ratelab.algorithms import Policy
from ratelab.algorithms.penalty import Penalized
from ratelab.clock import Clock
from ratelab.limiter import ROW_FIELDS, Costs, Decision, Keys
from ratelab.stores.arguments import refuse_pickling
from ratelab.stores.fork import reset_in_children
from ratelab.stores.key_table import Stats
from ratelab.stores.memory import MemoryLimiter

FORMAT_VERSION = 1
"""A recording is a header line with the quota, then a line for each decision."""


SEVERAL_VERSION = 2
"""The version of a recording of several policies."""


def _describe(policy: Policy) -> dict[str, object]:
    """Return the algorithm, the quota and the penalty of a policy."""
    quota = policy.quota
    described: dict[str, object] = {"algorithm": policy.algorithm.name, "rate": quota.rate, "burst": quota.burst}
    if quota.calendar is not None:
        described["timezone"] = quota.calendar.timezone
    if isinstance(policy.algorithm, Penalized):
        described["penalty"] = policy.algorithm.penalty.spell()
    return described


class Reading:
    """The last reading of the clock by one hit, on which its decision is based."""

    def __init__(self) -> None:
        self.at_ns = 0
        self.number = 0
        """Its place in the order of all readings, which orders those of one time."""
        self.shared = False
        """Whether an overflow bucket decided the hit."""


class ObservedLimiter(MemoryLimiter):
    """A `MemoryLimiter` that notes the reading of each hit."""

    def __init__(self, policies: Policy | Sequence[Policy], clock: Clock | None, max_keys: int) -> None:
        self.reading: Reading | None = None
        """That of the current hit."""
        self._readings = count()
        super().__init__(policies, clock, max_keys)

    def choose_clock(self, clock: Clock | None) -> Clock:
        """Return a clock that notes every reading."""
        read = super().choose_clock(clock)

        def read_and_note() -> int:
            now = read()
            if self.reading is not None:
                self.reading.at_ns, self.reading.number = now, next(self._readings)
            return now

        return read_and_note

    def note_shared(self) -> None:
        """Note that the hit is decided by its overflow bucket."""
        if self.reading is not None:
            self.reading.shared = True


class RecordingLimiter:
    """A `MemoryLimiter` that writes a JSON line to `file` for each hit: `at_ns`, `key`, `cost` and the decision.

    `at_ns` is the time that the decision was based on. Hits of cost 0 charge nothing and are not recorded. Decisions by
    an overflow bucket are marked `shared`. If writing fails, recording ends, `failure` holds the reason, and hits are
    still decided. A hit that an exception interrupts may be missing. A forked child process records nothing.

    With several policies, a line also has `bound_by`, `shadow`, and in `policies` the decision of each. Replays do not
    read such a recording, which is one of version 2.
    """

    def __init__(
        self,
        policies: Policy | Sequence[Policy],
        file: IO[str],
        clock: Clock | None = None,
        max_keys: int = 1_000_000,
    ) -> None:
        self._limiter = ObservedLimiter(policies, clock, max_keys)
        self._file = file
        self._lock: Any = RLock()
        # Lines of the hits within the current one, and their order.
        self._lines: list[tuple[tuple[int, int], dict[str, object]]] = []
        reset_in_children(self)
        self.failure: str | None = None
        """Why recording ended early; None while it continues."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        described = [_describe(one) for one in self.policies]
        header: dict[str, object] = {"recording": FORMAT_VERSION, **described[0]}
        if len(described) > 1:
            names = [policy.name for policy in self.policies]
            header = {"recording": SEVERAL_VERSION, "policies": dict(zip(names, described, strict=True))}
        self._write({**header, "started": started})

    @property
    def policy(self) -> Policy:
        """The first of the policies."""
        return self._limiter.policy

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies that this limiter enforces together."""
        return self._limiter.policies

    @property
    def stats(self) -> Stats:
        """The current counters."""
        return self._limiter.stats

    __reduce__ = refuse_pickling

    def reset_after_fork(self) -> None:
        """Replace the lock, which no thread of this process will release, and stop recording.

        The file's buffer holds lines of the parent process, which writes them: in this process, they go nowhere.
        """
        if not self._lock._is_owned():
            self._lock = RLock()
        self.failure = self.failure or "a forked process does not record"
        with suppress(OSError, ValueError):  # a closed file, or one in memory
            descriptor = self._file.fileno()
            if descriptor > 2:  # not a standard stream
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor, inheritable=False)
                os.close(null)

    def hit(self, key: Keys, cost: Costs = 1) -> Decision:
        """Decide as `MemoryLimiter.hit` does, and record the decision."""
        return self.hit_each(key, cost)[0]

    def hit_each(self, key: Keys, cost: Costs = 1) -> tuple[Decision, tuple[Decision, ...]]:
        """Decide as `MemoryLimiter.hit_each` does, and record the decision."""
        with self._lock:
            limiter, reading = self._limiter, Reading()
            outer = limiter.reading
            try:
                limiter.reading = reading
                decision, each = limiter.hit_each(key, cost)
                line: dict[str, object] = {"at_ns": reading.at_ns, "key": key, "cost": cost}
                line |= zip(ROW_FIELDS, decision, strict=False)
                if len(self.policies) > 1:
                    asked = [policy for policy in self.policies if isinstance(key, str) or policy.name in key]
                    decided = zip(asked, each, strict=True)
                    rows = {policy.name: dict(zip(ROW_FIELDS, one, strict=False)) for policy, one in decided}
                    line |= {"bound_by": decision.bound_by, "shadow": decision.shadow, "policies": rows}
                if reading.shared:
                    line["shared"] = True
                if cost:
                    self._lines.append(((reading.at_ns, reading.number), line))
                return decision, each
            finally:
                limiter.reading = outer
                if outer is None:
                    self._write_lines()

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

    def _write_lines(self) -> None:
        """Write the lines of a hit and of those within it, in the order of their decisions."""
        while self._lines:
            first = min(self._lines, key=itemgetter(0))
            self._lines.remove(first)
            self._write(first[1])

    def _write(self, line: dict[str, object]) -> None:
        if self.failure is None:
            try:
                self._file.write(json.dumps(line) + "\n")
            except (OSError, ValueError) as error:
                self._fail(error)

    def _fail(self, error: OSError | ValueError) -> None:
        self.failure = self.failure or (isinstance(error, OSError) and error.strerror) or str(error)
