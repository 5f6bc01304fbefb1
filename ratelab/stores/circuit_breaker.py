"""A circuit breaker as a pure state machine: callers pass in the time and report the outcome of each call.

`ratelab.stores.outages` asks it before each call of a store, which is skipped if it is not allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import ref

from ratelab.quota import NS_PER_S

MAX_FAILURES = 3
"""Consecutive failures that open the circuit; calls that fail while in flight together count as one."""

MIN_PROBE_INTERVAL_NS = NS_PER_S // 2
"""Time from opening the circuit to the first probe, and at least from one probe to the next."""

MAX_PROBE_INTERVAL_NS = NS_PER_S
"""Time from a failed probe to the next one."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class Epoch:
    """The time between two changes of state, or one probe; outcomes of calls that began earlier are ignored."""

    down_since: int | None = None
    failures: int = 0
    """Consecutive failures before this epoch."""
    next_probe: int = 0


class CircuitBreaker:
    """Allow all calls to a store that is up, and one probe at a time to a store that is down: a pure state machine.

    Every call begins with `begin`, reports `record_success` or `record_failure` unless it was cancelled, and ends with
    `finish`. A success resets the count of failures. Calls that fail while in flight together count as one failure,
    since one lost connection fails them all. `now` must not decrease.
    """

    def __init__(self) -> None:
        self.epoch = Epoch()
        """The current epoch; while the store is up, calls may begin in it without `begin`."""
        self._probe: ref[Epoch] | None = None  # weak: a probe also ends with the only caller that holds it

    @property
    def up(self) -> bool:
        """Whether the circuit is closed, so that every call is allowed."""
        return self.epoch.down_since is None

    @property
    def failing(self) -> bool:
        """Whether the latest known outcome is a failure."""
        return self.epoch.failures > 0 or not self.up

    def begin(self, now: int) -> Epoch | None:
        """Return the epoch in which a call begins, or None if the call is not allowed.

        While the store is down, the first caller after `next_probe` gets the probe.
        """
        epoch = self.epoch
        if epoch.down_since is None:
            return epoch
        if self._find_probe() is not None or now < epoch.next_probe:
            return None
        epoch.next_probe = now + MIN_PROBE_INTERVAL_NS
        probe = Epoch(epoch.down_since)
        self._probe = ref(probe)
        return probe

    def record_failure(self, epoch: Epoch, now: int) -> bool:
        """Record that a call failed; return whether this failure opened the circuit."""
        if not self._is_current(epoch):
            return False
        if epoch.down_since is not None:
            self.epoch.next_probe = now + MAX_PROBE_INTERVAL_NS
            return False
        failures = epoch.failures + 1
        opens = failures >= MAX_FAILURES
        self.epoch = Epoch(now, next_probe=now + MIN_PROBE_INTERVAL_NS) if opens else Epoch(failures=failures)
        return opens

    def record_success(self, epoch: Epoch) -> int | None:
        """Record that a call succeeded; if this closed the circuit, return when it had opened."""
        if not self._is_current(epoch):
            return None
        if epoch.failures or epoch.down_since is not None:
            self.epoch, self._probe = Epoch(), None
        return epoch.down_since

    def finish(self, epoch: Epoch) -> None:
        """Record that a call is over, even if it was cancelled."""
        if epoch is self._find_probe():
            self._probe = None

    def _find_probe(self) -> Epoch | None:
        return None if self._probe is None else self._probe()

    def _is_current(self, epoch: Epoch) -> bool:
        return epoch is self.epoch or epoch is self._find_probe()
