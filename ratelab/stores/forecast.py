"""Forecasts: the time at which further hits of a key would be admitted, if no other hit charges it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ratelab.algorithms import Policy, traits_of
from ratelab.algorithms.composite import Composite, combine
from ratelab.limiter import NEVER, Decision

if TYPE_CHECKING:
    from ratelab.clock import Clock
    from ratelab.stores.key_table import KeyTable
    from ratelab.stores.plans import Plans
    from ratelab.stores.policy_groups import PolicyGroups


@dataclass(frozen=True, slots=True)
class Forecast:
    """A copy of the states of a key at a time, in which hits can be tried; no method changes it."""

    now: int
    """The time of the states, in nanoseconds of the limiter's clock."""
    parts: Sequence[tuple[Composite, list[Any]]]
    """The policies of each kind of key, and their state."""

    def hit(self, costs: Mapping[str, int]) -> tuple[Decision, Forecast]:
        """Decide a hit with a cost for each policy that is asked; also return the forecast after it."""
        results = [
            composite.attempt(state, self.now, [costs.get(policy.name) for policy in composite.policies])
            for composite, state in self.parts
        ]
        decision = Decision(
            *combine(
                (policy, row)
                for (composite, _), (_, rows, _) in zip(self.parts, results, strict=True)
                for policy, row in zip(composite.policies, rows, strict=True)
                if row is not None
            )
        )
        if not decision.allowed:
            return decision, self
        parts = [(composite, new) for (composite, _), (new, _, _) in zip(self.parts, results, strict=True)]
        return decision, Forecast(self.now, parts)

    def admit(self, costs: Mapping[str, int]) -> Forecast | None:
        """Return the forecast for the time at which a hit, once it is admitted, may go; None if it never is."""
        forecast = self
        while True:
            decision, after = forecast.hit(costs)
            if decision.allowed:
                return Forecast(after.now + decision.delay_ns, after.parts)
            if decision.retry_after_ns == NEVER:
                return None
            forecast = Forecast(forecast.now + decision.retry_after_ns, forecast.parts)


def forecast_key(table: KeyTable, key: str, clock: Clock) -> Forecast | None:
    """Return the forecast of a key of a table; None once the table is retired."""
    entry, kernel = table.get(key), table.kernel
    state = [] if entry is None else kernel.latest(entry)[: kernel.size]
    if not state:
        state, _ = table.start_new(key)
        if not state:
            return None
    now = clock()  # after the state, so that no step goes back in time
    return Forecast(now, [(kernel.composite, state)])


def forecast_groups(groups: PolicyGroups, keys: Mapping[str, str], plan: str | None, clock: Clock) -> Forecast:
    """Return the forecast of the keys of policies, converted to the quotas of a plan."""
    accesses = groups.find_accesses(keys, {}, plan, converts=True)
    for access in accesses:
        access.read()
    now = clock()  # after the states
    converted = [access.convert(now) for access in accesses]
    return Forecast(now, [(kernel.composite, numbers) for kernel, numbers, _ in converted])


def wait_of(decision: Decision) -> int:
    """Return the time in nanoseconds until the request may go without delay; `NEVER` if that is never."""
    return decision.delay_ns if decision.allowed else decision.retry_after_ns


def best_case(
    plans: Plans, keys: Mapping[str, str], plan: str | None, costs: Mapping[str, int], now: int, bound_by: str | None
) -> Forecast:
    """Return states from which no actual ones differ to the advantage of further hits, after one of `costs` at `now`.

    The policy `bound_by` has denied this hit until `now`: if it is a bucket of tokens, none are left.
    """
    policies = [plans.policy_of(policy, plan, keys[policy.name]) for policy in plans.policies if policy.name in keys]
    composite = Composite.of(policies)
    state = composite.start(now)
    for part in composite.parts:
        policy, numbers = part.policy, state[part.begin : part.end]
        traits = traits_of(policy.algorithm)
        empty = policy.name == bound_by and traits.admits_need and not traits.queues
        part.step(numbers, now, policy.quota.burst if empty else costs[policy.name])
        state[part.begin : part.end] = numbers
    return Forecast(now, [(composite, state)])


def may_queue(policies: Iterable[Policy]) -> bool:
    """Return whether one of the policies may admit a request with a delay."""
    return any(traits_of(policy.algorithm).queues for policy in policies)
