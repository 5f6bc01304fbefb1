"""Outages of a store: the servers that are down, the failed calls, and one log line for each change."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ratelab.clock import Clock
from ratelab.errors import StoreError
from ratelab.quota import NS_PER_S
from ratelab.stores.circuit_breaker import MAX_PROBE_INTERVAL_NS, CircuitBreaker, Epoch
from ratelab.stores.fallback import ON_STORE_ERROR
from ratelab.stores.key_table import ReentrantLock

WRITE_ERRORS = {"readonly", "full", "refused", "misconfigured"}
"""Kinds of errors that do not concern hits that only read: a decision that wrote nothing does not disprove them."""

_log = logging.getLogger("ratelab")


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


class Nodes(dict[Hashable, Node]):
    """The nodes of a store that were called, by name."""

    def __missing__(self, name: Hashable) -> Node:
        """Return the node of a new name."""
        return self.setdefault(name, Node(name))


class Health(NamedTuple):
    """The state of a store, as seen by a resilient limiter."""

    up: bool
    """Whether every request calls the store; if not, only probes do."""
    errors: Mapping[str, int]
    """Failed calls of the store by `StoreError.kind`."""
    fallback_decisions: int
    """Requests decided without the store; with `closed`, those rejected because the store was down."""


def create_down_error() -> StoreError:
    """Return the error of a store that was not called."""
    return StoreError("down", "the store is down and was not called", MAX_PROBE_INTERVAL_NS)


class Outages:
    """The nodes of a store, which fail one by one, for threads and tasks.

    `choose_fallback` returns the fallback that applies to all policies together, which log lines describe.
    """

    def __init__(self, clock: Clock, choose_fallback: Callable[[], str]) -> None:
        self._clock = clock
        self._choose_fallback = choose_fallback
        self.nodes = Nodes()
        self._errors = Counter[str]()
        self._fallbacks = 0
        self._lock = ReentrantLock()  # for all changes; while the store is up, hits only read

    @property
    def health(self) -> Health:
        """The current state of the store."""
        up = all(node.breaker.up for node in [*self.nodes.values()])
        return Health(up, self._errors.copy(), self._fallbacks)

    def begin(self, node: Node) -> Epoch:
        """Return the epoch in which a call of a node begins; raise the error `down` if it may not be called."""
        epoch = node.breaker.epoch
        if epoch.down_since is None:
            return epoch
        probe = self._lock.call(self._begin, node)
        if probe is None:
            raise create_down_error()
        return probe

    def _begin(self, nested: bool, node: Node) -> Epoch | None:  # noqa: ARG002  (the signature of `ReentrantLock.call`)
        return node.breaker.begin(self._clock())

    def count_fallback(self, node: Node) -> None:
        """Count a request that is decided without a node."""
        self._lock.call(self._count_fallback, node)

    def _count_fallback(self, nested: bool, node: Node) -> None:  # noqa: ARG002
        self._fallbacks += 1
        node.fallbacks += 1

    def record_failure(self, node: Node, epoch: Epoch, error: StoreError) -> None:
        """Record that a call of a node failed; log it if the node is down from now on."""
        if self._lock.call(self._record_failure, node, epoch, error):
            reason, meanwhile = " ".join(str(error).split()), ON_STORE_ERROR[self._choose_fallback()]
            _log.warning("%s is down (%s: %s); meanwhile, %s", node, error.kind, reason, meanwhile)

    def _record_failure(self, nested: bool, node: Node, epoch: Epoch, error: StoreError) -> bool:  # noqa: ARG002
        self._errors[error.kind] += 1
        if error.kind == "overload":
            return False
        if not node.breaker.failing:
            node.fallbacks = 0
        node.failure = error.kind
        return node.breaker.record_failure(epoch, self._clock())

    def record_success(self, node: Node, epoch: Epoch, wrote: bool) -> None:
        """Record that a call of a node succeeded, and whether it wrote; log it if that ends an outage."""
        since = self._lock.call(self._record_success, node, epoch, wrote)
        if since is not None:
            seconds = (self._clock() - since) / NS_PER_S
            rejected = self._choose_fallback() == "closed"
            outcome = "rejected because the store was down" if rejected else "decided without it"
            _log.warning("%s is back after %.1f s; requests %s: %d", node, seconds, outcome, node.fallbacks)

    def _record_success(self, nested: bool, node: Node, epoch: Epoch, wrote: bool) -> int | None:  # noqa: ARG002
        if wrote or node.failure not in WRITE_ERRORS:
            return node.breaker.record_success(epoch)
        return None

    def forget(self) -> None:
        """Forget the outages."""
        self.nodes.clear()
