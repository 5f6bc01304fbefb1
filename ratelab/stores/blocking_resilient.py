"""The limiter with a fallback for a shared store that blocks."""

from __future__ import annotations

from collections.abc import Coroutine
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from ratelab.clock import Clock
from ratelab.errors import InputError, StoreError, short_repr
from ratelab.limiter import Admission, Costs, Decision, Keys, Limiter
from ratelab.stores.resilient import BaseResilientLimiter
from ratelab.stores.tickets import DEFAULT_DEADLINE_S, Ticket

T = TypeVar("T")


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing; raise `InputError` if it does."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise InputError("a call that blocks a thread cannot await a limiter or a function: use those that block")


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
