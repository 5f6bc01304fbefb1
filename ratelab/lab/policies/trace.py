"""Traces for several policies: the fields that their keys, routes, plans and costs need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from urllib.parse import unquote

import numpy as np

from ratelab.errors import InputError
from ratelab.lab.policies.requests import ALL_KEYS, REQUEST_COST, Attributes
from ratelab.lab.spill import Integers
from ratelab.lab.traces import Trace, TraceOptions, make_printable, read_traces
from ratelab.lab.traces.batches import LineError, OmittedError
from ratelab.lab.traces.choices import Plan
from ratelab.lab.traces.clients import MISSING, ClientNames
from ratelab.lab.traces.formats import Format
from ratelab.lab.traces.requests import Field
from ratelab.lab.traffic import Traffic, split_batches
from ratelab.policies.policy_file import PolicyFile
from ratelab.policies.routes import Route, parse_route

ROUTE_FIELDS = ("method", "path")
"""The fields that `match` needs."""


def read_policy_traces(
    paths: Sequence[str], options: TraceOptions, file: PolicyFile, progress: Callable[[int], None] | None = None
) -> tuple[Trace, Attributes]:
    """Read traces as `read_traces` does, with the fields that the policies of a file need.

    `match` needs the fields `method` and `path`, the key `ip` the address, and `header:NAME` the field NAME; `account`
    and the plan are read from the fields that have the names of their headers. A cost is the field of its name; there
    may be one, besides requests. Raises `InputError` for a route or a cost that a trace does not have.
    """
    cost = _find_cost(file, options)
    collector = _Collector(file)
    amend = collector.amend if collector.fields else None
    if cost is not None:
        options = replace(options, cost=cost)
    try:
        trace = read_traces(paths, options, progress, amend=amend)
    except InputError as error:
        if cost is not None and f"no field {cost}" in str(error):
            reason = str(error).partition(f"no field {cost}")[0]
            raise InputError(f"{reason}no field {cost}, a cost of {file.path}: change the cost of the policy") from None
        raise
    traffic, attributes = collector.split(trace.traffic) if amend else (trace.traffic, _describe_clients(trace.traffic))
    if cost is not None:
        attributes = replace(attributes, costs={cost: traffic.costs})
        traffic = replace(traffic, costs=np.broadcast_to(np.int64(1), len(traffic)))
    notes = (*trace.notes, *collector.describe_missing())
    return replace(trace, traffic=traffic, notes=notes), attributes


def _describe_clients(traffic: Traffic) -> Attributes:
    return Attributes(groups=traffic.clients, clients=traffic.names)


def _find_cost(file: PolicyFile, options: TraceOptions) -> str | None:
    """Return the field of the cost that policies count besides requests."""
    costs = sorted({policy.cost for policy in file.policies} - {REQUEST_COST})
    if len(costs) > 1:
        raise InputError(f"{file.path}: a log is read with one cost, got {' and '.join(costs)}: replay them one by one")
    if costs and options.cost is not None:
        raise InputError(f"{file.path}: the cost {costs[0]} is read from the log: leave out --cost")
    return costs[0] if costs else None


@dataclass(frozen=True)
class _Group:
    """Requests of one client that policies cannot tell apart."""

    client: str
    matches: tuple[bool, ...]
    """Whether they match each route."""
    keys: tuple[str, ...]
    plan: str | None


@dataclass
class _Collector:
    """The groups of requests, numbered while a trace is read as if they were its clients."""

    file: PolicyFile
    groups: dict[_Group, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    """A route of each group."""
    missing: dict[str, None] = field(default_factory=dict)
    """Fields that a file does not have: without one, the key is the client, and the plan the default plan."""

    def __post_init__(self) -> None:
        self._lock = Lock()
        self._routes = {policy.match: parse_route(policy.match) for policy in self.file.policies if policy.match}
        keys = dict.fromkeys(policy.key for policy in self.file.policies if policy.key not in (None, ALL_KEYS))
        self._keys = {str(key): self._name_field(str(key)) for key in keys}
        plan = [self.file.plan_header] if self.file.plan_header else []
        self.fields = [*(ROUTE_FIELDS if self._routes else ()), *self._keys.values(), *plan]

    def _name_field(self, key: str) -> str:
        """Return the field of a key: that of the header that names it."""
        return str(self.file.account_header) if key == "account" else key.removeprefix("header:")

    def amend(self, format_: Format, lines: Sequence[str], plan: Plan) -> Plan:
        """Read the fields too, as if they were part of the client's name."""
        places = [place for place, name in enumerate(self.fields) if self._has_field(format_, lines, name)]
        more = tuple(Field("policies", format_.resolve(self.fields[place]), optional=True) for place in places)
        rule, count, name = plan.rule, len(places), plan.rule.names.__getitem__
        fields = (*more, *rule.fields)
        names = ClientNames(lambda texts: self._number(places, texts[:count], name(texts[count:])))
        rule = replace(rule, fields=fields, clients=count + rule.clients, names=names)
        return replace(plan, rule=rule, reader=format_.bind(fields, lines))

    def _has_field(self, format_: Format, lines: Sequence[str], name: str) -> bool:
        """Return whether lines have a field; raise `InputError` if they have no routes, but a policy needs them."""
        if _can_read(format_, lines, name):
            return True
        if name in ROUTE_FIELDS and self._routes:
            match = next(iter(self._routes))
            raise InputError(f"its lines have no {name}, which the policy for {match} needs: leave out the policy")
        self.missing[name] = None
        return False

    def _number(self, places: Sequence[int], texts: tuple[str, ...], client: str) -> str:
        """Return the number of a group as the name of a client; empty without a client."""
        if not client:
            return ""
        values = [""] * len(self.fields)
        for place, text in zip(places, texts, strict=True):
            values[place] = "" if text.strip() in MISSING else text.strip()
        method, path = values[:2] if self._routes else ("", "/")
        path = unquote(path.partition("?")[0])
        keys = values[2 if self._routes else 0 :]
        plan = keys.pop() if self.file.plan_header else None
        group = _Group(client, _match(self._routes.values(), method, path), tuple(keys), plan or None)
        with self._lock:  # Arrow reads blocks in several threads
            if group not in self.groups:
                self.groups[group] = len(self.groups)
                self.examples.append(f"{method} {path}")
            return str(self.groups[group])

    def describe_missing(self) -> list[str]:
        """Return a note on each field that lines do not have, and on the consequence."""
        return [
            f"lines have no {name}: "
            + (
                "each client has the default plan"
                if name == self.file.plan_header
                else "its policies count each client"
            )
            for name in self.missing
        ]

    def split(self, traffic: Traffic) -> tuple[Traffic, Attributes]:
        """Return traffic with real clients, and the facts about each group."""
        order = [int(name) for name in traffic.names]
        known = list(self.groups)
        groups = [known[number] for number in order]
        numbers: dict[str, int] = {}
        clients = np.array([numbers.setdefault(group.client, len(numbers)) for group in groups], np.int64)
        column: Integers = traffic.allocate(np.int64)
        for part in split_batches(len(traffic)):
            column[part] = clients[traffic.clients[part]]
        attributes = Attributes(
            groups=traffic.clients,
            clients=[group.client for group in groups],
            keys={key: [group.keys[n] for group in groups] for n, key in enumerate(self._keys)},
            routes=[self.examples[number] for number in order] if self._routes else None,
            plans=[group.plan for group in groups] if self.file.plan_header else None,
        )
        names = tuple(map(make_printable, numbers))
        return replace(traffic, clients=column, names=names, keys=np.arange(len(names))), attributes


def _match(routes: Iterable[Route], method: str, path: str) -> tuple[bool, ...]:
    return tuple(route.matches(method, path) for route in routes)


def _can_read(format_: Format, lines: Sequence[str], name: str) -> bool:
    """Return whether one of the first lines has a field."""
    try:
        read = format_.bind([Field("policies", format_.resolve(name))], lines).read
    except InputError:
        return False
    for line in lines:
        try:
            read(line)
        except (LineError, OmittedError):
            continue
        return True
    return not lines
