"""Requests of a recording of several policies: as the policies decided them, and for a replay through others."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ratelab.algorithms import Policy
from ratelab.lab.decisions import DECISION_DTYPE, Columns
from ratelab.lab.policies.engine import NOT_BOUND
from ratelab.lab.policies.outcome import JointOutcome, PolicyOutcome
from ratelab.lab.policies.requests import ALL_KEYS, REQUEST_COST, Attributes, PolicyTraffic, check_part_count
from ratelab.lab.spill import Integers
from ratelab.lab.traces import make_printable
from ratelab.lab.traffic import Traffic
from ratelab.limiter import ROW_FIELDS, Decision


def _split_columns(rows: array[int], count: int) -> list[Integers]:
    """Return the columns of a table whose rows follow each other."""
    table = np.frombuffer(rows, np.int64).reshape(-1, count)
    return [np.ascontiguousarray(column) for column in table.T]


@dataclass(eq=False)
class _Part:
    """The requests that a policy with one quota was asked about."""

    number: int
    plans: dict[str, None] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    rows: array[int] = field(default_factory=lambda: array("q"))
    """For each, its place among all, its key and cost, and the policy's own decision: allowed, and the delay."""


class RecordedRequests:
    """Requests with their decisions, added in the order of time; one that costs no policy anything is left out."""

    def __init__(self) -> None:
        self._rows = array("q")  # for each request, time, group, cost, the part that bound it, and the decision
        self._count = self._denied = 0
        self._costs: dict[str, array[int]] = {}  # of other costs than requests
        self._groups: dict[tuple[Any, ...], int] = {}
        self._parts: dict[Policy, _Part] = {}
        self._known: dict[int, tuple[Policy, _Part]] = {}  # by the id of the policy, whose hash takes long

    def __len__(self) -> int:
        return self._count

    def add(
        self,
        at_ns: int,
        keys: Mapping[str, str],
        costs: Mapping[str, int],
        plan: str | None,
        policies: Sequence[Policy],
        decision: Decision,
        each: Sequence[Decision],
    ) -> None:
        """Add a request with the policies that were asked, whose `keys` and `costs` are given by their names.

        Raises `InputError` for too many quotas.
        """
        by_cost: dict[str, int] = {}
        for policy in policies:
            by_cost[policy.cost] = max(by_cost.get(policy.cost, 0), costs[policy.name])
        if not any(by_cost.values()):
            return
        place, bound = len(self), NOT_BOUND
        for policy, own in zip(policies, each, strict=True):
            part = self._find_part(policy)
            part.plans[plan or "no plan"] = None
            key = part.keys.setdefault(keys[policy.name], len(part.keys))
            part.rows.extend((place, key, costs[policy.name], own.allowed, own.delay_ns))
            if policy.name == decision.bound_by:
                bound = part.number
        group = self._groups.setdefault(_find_group(keys, plan, policies), len(self._groups))
        self._rows.extend((at_ns, group, by_cost.pop(REQUEST_COST, 0) or 1, bound, *decision.row))
        self._count += 1
        self._denied += not decision.allowed
        for name in by_cost.keys() | self._costs.keys():
            self._costs.setdefault(name, array("q", [0]) * place).append(by_cost.get(name, 0))

    def _find_part(self, policy: Policy) -> _Part:
        known = self._known.get(id(policy))
        if known is None:
            part = self._parts.setdefault(policy, _Part(len(self._parts)))
            check_part_count(len(self._parts))
            known = self._known[id(policy)] = policy, part
        return known[1]

    def create_traffic(self) -> tuple[Traffic, Attributes]:
        """Return the requests of all clients, and the facts about them that policies may need."""
        times, groups, costs, *_ = _split_columns(self._rows, 4 + len(ROW_FIELDS))
        clients = [client for client, *_ in self._groups]
        numbers = {client: number for number, client in enumerate(dict.fromkeys(clients))}
        names = tuple(map(make_printable, numbers))
        client_of_group = np.array([numbers[client] for client in clients], np.int64)
        duration = max(int(times[-1] - times[0]), 1)
        traffic = Traffic(
            times - times[0], client_of_group[groups], costs, names, np.arange(len(names)), duration, int(times[0])
        )
        kinds = dict.fromkeys(policy.key for policy in self._parts if policy.key not in (None, ALL_KEYS))
        matches = dict.fromkeys(policy.match for policy in self._parts if policy.match)
        plans = [plan for _, plan, _, _ in self._groups]
        attributes = Attributes(
            groups=groups,
            clients=clients,
            keys={str(kind): [dict(keys).get(kind, "") for _, _, keys, _ in self._groups] for kind in kinds},
            matches={str(match): [match in found for *_, found in self._groups] for match in matches},
            plans=plans if any(plans) else None,
            costs={
                name: np.frombuffer(column, np.int64) for name, column in self._costs.items() if name != REQUEST_COST
            },
        )
        return traffic, attributes

    @property
    def denied(self) -> int:
        """The number of denied requests."""
        return self._denied

    @property
    def algorithms(self) -> set[str]:
        """The names of the algorithms that decided requests."""
        return {policy.algorithm.name for policy in self._parts}

    def create_outcome(self, traffic: Traffic, names: Sequence[str]) -> JointOutcome:
        """Return the decisions, and those of each policy in the order of `names`, once for each of its quotas."""
        _, _, _, bound, *decided = _split_columns(self._rows, 4 + len(ROW_FIELDS))
        whole: Columns = {
            name: column.astype(DECISION_DTYPE[name]) for name, column in zip(ROW_FIELDS, decided, strict=True)
        }
        order = sorted(self._parts.items(), key=lambda item: names.index(item[0].name))
        labels = _label_parts(order)
        positions = np.full(len(order) + 1, NOT_BOUND, np.int8)  # the last is that of NOT_BOUND
        positions[[part.number for _, part in order]] = np.arange(len(order))
        policies = (
            _create_outcome(policy, label, part, traffic, whole)
            for (policy, part), label in zip(order, labels, strict=True)
        )
        return JointOutcome("atomic", traffic, whole, positions[bound], tuple(policies))


def _find_group(keys: Mapping[str, str], plan: str | None, policies: Sequence[Policy]) -> tuple[Any, ...]:
    """Return the client of a request, its plan, its keys by their kinds, and the values of `match` that apply.

    The client is the key of the limiter, or the first key if no policy counts by it.
    """
    own = [keys[policy.name] for policy in policies if policy.key in (None, ALL_KEYS)]
    kinds = {policy.key: keys[policy.name] for policy in policies if policy.key not in (None, ALL_KEYS)}
    matches = dict.fromkeys(policy.match for policy in policies)
    return (own or [*kinds.values()])[0], plan, tuple(kinds.items()), tuple(matches)


def _label_parts(parts: Sequence[tuple[Policy, _Part]]) -> list[str | None]:
    """Return the plans of each policy that has several quotas, and the quota if two have the same plans."""
    counts = Counter(policy.name for policy, _ in parts)
    plans = [make_printable(", ".join(part.plans)) for _, part in parts]
    labels = Counter((policy.name, plan) for (policy, _), plan in zip(parts, plans, strict=True))
    return [
        None if counts[policy.name] == 1 else plan if labels[policy.name, plan] == 1 else f"{plan}, {policy.quota}"
        for (policy, _), plan in zip(parts, plans, strict=True)
    ]


def _create_outcome(policy: Policy, label: str | None, part: _Part, traffic: Traffic, whole: Columns) -> PolicyOutcome:
    places, keys, costs, allowed, delays = _split_columns(part.rows, 5)
    own: Columns = {"allowed": allowed.astype(np.bool_), "delay_ns": delays}
    asked = replace(traffic, times=traffic.times[places], clients=traffic.clients[places], costs=costs)
    if policy.key == ALL_KEYS:
        asked = replace(asked, keys=np.zeros(len(traffic.names), np.int64))
    else:
        names = tuple(map(make_printable, part.keys))
        asked = replace(asked, clients=keys, names=names, keys=np.arange(len(names)))
    selected: Integers | None = None if len(places) == len(traffic) else places
    through = {name: whole[name] if selected is None else whole[name][places] for name in own}
    charged = own if policy.shadow else through
    return PolicyOutcome(PolicyTraffic(policy, label, asked, selected), own, through, charged["allowed"])
