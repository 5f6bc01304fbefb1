"""Limiters with a fallback for a shared store that fails.

With the fallback `closed`, they raise `StoreError`, to which the HTTP doors answer 503. A circuit breaker
(`ratelab.stores.circuit_breaker`) decides when the store is down and is no longer called.
"""

from __future__ import annotations

from inspect import iscoroutinefunction

from ratelab.clock import Clock
from ratelab.errors import InputError, StoreError, short_repr
from ratelab.limiter import Admission, AsyncLimiter, Costs, Decision, Keys, Limiter
from ratelab.stores.resilient_base import BaseResilientLimiter, run_now
from ratelab.stores.tickets import DEFAULT_DEADLINE_S, AsyncTicket, Ticket


class ResilientLimiter(BaseResilientLimiter):
    """Decide by `store`, and by a fallback while the store fails, for the tasks of one event loop.

    `on_store_error` selects the fallback:

    * `local`: a `MemoryLimiter` of at most `max_keys` keys. It is charged for every request that the store admits here,
      so that no client starts an outage with a fresh quota. Other processes decide separately, and the store does not
      learn of local decisions afterwards.
    * `open`: every key is treated as new, so that only a cost above the burst is denied.
    * `closed`: raise the `StoreError`, or one of kind `down` if the store was not called.

    After three consecutive failures the store is down; requests that fail while in flight together count as one. Then
    one request at a time probes it, at most every 500 ms, and the first success brings it back. Requests drive all of
    this, without a timer, thread or task. Call `probe` from time to time in case no requests arrive.

    A store with the method `probe`, such as `AsyncValkeyLimiter`, is probed by that, which has it write a key. One with
    the method `node_of` consists of several nodes; each fails for its own keys alone. An error of kind `overload` is
    not a failure of the store.

    Raises `InputError` for invalid arguments.
    """

    blocking = False

    def __init__(
        self,
        store: AsyncLimiter,
        on_store_error: str = "local",
        clock: Clock | None = None,
        max_keys: int = 1_000_000,
    ) -> None:
        if not iscoroutinefunction(getattr(store, "hit", None)):
            got = short_repr(store)
            raise InputError(f"store must be an asynchronous limiter, such as AsyncValkeyLimiter, got {got}")
        super().__init__(store, on_store_error, clock, max_keys)

    async def hit(self, key: Keys, cost: Costs = 1, plan: str | None = None) -> Decision:
        """Decide a request of `cost` by `key` now, and charge it if it is allowed; cost 0 charges nothing.

        Raises `InputError`, and changes nothing, for an invalid key, cost or plan. Raises `StoreError` only with the
        fallback `closed`.
        """
        try:
            return await self._ask("hit", key, cost, plan)  # type: ignore[no-any-return]
        except StoreError as error:
            return self._fall_back(error, "hit", key, cost, plan)  # type: ignore[no-any-return]

    async def wait(self, key: Keys, cost: Costs = 1, timeout: float | None = None, plan: str | None = None) -> Decision:
        """Wait as `ValkeyLimiter.wait` does, for the store or the fallback, whichever decides at the time."""
        return await self.waiting.wait_async(self, key, cost, timeout, plan)

    async def hit_each(
        self, key: Keys, cost: Costs = 1, plan: str | None = None
    ) -> tuple[Decision, tuple[Decision, ...]]:
        """Decide as `hit` does; also return the decision of each policy that was asked, in their order."""
        try:
            return await self._ask("hit_each", key, cost, plan)  # type: ignore[no-any-return]
        except StoreError as error:
            return self._fall_back(error, "hit_each", key, cost, plan)  # type: ignore[no-any-return]

    async def look(self, key: Keys, plan: str | None = None) -> dict[str, Decision]:
        """Look at a key as `MemoryLimiter.look` does; while the store is down, at the fallback `local`."""
        return await self._look(key, plan)

    async def reserve(
        self, key: Keys, cost: Costs = 1, plan: str | None = None, deadline: float = DEFAULT_DEADLINE_S
    ) -> AsyncTicket:
        """Decide a request whose cost is known only afterwards, and charge `cost` if it is allowed.

        The ticket returns False if the store does not confirm its settlement; with the fallback `closed`, it raises
        `StoreError`. The cost in the store is then the reserved or the actual one.
        """
        return AsyncTicket(*await self._reserve(key, cost, plan, deadline))

    async def refund(self, key: Keys, cost: Costs = 1) -> bool:
        """Return `cost` to the quotas of `key`, in the store and in the fallback; return whether the store confirms it.

        Raises `StoreError` if it does not with the fallback `closed`, and `InputError` if it has no method `refund`.
        """
        return await self._refund(key, cost)

    async def reset(self, key: Keys) -> None:
        """Restore the full quota of `key`, in the store and in the fallback.

        Raises `StoreError` unless the store confirms it, and `InputError` if the store has no method `reset`.
        """
        await self._reset(key)

    async def probe(self) -> None:
        """Check whether a store that is down is back, if a probe is due; charge no key."""
        await self._probe()


class BlockingResilientLimiter(BaseResilientLimiter):
    """Decide as `ResilientLimiter` does, by a store that blocks, such as `ValkeyLimiter`, for threads.

    Of several threads, one at a time probes a store that is down; meanwhile, the others are decided by the fallback.

    Raises `InputError` for invalid arguments.
    """

    blocking = True

    def __init__(
        self,
        store: Limiter,
        on_store_error: str = "local",
        clock: Clock | None = None,
        max_keys: int = 1_000_000,
    ) -> None:
        hit = getattr(store, "hit", None)
        if not callable(hit) or iscoroutinefunction(hit):
            raise InputError(f"store must be a limiter that blocks, such as ValkeyLimiter, got {short_repr(store)}")
        super().__init__(store, on_store_error, clock, max_keys)

    def hit(self, key: Keys, cost: Costs = 1, plan: str | None = None) -> Decision:
        """Decide as `ResilientLimiter.hit` does."""
        try:
            return run_now(self._ask("hit", key, cost, plan))  # type: ignore[no-any-return]
        except StoreError as error:
            return self._fall_back(error, "hit", key, cost, plan)  # type: ignore[no-any-return]

    def wait(self, key: Keys, cost: Costs = 1, timeout: float | None = None, plan: str | None = None) -> Admission:
        """Wait as `ResilientLimiter.wait` does; in a task, threads call the store."""
        return self.waiting.wait(self, key, cost, timeout, plan)

    def hit_each(self, key: Keys, cost: Costs = 1, plan: str | None = None) -> tuple[Decision, tuple[Decision, ...]]:
        """Decide as `hit` does; also return the decision of each policy that was asked, in their order."""
        try:
            return run_now(self._ask("hit_each", key, cost, plan))  # type: ignore[no-any-return]
        except StoreError as error:
            return self._fall_back(error, "hit_each", key, cost, plan)  # type: ignore[no-any-return]

    def look(self, key: Keys, plan: str | None = None) -> dict[str, Decision]:
        """Look at a key as `ResilientLimiter.look` does."""
        return run_now(self._look(key, plan))

    def reserve(
        self, key: Keys, cost: Costs = 1, plan: str | None = None, deadline: float = DEFAULT_DEADLINE_S
    ) -> Ticket:
        """Decide as `ResilientLimiter.reserve` does, and return a ticket that blocks."""
        reservation, charge = run_now(self._reserve(key, cost, plan, deadline))
        return Ticket(reservation, lambda changes: run_now(charge(changes)))

    def refund(self, key: Keys, cost: Costs = 1) -> bool:
        """Return `cost` to the quotas of `key`, as `ResilientLimiter.refund` does."""
        return run_now(self._refund(key, cost))

    def reset(self, key: Keys) -> None:
        """Restore the full quota of `key`, as `ResilientLimiter.reset` does."""
        run_now(self._reset(key))

    def probe(self) -> None:
        """Check whether a store that is down is back, as `ResilientLimiter.probe` does."""
        run_now(self._probe())
