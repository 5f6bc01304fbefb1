"""A limiter with a fallback for a shared store that fails.

With the fallback `closed`, it raises `StoreError`, to which the HTTP middleware answers 503. A circuit breaker
(`ratelab.stores.circuit_breaker`) decides when the store is down and is no longer called.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from inspect import iscoroutinefunction
from typing import NamedTuple

from ratelab.clock import Clock
from ratelab.errors import InputError, StoreError, short_repr
from ratelab.limiter import AsyncLimiter, Decision, Policy
from ratelab.quota import NS_PER_S
from ratelab.stores.circuit_breaker import MAX_PROBE_INTERVAL_NS, CircuitBreaker, Epoch
from ratelab.stores.memory import MemoryLimiter, Stats, check_cost, check_key, monotonic

ON_STORE_ERROR = {
    "local": "each process enforces the quota by itself",
    "open": "every key is treated as new",
    "closed": "every request is denied",
}
"""The fallbacks for a store that is down, each with its meaning."""

_log = logging.getLogger("ratelab")


class Health(NamedTuple):
    """The state of a store, as seen by a `ResilientLimiter`."""

    up: bool
    """Whether every request calls the store; if not, only probes do."""
    errors: Mapping[str, int]
    """Failed calls of the store by `StoreError.kind`."""
    fallback_decisions: int
    """Requests decided without the store; with `closed`, those rejected because the store was down."""


class ResilientLimiter:
    """Decide by `store`, and by a fallback while the store fails, for the tasks of one event loop.

    `on_store_error` selects the fallback:

    * `local`: a `MemoryLimiter` of at most `max_keys` keys. It is charged for every request that the store admits here,
      so that no client starts an outage with a fresh quota. Other processes decide separately, and the store does not
      learn of local decisions afterwards.
    * `open`: every key is treated as new, so that only a cost above the burst is denied.
    * `closed`: raise the `StoreError`, or one of kind `down` if the store was not called.

    After three consecutive failures the store is down; requests that fail while in flight together count as one. Then
    one request at a time probes it, at most every 500 ms, and its first success brings it back. Requests drive all of
    this, without a timer, thread or task. Call `probe` from time to time in case no requests arrive.

    Raises `InputError` for invalid arguments.
    """

    def __init__(
        self,
        store: AsyncLimiter,
        on_store_error: str = "local",
        clock: Clock = time.monotonic_ns,
        max_keys: int = 1_000_000,
    ) -> None:
        if not iscoroutinefunction(getattr(store, "hit", None)):
            got = short_repr(store)
            raise InputError(f"store must be an asynchronous limiter, such as AsyncValkeyLimiter, got {got}")
        if on_store_error not in ON_STORE_ERROR:
            got = short_repr(on_store_error)
            raise InputError(f"on_store_error must be one of {', '.join(ON_STORE_ERROR)}, got {got}")
        self.on_store_error = on_store_error
        self._store = store
        self._clock = monotonic(clock)
        self._local = MemoryLimiter(store.policy, clock, max_keys)
        self._breaker = CircuitBreaker()
        self._errors = Counter[str]()
        self._fallbacks = 0
        self._fallbacks_before = 0  # the value of `_fallbacks` when the store began to fail

    @property
    def policy(self) -> Policy:
        """The policy that this limiter enforces, in the store and in the fallback."""
        return self._store.policy

    @property
    def health(self) -> Health:
        """The current state of the store."""
        return Health(self._breaker.up, dict(self._errors), self._fallbacks)

    @property
    def stats(self) -> Stats:
        """The counters of the `local` fallback; zero with any other."""
        return self._local.stats

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Decide a request of `cost` by `key` now, and charge it if it is allowed; cost 0 charges nothing.

        Raises `InputError`, and changes nothing, unless `cost` is a whole number >= 0. Raises `StoreError` only with
        the fallback `closed`.
        """
        check_key(key)
        check_cost(cost)
        epoch = self._breaker.begin(self._clock())
        if epoch is None:
            return self._fall_back(key, cost)
        try:
            decision = await self._call_store(epoch, key, cost)
        except StoreError as error:
            return self._fall_back(key, cost, error)
        if decision.allowed and cost and self.on_store_error == "local":
            self._local.hit(key, cost)
        return decision

    @property
    def use_secret(self) -> Callable[[str, bool], None] | None:
        """The store's method of this name, with which it compares secrets of instances; None if it has none."""
        return getattr(self._store, "use_secret", None)

    async def probe(self) -> None:
        """Check whether a store that is down is back, if a probe is due; charge no key."""
        epoch = None if self._breaker.up else self._breaker.begin(self._clock())
        if epoch is not None:
            with suppress(StoreError):
                await self._call_store(epoch, "", 0)

    async def _call_store(self, epoch: Epoch, key: str, cost: int) -> Decision:
        """Return the store's decision, and record the outcome of the call."""
        try:
            decision = await self._store.hit(key, cost)
        except StoreError as error:
            self._record_failure(epoch, error)
            raise
        finally:
            self._breaker.finish(epoch)
        self._record_success(epoch)
        return decision

    def _fall_back(self, key: str, cost: int, error: StoreError | None = None) -> Decision:
        self._fallbacks += 1
        if self.on_store_error == "local":
            return self._local.hit(key, cost)
        if self.on_store_error == "open":
            now = self._clock()
            return Decision(*self.policy.step(self.policy.start(now), now, cost))
        raise error or StoreError("down", "the store is down and was not called", MAX_PROBE_INTERVAL_NS)

    def _record_failure(self, epoch: Epoch, error: StoreError) -> None:
        self._errors[error.kind] += 1
        if not self._breaker.failing:
            self._fallbacks_before = self._fallbacks
        if self._breaker.record_failure(epoch, self._clock()):
            reason, meanwhile = " ".join(str(error).split()), ON_STORE_ERROR[self.on_store_error]
            _log.warning("the store is down (%s: %s); until it is back, %s", error.kind, reason, meanwhile)

    def _record_success(self, epoch: Epoch) -> None:
        since = self._breaker.record_success(epoch)
        if since is not None:
            seconds, count = (self._clock() - since) / NS_PER_S, self._fallbacks - self._fallbacks_before
            outcome = "rejected because the store was down" if self.on_store_error == "closed" else "decided without it"
            _log.warning("the store is back after %.1f s; requests %s: %d", seconds, outcome, count)
