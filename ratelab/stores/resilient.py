"""A limiter with a fallback for a shared store that fails.

With the fallback `closed`, it raises `StoreError`, to which the HTTP middleware answers 503. A circuit breaker
(`ratelab.stores.circuit_breaker`) decides when the store is down and is no longer called.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Container, Coroutine, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from ratelab.algorithms import Policy
from ratelab.algorithms.composite import Composite
from ratelab.clock import Clock, monotonic
from ratelab.errors import InputError, StoreError, short_repr
from ratelab.limiter import AsyncLimiter, Costs, Decision, Keys
from ratelab.quota import NS_PER_S
from ratelab.stores.arguments import choose_fallback, default_clock, name_costs, name_keys, refuse_pickling
from ratelab.stores.circuit_breaker import WRITE_ERRORS, Epoch, Health, Node, create_down_error
from ratelab.stores.fork import reset_in_children
from ratelab.stores.key_table import Stats
from ratelab.stores.memory import MemoryLimiter
from ratelab.stores.plans import Plans, Preparation, QuotaChanges
from ratelab.stores.tickets import DEFAULT_DEADLINE_S, AsyncTicket, Changes, Reservation, Ticket, check_deadline

ON_STORE_ERROR = {
    "local": "each process enforces the quota by itself",
    "open": "every key is treated as new",
    "closed": "every request is denied",
}
"""The fallbacks for a store that is down, each with its meaning."""

_T = TypeVar("_T")
_log = logging.getLogger("ratelab")


class ResilientLimiter:
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
        if on_store_error not in ON_STORE_ERROR:
            got = short_repr(on_store_error)
            raise InputError(f"on_store_error must be one of {', '.join(ON_STORE_ERROR)}, got {got}")
        self.on_store_error = on_store_error
        self._store = store
        self._clock = default_clock(store.policies) if clock is None else monotonic(clock)
        plans: Plans = getattr(store, "plans", None) or Plans(store.policies)
        others: dict[str, Any] = {"plans": plans.plans, "overrides": plans.overrides} if plans.may_change else {}
        self._local = MemoryLimiter(store.policies, clock, max_keys, **others)
        self._node_of: Callable[[Keys], Hashable] = getattr(store, "node_of", lambda _: None)
        self._probe_node: Callable[[Hashable], Coroutine[Any, Any, None]] | None = getattr(store, "probe", None)
        self._nodes: dict[Hashable, Node] = {}
        self._errors = Counter[str]()
        self._fallbacks = 0
        self.on_update: Callable[[Preparation], None] = getattr(store, "on_update", self._local.on_update)
        """Call a method before each `update`, as `MemoryLimiter.on_update` does."""
        self.on_update(self._follow)
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
        up = all(node.breaker.up for node in self._nodes.values())
        return Health(up, dict(self._errors), self._fallbacks)

    @property
    def stats(self) -> Stats:
        """The counters of the `local` fallback; zero with any other."""
        return self._local.stats

    async def hit(self, key: Keys, cost: Costs = 1, plan: str | None = None) -> Decision:
        """Decide a request of `cost` by `key` now, and charge it if it is allowed; cost 0 charges nothing.

        Raises `InputError`, and changes nothing, for an invalid key, cost or plan. Raises `StoreError` only with the
        fallback `closed`.
        """
        decision: Decision = await self._decide("hit", key, cost, plan)
        return decision

    async def hit_each(
        self, key: Keys, cost: Costs = 1, plan: str | None = None
    ) -> tuple[Decision, tuple[Decision, ...]]:
        """Decide as `hit` does; also return the decision of each policy that was asked, in their order."""
        decisions: tuple[Decision, tuple[Decision, ...]] = await self._decide("hit_each", key, cost, plan)
        return decisions

    async def look(self, key: Keys, plan: str | None = None) -> dict[str, Decision]:
        """Look at a key as `MemoryLimiter.look` does; while the store is down, at the fallback `local`."""
        try:
            if not self.health.up:
                raise create_down_error()
            decisions: dict[str, Decision] = await self._method("look")(key, plan)
        except StoreError:
            if self.on_store_error != "local":
                raise
            return self._local.look(key, plan)
        return decisions

    async def reserve(
        self, key: Keys, cost: Costs = 1, plan: str | None = None, deadline: float = DEFAULT_DEADLINE_S
    ) -> AsyncTicket:
        """Decide a request whose cost is known only afterwards, and charge `cost` if it is allowed.

        The ticket returns False if the store does not confirm its settlement; with the fallback `closed`, it raises
        `StoreError`. The cost in the store is then the reserved or the actual one.
        """
        check_deadline(deadline)
        ticket: Ticket | AsyncTicket = await self._decide("reserve", key, cost, plan, deadline=deadline)
        local = ticket if isinstance(ticket, Ticket) else None
        if local is None and ticket.allowed and self.on_store_error == "local":
            local = self._local.reserve(key, cost, plan, deadline)

        async def charge(changes: Changes) -> bool:
            actual = {name: ticket.reserved[name] + change for name, change in changes.items()}
            if local is not None:
                local.settle({name: one for name, one in actual.items() if name in local.reserved})
            with reservation.retrying():
                return isinstance(ticket, Ticket) or await self._confirm(key, lambda: ticket.settle(actual))

        reservation = Reservation(ticket.decision, ticket.reserved, deadline, self._clock)
        return AsyncTicket(reservation, charge)

    async def refund(self, key: Keys, cost: Costs = 1) -> bool:
        """Return `cost` to the quotas of `key`, in the store and in the fallback; return whether the store confirms it.

        Raises `StoreError` if it does not with the fallback `closed`, and `InputError` if it has no method `refund`.
        """
        refund_in_store = self._method("refund")
        self._local.refund(key, cost)
        return await self._confirm(key, lambda: refund_in_store(key, cost))

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

    async def reset(self, key: Keys) -> None:
        """Restore the full quota of `key`, in the store and in the fallback.

        Raises `StoreError` unless the store confirms it, and `InputError` if the store has no method `reset`.
        """
        reset_in_store = self._method("reset")
        self._local.reset(key)
        await reset_in_store(key)

    @property
    def use_secret(self) -> Callable[[str, bool], None] | None:
        """The store's method of this name, with which it compares secrets of instances; None if it has none."""
        return getattr(self._store, "use_secret", None)

    async def probe(self) -> None:
        """Check whether a store that is down is back, if a probe is due; charge no key."""
        for node in [*self._nodes.values()]:
            epoch = None if node.breaker.up else node.breaker.begin(self._clock())
            if epoch is not None:
                call = self._probe_node(node.name) if self._probe_node is not None else self._store.hit("", 0)
                with suppress(StoreError):
                    await self._call(node, epoch, call)

    def reset_after_fork(self) -> None:
        """Forget the outages: their probes, which are in flight, belong to the parent process."""
        self._nodes.clear()

    def _method(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] | None = getattr(self._store, name, None)
        if method is None:
            raise InputError(f"{type(self._store).__name__} has no {name}: use a store such as AsyncValkeyLimiter")
        return method

    def _find_node(self, key: Keys) -> Node:
        name = self._node_of(key)
        return self._nodes.setdefault(name, self._nodes.get(name) or Node(name))

    async def _decide(self, method: str, key: Keys, cost: Costs, plan: str | None, **options: Any) -> Any:
        """Return the result of a method of the store, or that of the fallback."""
        if type(key) is str and type(cost) is int and cost >= 0:
            charged = cost > 0
        else:
            name_keys(self.policies, key)
            charged = any(name_costs(self.policies, cost).values())
        if plan is not None:
            self._local.plans.check_plan(plan)
        decide, planned = self._method(method), options if plan is None else {"plan": plan, **options}
        node = self._find_node(key)
        epoch: Epoch | None = node.breaker.epoch
        if node.breaker.epoch.down_since is not None:
            epoch = node.breaker.begin(self._clock())
        if epoch is None:
            return self._fall_back(node, method, key, cost, plan, create_down_error(), **options)
        try:
            if epoch.down_since is not None and self._probe_node is not None:
                await self._call(node, epoch, self._probe_node(node.name))
                epoch = node.breaker.begin(self._clock()) or epoch
            result = await self._call(node, epoch, decide(key, cost, **planned), charged)
        except StoreError as error:
            return self._fall_back(node, method, key, cost, plan, error, **options)
        if _is_allowed(result) and charged and method != "reserve" and self.on_store_error == "local":
            self._local.hit(key, cost, plan)
        return result

    async def _confirm(self, key: Keys, call: Callable[[], Coroutine[Any, Any, object]]) -> bool:
        """Call the store if it is up; return whether it did its part, or raise `StoreError` if it fails closed."""
        node = self._find_node(key)
        epoch = node.breaker.begin(self._clock())
        try:
            if epoch is None:
                raise create_down_error()
            return await self._call(node, epoch, call()) is not False
        except StoreError:
            if self._find_fallback(name_keys(self.policies, key)) == "closed":
                raise
            return False

    async def _call(self, node: Node, epoch: Epoch, call: Coroutine[Any, Any, _T], charged: bool = False) -> _T:
        """Return the result of a call of the store, and record its outcome."""
        try:
            result = await call
        except StoreError as error:
            self._record_failure(node, epoch, error)
            raise
        finally:
            if epoch.probing:
                node.breaker.finish(epoch)
        wrote = charged and _is_allowed(result) if isinstance(result, (tuple, AsyncTicket)) else True
        current = node.breaker.epoch
        failing = current.failures > 0 or current.down_since is not None
        if failing and (wrote or node.failure not in WRITE_ERRORS):
            self._record_success(node, epoch)
        return result

    def _fall_back(
        self, node: Node, method: str, key: Keys, cost: Costs, plan: str | None, error: StoreError, **options: Any
    ) -> Any:
        self._fallbacks += 1
        node.fallbacks += 1
        fallback = self._find_fallback(name_keys(self.policies, key))
        if fallback == "closed":
            raise error
        if fallback == "open":
            return self._decide_as_new(method, key, cost, plan, **options)
        return getattr(self._local, method)(key, cost, plan, **options)

    def _find_fallback(self, asked: Container[str] | None = None) -> str:
        """Return the fallback for the policies with these names, by default all."""
        return choose_fallback(self.on_store_error, (p for p in self.policies if asked is None or p.name in asked))

    def _decide_as_new(self, method: str, key: Keys, cost: Costs, plan: str | None, **options: Any) -> Any:
        plans, now = self._local.plans, self._clock()
        keys, costs = name_keys(self.policies, key), name_costs(self.policies, cost)
        asked = [policy for policy in self.policies if policy.name in keys]
        composite = Composite.of(plans.policy_of(policy, plan, keys[policy.name]) for policy in asked)
        _, rows = composite.decide(composite.start(now), now, [costs[policy.name] for policy in asked])
        decision = Decision(*composite.combine(rows))
        if method == "reserve":
            return Ticket(Reservation(decision, costs, clock=self._clock, **options), lambda _: None)
        return decision if method == "hit" else (decision, composite.decisions(rows))

    def _record_failure(self, node: Node, epoch: Epoch, error: StoreError) -> None:
        self._errors[error.kind] += 1
        if error.kind == "overload":
            return
        if not node.breaker.failing:
            node.fallbacks = 0
        node.failure = error.kind
        if node.breaker.record_failure(epoch, self._clock()):
            reason, meanwhile = " ".join(str(error).split()), ON_STORE_ERROR[self._find_fallback()]
            _log.warning("%s is down (%s: %s); meanwhile, %s", node, error.kind, reason, meanwhile)

    def _record_success(self, node: Node, epoch: Epoch) -> None:
        since = node.breaker.record_success(epoch)
        if since is not None:
            seconds = (self._clock() - since) / NS_PER_S
            outcome = (
                "rejected because the store was down" if self._find_fallback() == "closed" else "decided without it"
            )
            _log.warning("%s is back after %.1f s; requests %s: %d", node, seconds, outcome, node.fallbacks)


def _is_allowed(result: Any) -> bool:
    """Return whether a decision, with those of the policies or with a ticket, admits the request."""
    allowed: bool = result[0].allowed if type(result) is tuple else result.allowed
    return allowed
