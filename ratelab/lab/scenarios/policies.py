"""Scenarios with several policies and plans, and clients with plans, accounts, routes and several costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, PlainValidator

from ratelab.documents import Document, Duration, Example, Strict, Text, create_choice_parser, suggest
from ratelab.errors import InputError, short_repr
from ratelab.lab import POLICY_CHARTS, SEMANTICS
from ratelab.lab.policies.requests import Attributes, PolicyTraffic, Settlement, split_requests
from ratelab.lab.scenarios import schema
from ratelab.lab.scenarios.arrivals import draw_costs
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic
from ratelab.policies.policy_file import A_POLICY, Changes, PolicyFields, PolicyFile, create_policies
from ratelab.policies.routes import parse_route
from ratelab.policies.values import Name
from ratelab.quota import spell_duration


@dataclass(frozen=True, eq=False)
class ScenarioPolicies:
    """The policies of a scenario, and the facts about its requests that they need."""

    parts: tuple[PolicyTraffic, ...]
    """The requests that each policy applies to."""
    semantics: tuple[str, ...]
    """The ways to enforce the policies that are compared."""
    attributes: Attributes
    """The facts about the requests, for other policies."""


def check_route(value: str) -> str:
    """Return the method and the path of a request, such as `POST /login`."""
    parse_route(value)
    return value


def parse_semantics(value: object) -> tuple[str, ...]:
    """Return one of `SEMANTICS`, or a list of several."""
    given = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(map(create_choice_parser(list(SEMANTICS)), given)))


class SettleFields(Strict):
    """The actual costs of requests, and the time after which they are known."""

    after: Duration
    costs: Annotated[dict[str, schema.CostWeights], Field(min_length=1), Example("{bytes: 100}")]


class PolicyClient(schema.Client):
    """A client, or several similar ones, with the facts that policies may need."""

    plan: Name | None = None
    account: Text | None = None
    route: Annotated[str, PlainValidator(check_route)] | None = None
    costs: dict[str, schema.CostWeights] = Field({})
    settle: SettleFields | None = None


def describe_facts(client: PolicyClient) -> str:
    """Return the facts about a client that policies may need, as the end of its description."""
    facts = [
        *([f"plan {client.plan}"] if client.plan else []),
        *([f"account {client.account}"] if client.account else []),
        *([client.route] if client.route else []),
        *(f"{_format_costs(costs)} {name}" for name, costs in client.costs.items()),
    ]
    if client.settle is not None:
        actual = " and ".join(f"{_format_costs(costs)} {name}" for name, costs in client.settle.costs.items())
        facts.append(f"settled as {actual} after {spell_duration(client.settle.after)}")
    return f" ({', '.join(facts)})" if facts else ""


def _format_costs(weights: dict[int, float]) -> str:
    """Format a cost, or the smallest and the largest of several: `150 to 450`."""
    low, high = min(weights), max(weights)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


class PolicyScenarioFile(schema.ScenarioFields):
    """A scenario file with several policies."""

    chart: Annotated[str, PlainValidator(create_choice_parser(POLICY_CHARTS))] = POLICY_CHARTS[0]
    policies: Annotated[list[PolicyFields], Field(min_length=1, max_length=32), A_POLICY]
    plans: dict[str, Changes] = Field({})
    semantics: Annotated[tuple[str, ...], PlainValidator(parse_semantics)] = ("atomic",)
    clients: Annotated[list[PolicyClient], Field(min_length=1), schema.A_CLIENT]


def create_content(document: Document, file: PolicyScenarioFile) -> PolicyFile:
    """Return the policies and plans of a scenario as the content of a policy file.

    Raises `InputError` for an invalid policy, and for a client with an unknown plan.
    """
    policies, plans = create_policies(document, file.policies, file.plans)
    for number, client in enumerate(file.clients):
        if client.plan is not None and client.plan not in plans:
            hint = suggest(client.plan, plans) if plans else "add plans"
            raise document.error(("clients", number, "plan"), f"unknown plan {short_repr(client.plan)}; {hint}")
        for name in client.settle.costs if client.settle else ():
            if name not in client.costs:
                problem = f"unknown cost {short_repr(name)}: add the cost to reserve to costs"
                raise document.error(("clients", number, "settle", "costs", name), problem)
    return PolicyFile(
        path=document.path,
        policies=policies,
        plans=plans,
        overrides={},
        plan_header=None,
        plan_of=None,
        default_plan=None,
        account_header=None,
        files=(document.path,),
    )


def create_limits(
    document: Document, file: PolicyScenarioFile, content: PolicyFile, traffic: Traffic, seed: int
) -> ScenarioPolicies:
    """Return the requests that each policy applies to.

    Raises `InputError` for a policy that needs a key, a route or a cost that no client has.
    """
    attributes = _describe_requests(file.clients, traffic, seed)
    try:
        parts = split_requests(content, traffic, attributes)
    except InputError as error:
        raise document.error(("policies",), str(error)) from None
    return ScenarioPolicies(tuple(parts), file.semantics, attributes)


def _describe_requests(described: Sequence[PolicyClient], traffic: Traffic, seed: int) -> Attributes:
    """Return the facts about the requests of each client."""
    every = [client for client in described for _ in range(client.count)]
    has_routes = any(client.route for client in every)
    return Attributes(
        groups=traffic.clients,
        clients=traffic.names,
        keys={"account": [client.account or "" for client in every]} if any(c.account for c in every) else {},
        routes=[client.route or "GET /" for client in every] if has_routes else None,
        plans=[client.plan for client in every],
        costs={name: _draw_costs(name, every, traffic, seed) for client in described for name in client.costs},
        settlements={
            name: _draw_settlement(name, every, traffic, seed)
            for client in described
            for name in (client.settle.costs if client.settle else ())
        },
    )


def _draw_settlement(name: str, every: Sequence[PolicyClient], traffic: Traffic, seed: int) -> Settlement:
    """Draw the actual costs of the clients that settle; the others pay the cost that they reserve, at once."""
    actual, delays = _draw_costs(name, every, traffic, seed), np.zeros(len(traffic), np.int64)
    for number, (client, full_name) in enumerate(zip(every, traffic.names, strict=True)):
        if client.settle is not None and name in client.settle.costs:
            places = np.flatnonzero(traffic.clients == number)
            stream = f"{seed}/{full_name}/settle/{name}"
            actual[places] = draw_costs(client.settle.costs[name], len(places), stream)
            delays[places] = client.settle.after
    return Settlement(actual, delays)


def _draw_costs(name: str, every: Sequence[PolicyClient], traffic: Traffic, seed: int) -> Integers:
    """Return the cost called `name` of each request; 0 for a client without it."""
    column = np.zeros(len(traffic), np.int64)
    for number, (client, full_name) in enumerate(zip(every, traffic.names, strict=True)):
        if name in client.costs:
            places = np.flatnonzero(traffic.clients == number)
            column[places] = draw_costs(client.costs[name], len(places), f"{seed}/{full_name}/cost/{name}")
    return column
