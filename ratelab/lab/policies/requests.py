"""Requests as each policy sees them: those that it applies to, with the keys and the costs that it charges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms import Policy
from ratelab.errors import InputError
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Booleans, Traffic, split_batches
from ratelab.policies.policy_file import PolicyFile
from ratelab.policies.routes import parse_route

ALL_KEYS = "all"
"""The `Policy.key` of one counter for all clients."""

REQUEST_COST = "requests"
"""The `Policy.cost` of the costs in the traffic, which are 1 unless they are given."""

NOT_ASKED = -1
"""Cost of a request that a policy does not apply to, in the columns of the engines."""

MAX_PARTS = 100
"""The largest number of policies, each counted once for every quota that a plan gives to it."""


class Settlement(NamedTuple):
    """Costs known afterwards: each admitted request reserves its cost, and pays the actual one later."""

    actual: Integers
    """The actual cost of each request."""
    delays: Integers
    """Nanoseconds from each request until its actual cost is known."""

    def select(self, places: Integers) -> Settlement:
        """Return the values of some requests."""
        return Settlement(self.actual[places], self.delays[places])


@dataclass(frozen=True, eq=False)
class Attributes:
    """Facts about requests that policies may need, besides those in `Traffic`.

    Requests of one client with the same keys, route and plan share a group.
    """

    groups: Integers
    """The group of each request."""
    clients: Sequence[str]
    """The name of each group's client."""
    keys: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names of keys, such as `account`, with the key of each group; empty if it has none."""
    routes: Sequence[str] | None = None
    """The method and the path of each group, such as `POST /login`; None if routes are unknown."""
    matches: Mapping[str, Sequence[bool]] = field(default_factory=dict)
    """Values of `match`, with whether each group matches, for requests whose routes are unknown."""
    plans: Sequence[str | None] | None = None
    """The plan of each group; None if requests do not name their plans."""
    costs: Mapping[str, Integers] = field(default_factory=dict)
    """Names of costs, such as `tokens`, with the cost of each request."""
    settlements: Mapping[str, Settlement] = field(default_factory=dict)
    """Names of costs that are reserved, and settled later."""

    def spread(self, values: NDArray[Any], traffic: Traffic) -> NDArray[Any]:
        """Return a value for each request, given one for each group."""
        column = traffic.allocate(values.dtype)
        for part in split_batches(len(traffic)):
            column[part] = values[self.groups[part]]
        return column


@dataclass(frozen=True, eq=False)
class PolicyTraffic:
    """The requests that a policy applies to, with the keys and the costs that it charges."""

    policy: Policy
    plan: str | None
    """The plans whose quota the policy has; None if it has the same quota for all."""
    traffic: Traffic
    places: Integers | None
    """The positions of these requests among all; None if the policy applies to all."""
    settlement: Settlement | None = None
    """The actual costs, if they are settled after the requests."""

    @property
    def charged(self) -> Traffic:
        """The requests with the costs that they end up with if they are admitted."""
        return self.traffic if self.settlement is None else replace(self.traffic, costs=self.settlement.actual)

    @property
    def label(self) -> str:
        """The name of the policy, with the plans if they decide on its quota."""
        return self.policy.name if self.plan is None else f"{self.policy.name} ({self.plan})"

    def select(self, column: NDArray[np.bool_]) -> Booleans:
        """Return the values of these requests, given one for each request of the whole traffic."""
        return column if self.places is None else column[self.places]


def split_requests(file: PolicyFile, traffic: Traffic, attributes: Attributes) -> list[PolicyTraffic]:
    """Return the requests that each policy applies to, in the order of the policies.

    A policy that has several quotas, by plan or by client, is returned once for each, with the requests of those
    clients. Raises `InputError` for a key, a cost or a route that the requests do not have.
    """
    plans = attributes.plans or [None] * len(attributes.clients)
    chosen = [file.policies_of(client, plan) for client, plan in zip(attributes.clients, plans, strict=True)]
    labels = [plan or file.default_plan or "no plan" for plan in plans]
    parts: list[PolicyTraffic] = []
    for number, policy in enumerate(file.policies):
        versions: dict[Policy, dict[str, None]] = {}
        for policies, label in zip(chosen, labels, strict=True):
            versions.setdefault(policies[number], {})[label] = None
        applies = _match_groups(policy, attributes)
        if len(versions) > 1 and policy.key == ALL_KEYS:
            raise InputError(
                f"policy {policy.name!r} has one counter for all clients (key: all), which a plan cannot change: "
                "leave it out of the plans"
            )
        for version, names in versions.items() or [(policy, {})]:
            selected = applies
            if len(versions) > 1:
                on_plan = np.array([policies[number] == version for policies in chosen], np.bool_)
                selected = on_plan if selected is None else selected & on_plan
            plan = ", ".join(names) if len(versions) > 1 else None
            parts.append(_charge(version, plan, selected, traffic, attributes))
    check_part_count(len(parts))
    return parts


def check_part_count(count: int) -> None:
    """Raise `InputError` for too many policies, each counted once for every quota."""
    if count > MAX_PARTS:
        raise InputError(f"there may be at most {MAX_PARTS} policies, counted for each quota, got {count}")


def _match_groups(policy: Policy, attributes: Attributes) -> Booleans | None:
    """Return the groups of requests that match a policy; None if all do."""
    if policy.match is None:
        return None
    if policy.match in attributes.matches:
        return np.array(attributes.matches[policy.match], np.bool_)
    if attributes.routes is None:
        raise InputError(
            f"policy {policy.name!r} applies to {policy.match}, but the requests have no routes: leave out its match"
        )
    pattern = parse_route(policy.match)
    split = (route.rpartition(" ") for route in attributes.routes)
    matches = [pattern.matches(method, unquote(target.partition("?")[0])) for method, _, target in split]
    return np.array(matches, np.bool_)


def _charge(
    policy: Policy, plan: str | None, selected: Booleans | None, traffic: Traffic, attributes: Attributes
) -> PolicyTraffic:
    """Return the requests of the selected groups, with the keys and the costs that a policy charges."""
    clients, names, keys = traffic.clients, traffic.names, traffic.keys
    if policy.key == ALL_KEYS:
        keys = np.zeros(len(names), np.int64)
    elif policy.key in attributes.keys:
        key_of_group, names = _number_keys(attributes.keys[str(policy.key)], attributes.clients)
        clients, keys = attributes.spread(key_of_group, traffic), np.arange(len(names))
    elif policy.key is not None:
        known = ", ".join([ALL_KEYS, *attributes.keys])
        raise InputError(f"policy {policy.name!r} has the key {policy.key}, which the requests lack: use {known}")
    costs = traffic.costs
    if policy.cost in attributes.costs:
        costs = attributes.costs[policy.cost]
    elif policy.cost != REQUEST_COST:
        known = ", ".join([REQUEST_COST, *attributes.costs])
        raise InputError(f"policy {policy.name!r} has the cost {policy.cost}, which the requests lack: use {known}")
    settlement = attributes.settlements.get(policy.cost)
    if selected is None or selected.all():
        if clients is traffic.clients and costs is traffic.costs and keys is traffic.keys:
            return PolicyTraffic(policy, plan, traffic, None, settlement)
        whole = replace(traffic, clients=clients, costs=costs, names=names, keys=keys)
        return PolicyTraffic(policy, plan, whole, None, settlement)
    places = np.flatnonzero(attributes.spread(selected, traffic))
    times = traffic.times[places]
    part = replace(traffic, times=times, clients=clients[places], costs=costs[places], names=names, keys=keys)
    return PolicyTraffic(policy, plan, part, places, settlement and settlement.select(places))


def _number_keys(texts: Sequence[str], clients: Sequence[str]) -> tuple[Integers, tuple[str, ...]]:
    """Return the number of each group's key, and the names of the keys; a group without a key has its client's."""
    numbers: dict[tuple[bool, str], int] = {}
    keys = ((bool(text), text or client) for text, client in zip(texts, clients, strict=True))
    column = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
    return column, tuple(name for _, name in numbers)
