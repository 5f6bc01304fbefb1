"""Decisions of a resilient limiter while its store fails."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from ratelab.algorithms.composite import Composite
from ratelab.clock import Clock
from ratelab.errors import InputError, StoreError, short_repr
from ratelab.limiter import Costs, Decision, Keys
from ratelab.stores.arguments import choose_fallback, name_costs, name_keys
from ratelab.stores.memory import MemoryLimiter
from ratelab.stores.tickets import Reservation, Ticket

ON_STORE_ERROR = {
    "local": "each process enforces the quota by itself",
    "open": "every key is treated as new",
    "closed": "every request is denied",
}
"""The fallbacks for a store that is down, each with its meaning."""


def check_on_store_error(name: object) -> None:
    """Raise `InputError` unless `name` is that of a fallback."""
    if not isinstance(name, str) or name not in ON_STORE_ERROR:
        raise InputError(f"on_store_error must be one of {', '.join(ON_STORE_ERROR)}, got {short_repr(name)}")


class Fallback:
    """Decide by a memory limiter, or as if every key were new, or raise the error of the store."""

    def __init__(self, on_store_error: str, local: MemoryLimiter, clock: Clock) -> None:
        self._on_store_error = on_store_error
        self._local = local
        self._clock = clock

    def decide(
        self, error: StoreError, method: str, key: Keys, cost: Costs, plan: str | None, **options: object
    ) -> Any:
        """Return the result of a method of a limiter, which the store did not return because of `error`."""
        fallback = self.choose(name_keys(self._local.policies, key))
        if fallback == "closed":
            raise error
        if fallback == "open":
            return self._decide_as_new(method, key, cost, plan, **options)
        return getattr(self._local, method)(key, cost, plan, **options)

    def choose(self, asked: Container[str] | None = None) -> str:
        """Return the fallback for the policies with these names, by default all."""
        policies = self._local.policies
        return choose_fallback(self._on_store_error, (p for p in policies if asked is None or p.name in asked))

    def _decide_as_new(self, method: str, key: Keys, cost: Costs, plan: str | None, **options: Any) -> Any:
        plans, now = self._local.plans, self._clock()
        keys, costs = name_keys(plans.policies, key), name_costs(plans.policies, cost)
        asked = [policy for policy in plans.policies if policy.name in keys]
        composite = Composite.of(plans.policy_of(policy, plan, keys[policy.name]) for policy in asked)
        _, rows = composite.decide(composite.start(now), now, [costs[policy.name] for policy in asked])
        decision = Decision(*composite.combine(rows))
        if method == "reserve":
            return Ticket(Reservation(decision, costs, clock=self._clock, **options), lambda _: None)
        return decision if method == "hit" else (decision, composite.decisions(rows))
