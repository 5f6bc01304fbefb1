"""Limiters with a fallback for a shared store that fails.

With the fallback `closed`, they raise `StoreError`, to which the HTTP doors answer 503. A circuit breaker
(`ratelab.stores.circuit_breaker`) decides when the store is down and is no longer called.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, ClassVar

from ratelab.algorithms import Policy
from ratelab.clock import Clock, monotonic
from ratelab.errors import InputError, StoreError, short_repr
from ratelab.limiter import AsyncLimiter, Costs, Decision, Keys, Limiter
from ratelab.stores.arguments import default_clock, name_costs, name_keys, refuse_pickling
from ratelab.stores.circuit_breaker import Epoch
from ratelab.stores.fallback import Fallback, check_on_store_error
from ratelab.stores.fork import reset_in_children
from ratelab.stores.key_table import Stats
from ratelab.stores.memory import MemoryLimiter
from ratelab.stores.outages import Health, Node, Outages, create_down_error
from ratelab.stores.plans import Plans, Preparation, QuotaChanges
from ratelab.stores.tickets import DEFAULT_DEADLINE_S, AsyncTicket, Changes, Reservation, Ticket, check_deadline
from ratelab.stores.waiting import Waiting


class BaseResilientLimiter:
    """The parts that do not depend on whether the store blocks; coroutines of one that does wait for nothing."""

    blocking: ClassVar[bool]

    def __init__(self, store: AsyncLimiter | Limiter, on_store_error: str, clock: Clock | None, max_keys: int) -> None:
        check_on_store_error(on_store_error)
        self.on_store_error = on_store_error
        self._store = store
        self._clock = default_clock(store.policies) if clock is None else monotonic(clock)
        plans: Plans = getattr(store, "plans", None) or Plans(store.policies)
        others: dict[str, Any] = {"plans": plans.plans, "overrides": plans.overrides} if plans.may_change else {}
        self._local = MemoryLimiter(store.policies, clock, max_keys, **others)
        self._fallback = Fallback(on_store_error, self._local, self._clock)
        self._outages = Outages(self._clock, self._fallback.choose)
        self._node_of: Callable[[Keys], Hashable] = getattr(store, "node_of", lambda _: None)
        self._probe_node: Callable[[Hashable], Any] | None = getattr(store, "probe", None)
        self.on_update: Callable[[Preparation], None] = getattr(store, "on_update", self._local.on_update)
        """Call a method before each `update`, as `MemoryLimiter.on_update` does."""
        self.on_update(self._follow)
        self.waiting = Waiting(clock)
        reset_in_children(self)

    __reduce__ = refuse_pickling

    @property
    def policy(self) -> Policy:
        """The first of the policies."""
        return self._store.policy

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies that this limiter enforces together, in the store and in the fallback."""
        return self._store.policies

    @property
    def plans(self) -> Plans:
        """The policies in force, with their quotas by plan and by key."""
        return self._local.plans

    @property
    def health(self) -> Health:
        """The current state of the store."""
        return self._outages.health

    @property
    def stats(self) -> Stats:
        """The counters of the `local` fallback; zero with any other."""
        return self._local.stats

    @property
    def use_secret(self) -> Callable[[str, bool], None] | None:
        """The store's method of this name, with which it compares secrets of instances; None if it has none."""
        return getattr(self._store, "use_secret", None)

    def update(
        self,
        policies: Policy | Sequence[Policy] | None = None,
        *,
        plans: Mapping[str, QuotaChanges] | None = None,
        overrides: Mapping[str, QuotaChanges] | None = None,
    ) -> None:
        """Replace the policies, plans or overrides, each if it is given, in the store and in the fallback.

        Raises `InputError`, and changes nothing, if one of them rejects a policy.
        """
        update, before = self._method("update"), self._local.plans
        self._local.update(policies, plans=plans, overrides=overrides)
        try:
            update(policies, plans=plans, overrides=overrides)
        except InputError:
            self._local.update(before.policies, plans=before.plans, overrides=before.overrides)
            raise

    def _follow(self, plans: Plans) -> Callable[[], object]:
        update = partial(self._local.update, plans.policies, plans=plans.plans, overrides=plans.overrides)
        return lambda: self._local.plans == plans or update()

    def reset_after_fork(self) -> None:
        """Forget the outages: their probes, which are in flight, belong to the parent process."""
        self._outages.forget()

    def close(self) -> None:
        """Close the connections of the store, if it has any."""
        close = getattr(self._store, "close", None)
        if close is not None:
            close()

    def _method(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] | None = getattr(self._store, name, None)
        if method is None:
            better = "ValkeyLimiter" if self.blocking else "AsyncValkeyLimiter"
            raise InputError(f"{type(self._store).__name__} has no {name}: use a store such as {better}")
        return method

    async def _ask(self, method: str, key: Keys, cost: Costs, plan: str | None, **options: object) -> Any:
        """Return the result of a method of the store, and charge the fallback for a request that it admits.

        Raises `StoreError` if the store fails, and the error `down` if it is not called.
        """
        if type(key) is str and type(cost) is int and cost >= 0:
            charged = cost > 0
        else:
            name_keys(self.policies, key)
            charged = any(name_costs(self.policies, cost).values())
        if plan is not None:
            self._local.plans.check_plan(plan)
            options["plan"] = plan
        decide = partial(self._method(method), key, cost, **options)
        node = self._outages.nodes[self._node_of(key)]
        epoch = node.breaker.epoch
        if epoch.down_since is not None:
            epoch = self._outages.begin(node)
            if self._probe_node is not None:
                await self._call(node, epoch, partial(self._probe_node, node.name))
                epoch = self._outages.begin(node)
        result = await self._call(node, epoch, decide, charged)
        if charged and _is_allowed(result) and method != "reserve" and self.on_store_error == "local":
            self._local.hit(key, cost, plan)  # so that no client starts an outage with a fresh quota
        return result

    def _fall_back(
        self, error: StoreError, method: str, key: Keys, cost: Costs, plan: str | None, **options: object
    ) -> Any:
        """Return the result of a method of the fallback; raise `error` if that is `closed`."""
        self._outages.count_fallback(self._outages.nodes[self._node_of(key)])
        return self._fallback.decide(error, method, key, cost, plan, **options)

    async def _look(self, key: Keys, plan: str | None) -> dict[str, Decision]:
        try:
            if not self.health.up:
                raise create_down_error()
            decisions: dict[str, Decision] = await self._wait_for(self._method("look")(key, plan))
        except StoreError:
            if self.on_store_error != "local":
                raise
            return self._local.look(key, plan)
        return decisions

    async def _reserve(
        self, key: Keys, cost: Costs, plan: str | None, deadline: float
    ) -> tuple[Reservation, Callable[[Changes], Coroutine[Any, Any, bool]]]:
        """Return a reservation, and the function that charges what its settlement changes."""
        check_deadline(deadline)
        ticket: Ticket | AsyncTicket
        local: Ticket | None = None
        try:
            ticket = await self._ask("reserve", key, cost, plan, deadline=deadline)
        except StoreError as error:
            ticket = local = self._fall_back(error, "reserve", key, cost, plan, deadline=deadline)
        is_stored = local is None
        if is_stored and ticket.allowed and self.on_store_error == "local":
            local = self._local.reserve(key, cost, plan, deadline)

        async def charge(changes: Changes) -> bool:
            actual = {name: ticket.reserved[name] + change for name, change in changes.items()}
            if local is not None:
                local.settle({name: one for name, one in actual.items() if name in local.reserved})
            with reservation.retrying():
                return not is_stored or await self._confirm(key, partial(ticket.settle, actual))

        reservation = Reservation(ticket.decision, ticket.reserved, deadline, self._clock)
        return reservation, charge

    async def _refund(self, key: Keys, cost: Costs) -> bool:
        refund_in_store = self._method("refund")
        self._local.refund(key, cost)
        return await self._confirm(key, partial(refund_in_store, key, cost))

    async def _reset(self, key: Keys) -> None:
        reset_in_store = self._method("reset")
        self._local.reset(key)
        await self._wait_for(reset_in_store(key))

    async def _probe(self) -> None:
        for node in [*self._outages.nodes.values()]:
            if not node.breaker.up:
                call = partial(self._store.hit, "", 0)
                if self._probe_node is not None:
                    call = partial(self._probe_node, node.name)
                with suppress(StoreError):
                    await self._call(node, self._outages.begin(node), call)

    async def _confirm(self, key: Keys, call: Callable[[], Any]) -> bool:
        """Call the store if it is up; return whether it did its part, or raise `StoreError` if it fails closed."""
        node = self._outages.nodes[self._node_of(key)]
        try:
            return await self._call(node, self._outages.begin(node), call) is not False
        except StoreError:
            if self._fallback.choose(name_keys(self.policies, key)) == "closed":
                raise
            return False

    async def _call(self, node: Node, epoch: Epoch, call: Callable[[], Any], charged: bool = False) -> Any:
        """Return the result of a call of the store, and record its outcome."""
        try:
            result = call()
            if not self.blocking:
                result = await result
            current = node.breaker.epoch
            if current.failures or current.down_since is not None:
                wrote = charged and _is_allowed(result) if isinstance(result, (tuple, Ticket, AsyncTicket)) else True
                self._outages.record_success(node, epoch, wrote)
        except StoreError as error:
            self._outages.record_failure(node, epoch, error)
            raise
        finally:
            if epoch.down_since is not None:
                node.breaker.finish(epoch)
        return result

    async def _wait_for(self, result: Any) -> Any:
        """Return a result of the store, after awaiting it unless the store blocks."""
        return result if self.blocking else await result


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


def _is_allowed(result: Any) -> bool:
    """Return whether a decision, with those of the policies or with a ticket, admits the request."""
    allowed: bool = result[0].allowed if type(result) is tuple else result.allowed
    return allowed
