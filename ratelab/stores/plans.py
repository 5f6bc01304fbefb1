"""Plans and overrides: other quotas of the same policies, and the conversion of used quotas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakMethod

from ratelab.algorithms import Policy
from ratelab.algorithms.penalty import Penalized
from ratelab.errors import InputError, short_repr
from ratelab.quota import Quota
from ratelab.stores.versions import Kernel

QuotaChange = Policy | Quota | str | tuple[str | None, int | None]
"""The quota of a policy in a plan: a rate, or a rate and a burst, of which None is that of the policy."""

QuotaChanges = Sequence[Policy] | Mapping[str, QuotaChange]
"""The quotas of policies by name, or policies with other quotas; the others keep theirs."""


@dataclass(frozen=True)
class Plans:
    """Policies, and the policies with other quotas by plan and by key."""

    policies: tuple[Policy, ...]
    plans: Mapping[str, Mapping[str, Policy]] = field(default_factory=dict)
    overrides: Mapping[str, Mapping[str, Policy]] = field(default_factory=dict)
    may_change: bool = field(default=True, compare=False)
    """Whether others may replace them while a limiter is in use, such as policies with aligned windows."""

    @classmethod
    def of(
        cls,
        policies: Sequence[Policy],
        plans: Mapping[str, QuotaChanges] | None,
        overrides: Mapping[str, QuotaChanges] | None,
    ) -> Plans:
        """Return plans and overrides whose quotas are given as text; they may change if one is given, even if empty.

        Raises `InputError` for an invalid one.
        """
        may_change = plans is not None or overrides is not None
        plans, overrides = {} if plans is None else plans, {} if overrides is None else overrides
        named = {policy.name: policy for policy in policies}
        for what, given in (("plans", plans), ("overrides", overrides)):
            if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
                raise InputError(f"{what} must be a mapping of names to quotas, got {short_repr(given)}")
        changed_plans, changed_overrides = (
            {name: _apply(named, f"{what} {short_repr(name)}", changes) for name, changes in given.items()}
            for what, given in (("plan", plans), ("override", overrides))
        )
        return cls(tuple(policies), changed_plans, changed_overrides, may_change)

    def change(
        self,
        policies: Sequence[Policy] | None,
        plans: Mapping[str, QuotaChanges] | None,
        overrides: Mapping[str, QuotaChanges] | None,
    ) -> Plans:
        """Return these with policies, plans or overrides replaced, each if it is given; others keep their quotas."""
        kept_plans, kept_overrides = (
            {name: {policy: one.quota for policy, one in changes.items()} for name, changes in given.items()}
            for given in (self.plans, self.overrides)
        )
        return Plans.of(
            self.policies if policies is None else policies,
            kept_plans if plans is None else plans,
            kept_overrides if overrides is None else overrides,
        )

    def policy_of(self, policy: Policy, plan: str | None, key: str | None) -> Policy:
        """Return the policy of a plan, or of a key with overrides, which replace those of any plan."""
        overridden = self.overrides.get(key, {}) if key is not None else {}
        changed = overridden.get(policy.name) or (self.plans[plan].get(policy.name) if plan is not None else None)
        return changed or policy

    def check_plan(self, plan: str | None) -> None:
        """Raise `InputError` unless there is such a plan."""
        if plan is not None and (not isinstance(plan, str) or plan not in self.plans):
            choice = f"choose from {', '.join(self.plans)}" if self.plans else "pass plans= to the limiter"
            raise InputError(f"unknown plan {short_repr(plan)}: {choice}")


Preparation = Callable[[Plans], Callable[[], object]]
"""A method that prepares for other policies before a limiter has them, and returns a function to call afterwards.

It raises `InputError` to refuse them.
"""


class Followers:
    """The methods by which others follow the changes of a limiter; each is kept as long as its object."""

    def __init__(self) -> None:
        self._methods: list[WeakMethod[Preparation]] = []

    def add(self, prepare: Preparation) -> None:
        """Call `prepare` before each change from now on."""
        others = [method for method in self._methods if method() not in (None, prepare)]
        self._methods = [*others, WeakMethod(prepare)]

    def prepare(self, plans: Plans) -> Callable[[], None]:
        """Have all prepare for a change; return a function to call after it. Raises `InputError` if one refuses it."""
        prepared = [prepare(plans) for method in self._methods if (prepare := method()) is not None]

        def finish() -> None:
            for follow in prepared:
                follow()

        return finish


def _apply(named: Mapping[str, Policy], place: str, changes: QuotaChanges) -> dict[str, Policy]:
    """Return the changed policies by name."""
    if not isinstance(changes, Mapping):
        if not isinstance(changes, Sequence) or not all(isinstance(policy, Policy) for policy in changes):
            rule = f"{place} must be a mapping of policies to quotas, or a list of policies"
            raise InputError(f"{rule}, got {short_repr(changes)}")
        changes = {policy.name: policy for policy in changes}
    unknown = next((policy for policy in changes if policy not in named), None)
    if unknown is not None:
        raise InputError(f"unknown policy {short_repr(unknown)} in {place}: choose from {', '.join(named)}")
    return {name: _change_quota(named[name], change, place) for name, change in changes.items()}


def _change_quota(policy: Policy, change: QuotaChange, place: str) -> Policy:
    if isinstance(change, Policy):
        if replace(change, quota=policy.quota, algorithm=policy.algorithm) != policy:
            got = short_repr(change)
            raise InputError(f"policy {policy.name!r} in {place} may only have another quota, got {got}: pass a rate")
        return change
    if isinstance(change, tuple) and len(change) != 2:
        got = short_repr(change)
        raise InputError(f"the quota of policy {policy.name!r} in {place} must be a rate or (rate, burst), got {got}")
    rate, burst = change if isinstance(change, tuple) else (change, None)
    return policy.with_quota(policy.quota if rate is None else rate, burst)


def convert_numbers(old: Kernel, new: Kernel, numbers: list[Any], now: int) -> list[Any]:
    """Return the numbers of a key after a change of its quotas: the share of a burst that is used stays used.

    It is rounded up to whole units, so that no change grants anything. A policy that is new starts with its full quota.
    """
    before = {part.policy.name: part for part in old.composite.parts}
    converted: list[Any] = []
    for part in new.composite.parts:
        policy, source = part.policy, before.get(part.policy.name)
        if source is not None and source.policy.algorithm == policy.algorithm:
            converted += numbers[source.begin : source.end]
            continue
        if source is not None and _is_same_penalty(source.policy, policy):
            converted.append(_convert_penalized(source.policy, policy, numbers[source.begin], now))
            continue
        state = part.start(now)
        if source is not None:
            used = _count_used(source.policy.quota, source.step(numbers[source.begin : source.end], now, 0))
            part.charge(state, now, -(-used * policy.quota.burst // source.policy.quota.burst), now)
        converted += state
    return converted


def _is_same_penalty(old: Policy, new: Policy) -> bool:
    return (
        isinstance(old.algorithm, Penalized)
        and isinstance(new.algorithm, Penalized)
        and old.algorithm.penalty == new.algorithm.penalty
    )


def _convert_penalized(old: Policy, new: Policy, state: list[int], now: int) -> list[int]:
    """Return the state of a key with a penalty, which stays in force, after a change of its quota."""
    before, after = (replace(policy, algorithm=policy.algorithm.inner) for policy in (old, new))  # type: ignore[attr-defined]
    first = len(state) - len(before.start(now))
    used = _count_used(old.quota, before.step(state[first:], now, 0))
    converted = after.start(now)
    after.charge(converted, now, -(-used * new.quota.burst // old.quota.burst), now)
    return [*state[:first], *converted]


def _count_used(quota: Quota, look: tuple[bool, int, int, int, int]) -> int:
    """Return the used units of a quota, rounded up; more than its burst for a key in debt."""
    allowed, remaining, _, reset_after_ns, _ = look
    used = quota.burst - remaining
    return used if allowed else max(used, -(-reset_after_ns * quota.limit // quota.period))
