"""A limiter that goes on deciding while the store it shares with others does not answer."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from inspect import iscoroutinefunction
from typing import NamedTuple

from ratelab.clock import steady
from ratelab.errors import InputError, StoreError, short_repr
from ratelab.limiter import Algorithm, AsyncLimiter, Clock, Decision
from ratelab.stores.circuit_breaker import LONGEST_PAUSE, Breaker, Spell
from ratelab.stores.memory import MemoryLimiter, Stats, check_cost

ON_STORE_ERROR = {
    "local": "each process by itself holds every key to its quota",
    "open": "every key is let through as if it were new",
    "closed": "every request is refused",
}
"""What may be done without the store, and what that means."""

_log = logging.getLogger("ratelab")


class Health(NamedTuple):
    """What a `ResilientLimiter` has seen of its store."""

    up: bool
    """Whether the store is asked; if not, only now and then, to see whether it is back."""
    errors: Mapping[str, int]
    """How often the store has failed, by the kind of `StoreError`."""
    fallback_decisions: int
    """Requests answered without the store; with `closed`, those refused for want of it."""


class ResilientLimiter:
    """Ask `store`, and answer without it while it fails, for the tasks of one event loop.

    `on_store_error` says how. `local`: a `MemoryLimiter` of at most `max_keys` keys decides, which has been charged
    with what the store let through here, so that nobody starts an outage with a fresh quota; other processes do the
    same, each by itself, and the store is not told afterwards. `open`: every key is decided as one never seen before,
    so that only a cost above the burst is refused. `closed`: the store's `StoreError` is raised, or one of kind `down`
    if the store was not asked.

    After three failures in a row, of which those of requests in flight together are one, the store is down: it is asked
    by one request at a time, at most every 500 ms, and is back as soon as it answers one. Requests drive all this;
    there is no timer, thread or task. Who runs a service calls `probe` now and then, for while nobody comes.

    Raises `InputError` for arguments that cannot be used.
    """

    def __init__(
        self,
        store: AsyncLimiter,
        on_store_error: str = "local",
        clock: Clock = time.monotonic_ns,
        max_keys: int = 1_000_000,
    ) -> None:
        if not iscoroutinefunction(getattr(store, "hit", None)):
            raise InputError(
                f"store must be a limiter to be awaited, such as AsyncValkeyLimiter, got {short_repr(store)}"
            )
        if on_store_error not in ON_STORE_ERROR:
            raise InputError(
                f"on_store_error must be one of {', '.join(ON_STORE_ERROR)}, got {short_repr(on_store_error)}"
            )
        self.on_store_error = on_store_error
        self._store = store
        self._clock = steady(clock)
        self._local = MemoryLimiter(store.algorithm, clock, max_keys)
        self._breaker = Breaker()
        self._errors = Counter[str]()
        self._fallbacks = 0
        self._fallbacks_before = 0  # when the store began to fail

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm that decides, with the store and without it."""
        return self._store.algorithm

    @property
    def health(self) -> Health:
        """Return what has been seen of the store so far."""
        return Health(self._breaker.up, dict(self._errors), self._fallbacks)

    @property
    def stats(self) -> Stats:
        """Return the counters of what is kept in memory; with `local` alone that is anything."""
        return self._local.stats

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Decide a request of `cost` by `key` now, and charge it if it is allowed; cost 0 only looks.

        Raises `InputError`, and changes nothing, if `cost` is not a whole number >= 0, and `StoreError` with `closed`
        alone.
        """
        check_cost(cost)
        spell = self._breaker.begin(self._clock())
        if spell is None:
            return self._without_store(key, cost)
        try:
            decision = await self._ask(spell, key, cost)
        except StoreError as error:
            return self._without_store(key, cost, error)
        if decision.allowed and cost and self.on_store_error == "local":
            self._local.hit(key, cost)
        return decision

    async def probe(self) -> None:
        """Ask a store that is down whether it is back, as a request would do that came now; nobody is charged."""
        spell = None if self._breaker.up else self._breaker.begin(self._clock())
        if spell is not None:
            with suppress(StoreError):
                await self._ask(spell, "", 0)

    async def _ask(self, spell: Spell, key: str, cost: int) -> Decision:
        """Return what the store decides; raise `StoreError`, and take note of it, if it does not."""
        try:
            decision = await self._store.hit(key, cost)
        except StoreError as error:
            self._failed(spell, error)
            raise
        finally:
            self._breaker.end(spell)
        self._succeeded(spell)
        return decision

    def _without_store(self, key: str, cost: int, error: StoreError | None = None) -> Decision:
        self._fallbacks += 1
        if self.on_store_error == "local":
            return self._local.hit(key, cost)
        if self.on_store_error == "open":
            now = self._clock()
            return Decision(*self.algorithm.step(self.algorithm.start(now), now, cost))
        raise error or StoreError("down", "the store is down and has not been asked", LONGEST_PAUSE)

    def _failed(self, spell: Spell, error: StoreError) -> None:
        self._errors[error.kind] += 1
        if not self._breaker.failing:
            self._fallbacks_before = self._fallbacks
        if self._breaker.failed(spell, self._clock()):
            text, meanwhile = " ".join(str(error).split()), ON_STORE_ERROR[self.on_store_error]
            _log.warning("the store is down (%s: %s); until it is back, %s", error.kind, text, meanwhile)

    def _succeeded(self, spell: Spell) -> None:
        since = self._breaker.succeeded(spell)
        if since is not None:
            away, without = (self._clock() - since) / 1e9, self._fallbacks - self._fallbacks_before
            became = "refused for want of it" if self.on_store_error == "closed" else "answered without it"
            _log.warning("the store is back after %.1f s; requests %s: %d", away, became, without)
