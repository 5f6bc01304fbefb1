"""A circuit breaker as a pure state machine: callers pass in the time and report the outcome of each call.

`ratelab.stores.resilient` asks it before each call of a store, and uses the fallback if the call is not allowed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ratelab.errors import StoreError
from ratelab.quota import NS_PER_S

MAX_FAILURES = 3
"""Consecutive failures that open the circuit; calls that fail while in flight together count as one."""

MIN_PROBE_INTERVAL_NS = NS_PER_S // 2
"""Time from opening the circuit to the first probe, and at least from one probe to the next."""

MAX_PROBE_INTERVAL_NS = NS_PER_S
"""Time from a failed probe to the next one."""


WRITE_ERRORS = {"readonly", "full", "refused", "misconfigured"}
"""Kinds of errors that do not concern hits that only read: a decision that wrote nothing does not disprove them."""


@dataclass(slots=True)
class Epoch:
    """The time between two changes of state; outcomes of calls that began in an earlier epoch are ignored."""

    down_since: int | None = None
    failures: int = 0
    """Consecutive failures before this epoch."""
    next_probe: int = 0
    probing: bool = False


class CircuitBreaker:
    """Allow all calls to a store that is up, and one probe at a time to a store that is down: a pure state machine.

    Every call begins with `begin`, reports `record_success` or `record_failure` unless it was cancelled, and ends with
    `finish`. A success resets the count of failures. Calls that fail while in flight together count as one failure,
    since one lost connection fails them all. `now` must not decrease.
    """

    def __init__(self) -> None:
        self.epoch = Epoch()
        """The current epoch; while the store is up, calls may begin in it without `begin`."""

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
        if epoch.down_since is not None:
            if epoch.probing or now < epoch.next_probe:
                return None
            epoch.probing, epoch.next_probe = True, now + MIN_PROBE_INTERVAL_NS
        return epoch

    def record_failure(self, epoch: Epoch, now: int) -> bool:
        """Record that a call failed; return whether this failure opened the circuit."""
        if epoch is not self.epoch:
            return False
        if epoch.down_since is not None:
            epoch.next_probe = now + MAX_PROBE_INTERVAL_NS
            return False
        failures = epoch.failures + 1
        opens = failures >= MAX_FAILURES
        self.epoch = Epoch(now, next_probe=now + MIN_PROBE_INTERVAL_NS) if opens else Epoch(failures=failures)
        return opens

    def record_success(self, epoch: Epoch) -> int | None:
        """Record that a call succeeded; if this closed the circuit, return when it had opened."""
        if epoch is not self.epoch:
            return None
        if epoch.failures or epoch.down_since is not None:
            self.epoch = Epoch()
        return epoch.down_since

    def finish(self, epoch: Epoch) -> None:
        """Record that a call is over, even if it was cancelled."""
        epoch.probing = False


@dataclass(slots=True)
class Node:
    """A server of the store: its circuit breaker and its latest failure."""

    name: Hashable
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    failure: str = ""
    """The kind of the latest failure."""
    fallbacks: int = 0
    """Requests decided without the node since it began to fail."""

    def __str__(self) -> str:
        return f"node {':'.join(map(str, self.name))} of the store" if isinstance(self.name, tuple) else "the store"


class Health(NamedTuple):
    """The state of a store, as seen by a `ResilientLimiter`."""

    up: bool
    """Whether every request calls the store; if not, only probes do."""
    errors: Mapping[str, int]
    """Failed calls of the store by `StoreError.kind`."""
    fallback_decisions: int
    """Requests decided without the store; with `closed`, those rejected because the store was down."""


def create_down_error() -> StoreError:
    """Return the error of a store that was not called."""
    return StoreError("down", "the store is down and was not called", MAX_PROBE_INTERVAL_NS)
