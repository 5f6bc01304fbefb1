"""Several policies together: their tables, findings as sentences, and plain values for JSON and CSV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ratelab.lab import SEMANTICS
from ratelab.lab.metrics import Result, list_figures, sum_exactly
from ratelab.lab.policies.figures import JointResult, PolicyComparison, PolicyResult
from ratelab.lab.policies.requests import PolicyTraffic
from ratelab.lab.spill import Integers
from ratelab.limiter import ROW_FIELDS
from ratelab.policies.description import describe_key
from ratelab.quota import about
from ratelab.report.numbers import format_part, format_quota, format_seconds, join_names, pluralize
from ratelab.report.serialize import EVENT_BATCH, serialize_quota
from ratelab.report.summary import describe_traffic
from ratelab.report.timeline import TimelineRow

POLICY_EVENT_COLUMNS = ("at_ns", "client", "cost", "semantics", *ROW_FIELDS, "bound_by", "denied_by")
"""The columns of a row of events of several policies, one for each request and way to enforce them."""

FIGURES = {**list_figures(Result), **list_figures(PolicyResult)}
"""The figures of a policy, and of the whole, by name."""


def get_figure(row: PolicyResult, name: str) -> Any:
    """Return the value of a figure."""
    return getattr(row if name in list_figures(PolicyResult) else row.result, name)


# --- plain values


def serialize_policies(
    comparison: PolicyComparison, source: dict[str, Any], max_clients: int | None = None
) -> dict[str, Any]:
    """Return the whole comparison as `--json` prints it; `max_clients` limits the clients to the most denied."""
    return {
        "version": 1,
        **source,
        "policies": [_serialize_policy(part) for part in comparison.parts],
        "offered": len(comparison.traffic),
        "duration": comparison.traffic.duration / 1e9,
        "client_timeout": comparison.client_timeout / 1e9,
        "results": [
            {
                "semantics": result.outcome.semantics,
                "policies": [serialize_row(row) for row in result.rows],
                "per_client": list(_serialize_clients(result, max_clients)),
            }
            for result in comparison.results
        ],
    }


def _serialize_policy(part: PolicyTraffic) -> dict[str, Any]:
    policy = part.policy
    return {
        "policy": part.label,
        "algorithm": policy.algorithm.name,
        **serialize_quota(policy.quota),
        "key": policy.key,
        "cost": policy.cost,
        "match": policy.match,
        "shadow": policy.shadow,
    }


def serialize_row(row: PolicyResult) -> dict[str, Any]:
    """Return the name of a policy, or of the whole, and its figures."""
    return {"policy": row.label, **{name: get_figure(row, name) for name in FIGURES}}


def list_rows(comparison: PolicyComparison) -> list[dict[str, Any]]:
    """Return the rows of the table as CSV: the whole and each policy, for each way to enforce them."""
    return [
        {"semantics": result.outcome.semantics, **serialize_row(row)}
        for result in comparison.results
        for row in result.rows
    ]


def _serialize_clients(result: JointResult, max_clients: int | None) -> Iterator[dict[str, Any]]:
    traffic, whole = result.outcome.traffic, result.whole.result
    bound = count_bound(result)
    denied = whole.client_offered - whole.client_admitted
    clients = range(len(denied)) if max_clients is None else np.argsort(-denied, kind="stable")[:max_clients].tolist()
    for client in clients:
        yield {
            "client": traffic.names[client],
            "offered": int(whole.client_offered[client]),
            "admitted": int(whole.client_admitted[client]),
            "bound": {
                policy.label: int(counts[client])
                for policy, counts in zip(result.outcome.policies, bound, strict=True)
                if not policy.is_shadow
            },
        }


def count_bound(result: JointResult) -> list[Integers]:
    """Return, for each policy, the denied requests of each client that it bound."""
    outcome = result.outcome
    size = len(outcome.traffic.names)
    return [
        np.bincount(outcome.traffic.clients[outcome.bound == number], minlength=size)
        for number in range(len(outcome.policies))
    ]


def list_events(comparison: PolicyComparison) -> Iterator[dict[str, Any]]:
    """Yield every request with the decision by all policies, the policy that bound it and all that denied it."""
    traffic = comparison.traffic
    for start in range(0, len(traffic), EVENT_BATCH):
        part = slice(start, min(start + EVENT_BATCH, len(traffic)))
        requests = [column[part].tolist() for column in (traffic.clock_times, traffic.clients, traffic.costs)]
        decided = [list(_list_decisions(result, part)) for result in comparison.results]
        for at_ns, client, cost, *decisions in zip(*requests, *decided, strict=True):
            for decision in decisions:
                yield {"at_ns": at_ns, "client": traffic.names[client], "cost": cost, **decision}


def _list_decisions(result: JointResult, part: slice) -> Iterator[dict[str, Any]]:
    outcome = result.outcome
    denying = np.zeros((len(outcome.policies), part.stop - part.start), np.bool_)
    for row, policy in zip(denying, outcome.policies, strict=True):
        denied = ~policy.decisions["allowed"]
        if policy.asked.places is None:
            row[:] = denied[part]
        else:
            first, last = np.searchsorted(policy.asked.places, [part.start, part.stop])
            row[policy.asked.places[first:last] - part.start] = denied[first:last]
    labels = [policy.label for policy in outcome.policies]
    rows = zip(*(outcome.decisions[name][part].tolist() for name in ROW_FIELDS), strict=True)
    for row, bound, denials in zip(rows, outcome.bound[part].tolist(), denying.T.tolist(), strict=True):
        yield {
            "semantics": outcome.semantics,
            **dict(zip(ROW_FIELDS, row, strict=True)),
            "bound_by": None if bound < 0 else labels[bound],
            "denied_by": ", ".join(label for label, denied in zip(labels, denials, strict=True) if denied),
        }


# --- sentences


def describe_policies(comparison: PolicyComparison) -> list[str]:
    """Describe the traffic, then each policy on a line: its quota, its key and its requests."""
    return [describe_traffic(comparison.traffic), *map(_describe_policy, comparison.parts)]


def list_conditions(comparison: PolicyComparison) -> list[str]:
    """Return the traffic and the quota of each policy, as short as captions of charts need them."""
    quotas = [f"{part.label} {format_quota(part.policy.quota)}{_describe_unit(part)}" for part in comparison.parts]
    shadows = [" (shadow)" if part.policy.shadow else "" for part in comparison.parts]
    return [describe_traffic(comparison.traffic), *map("".join, zip(quotas, shadows, strict=True))]


def _describe_unit(part: PolicyTraffic) -> str:
    """Return the unit of a cost other than requests, after a quota."""
    return "" if part.policy.cost == "requests" else f" of {part.policy.cost}"


def _describe_policy(part: PolicyTraffic) -> str:
    policy = part.policy
    match = f", for {policy.match}" if policy.match else ""
    shadow = "; a shadow, which only counts" if policy.shadow else ""
    quota = f"{format_quota(policy.quota)}{_describe_unit(part)} (window {about(policy.quota.window)})"
    return f"{part.label}: {policy.algorithm.name}, {quota}, for {describe_key(policy.key)}{match}{shadow}"


def describe_policy_assumption(comparison: PolicyComparison) -> list[str]:
    """Describe what the comparison assumes: the ways to enforce policies, and clients that do not react."""
    ways = [result.outcome.semantics for result in comparison.results]
    lines = [f"{way}: {SEMANTICS[way]}" for way in ways] if ways != ["atomic"] else []
    if any(result.whole.result.denied for result in comparison.results):
        lines.append("clients in the lab do not react to a denial: a denied request is not sent again")
    return lines


def summarize_policies(comparison: PolicyComparison) -> list[str]:
    """Return the findings: the denials and their causes, burned quota, exceeded quotas and shadow policies."""
    if not len(comparison.traffic):
        return ["There were no requests, so there is nothing to compare."]
    several = len(comparison.results) > 1
    first = next((each for each in comparison.results if each.outcome.semantics == "atomic"), comparison.results[0])
    sentences = [_describe_loss(first, other) for other in comparison.results if other is not first]
    sentences += [_describe_denials(result, several) for result in comparison.results]
    sentences += [sentence for result in comparison.results for sentence in _describe_burned(result, several)]
    sentences += _describe_exceeded(first)
    sentences += [sentence for row in first.policies for sentence in _describe_settled(row)]
    return [*sentences, *(sentence for row in first.policies for sentence in _describe_shadow(row))]


def _describe_denials(result: JointResult, several: bool) -> str:
    whole = result.whole.result
    way = f"{result.outcome.semantics.capitalize()}: " if several else ""
    if not whole.denied:
        every = (
            f"all {pluralize(whole.offered, 'request')} were admitted"
            if whole.offered > 1
            else "the only request was admitted"
        )
        return _capitalize(f"{way}{every}{_describe_delays(whole)}.")
    bound = [f"{row.label} bound {row.bound:,}" for row in _rank(result) if row.bound]
    causes = f": {join_names(bound)}" if len(list_enforcing(result)) > 1 else ""
    verb = "was" if whole.denied == 1 else "were"
    return _capitalize(
        f"{way}{format_part(whole.denied, whole.offered, 'request')} {verb} denied{causes}{_describe_delays(whole)}."
    )


def _describe_delays(result: Result) -> str:
    if not result.delayed:
        return ""
    return f"; {result.delayed:,} were delayed by up to {format_seconds(result.max_delay)}"


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def list_enforcing(result: JointResult) -> list[PolicyResult]:
    """Return the figures of the policies that are not shadows."""
    return [row for row in result.policies if row.policy is not None and not row.policy.is_shadow]


def _rank(result: JointResult) -> list[PolicyResult]:
    return sorted(list_enforcing(result), key=lambda row: -row.bound)


def _describe_burned(result: JointResult, several: bool) -> list[str]:
    """Describe the quota that denied requests used up."""
    burned = [f"{row.burned:,} of {row.label}" for row in list_enforcing(result) if row.burned]
    if not burned:
        return []
    way = f" ({result.outcome.semantics})" if several else ""
    return [f"Requests that another policy denied used up quota{way}: {join_names(burned)}."]


def _describe_loss(first: JointResult, other: JointResult) -> str:
    """Describe the further denials of another way to enforce the policies, and of how many clients."""
    more = first.whole.result.client_admitted - other.whole.result.client_admitted
    lost, clients = int(more[more > 0].sum()), int(np.count_nonzero(more > 0))
    names = other.outcome.semantics, first.outcome.semantics
    if not lost:
        return f"No client loses a request by {names[0]} instead of {names[1]} policies."
    owner = other.outcome.traffic.names[int(more.argmax())] if clients == 1 else pluralize(clients, "client")
    return f"{_capitalize(names[0])} policies deny {pluralize(lost, 'request')} of {owner} that {names[1]} ones admit."


def _describe_exceeded(result: JointResult) -> list[str]:
    """Describe the enforcing policies whose windows held more than their burst."""
    clauses = [
        f"{row.result.peak_in_window:,} for {row.label} in {about(policy.asked.policy.quota.window)} "
        f"(its quota is {policy.asked.policy.quota.burst:,})"
        for row in list_enforcing(result)
        if (policy := row.policy) is not None and row.result.peak_in_window > policy.asked.policy.quota.burst
    ]
    return [f"The fullest windows hold more than the quota: {join_names(clauses)}."] if clauses else []


def _describe_settled(row: PolicyResult) -> list[str]:
    """Describe the cost that admitted requests reserved, and their actual cost."""
    policy = row.policy
    if policy is None or policy.asked.settlement is None:
        return []
    admitted = policy.let_through["allowed"]
    reserved, actual = (
        sum_exactly(costs[admitted]) for costs in (policy.asked.traffic.costs, policy.asked.settlement.actual)
    )
    return [f"The admitted requests reserved {reserved:,} of {row.label}, and used {actual:,}."]


def _describe_shadow(row: PolicyResult) -> list[str]:
    """Describe the decisions of a shadow policy."""
    policy = row.policy
    if policy is None or not policy.is_shadow:
        return []
    denies, admitted = ~policy.decisions["allowed"], policy.let_through["allowed"]
    denied = format_part(row.result.denied, row.result.offered, "request") if row.result.denied else "no request"
    changes = {
        "deny": (int(np.count_nonzero(denies & admitted)), "admit"),
        "admit": (int(np.count_nonzero(~denies & ~admitted)), "deny"),
    }
    clauses = [f"{verb} {count:,} that the others {other}" for verb, (count, other) in changes.items() if count]
    differing = f"; it would {join_names(clauses)}" if clauses else ""
    return [f"The shadow policy {row.label} would deny {denied}{differing}."]


def list_timeline_rows(comparison: PolicyComparison) -> list[TimelineRow]:
    """Return rows for a timeline: the decisions by all policies, and the denials that each policy bound."""
    rows: list[TimelineRow] = []
    for result in comparison.results:
        outcome = result.outcome
        name = outcome.semantics if len(comparison.results) > 1 else result.whole.label
        rows.append(TimelineRow(name, comparison.traffic, outcome.decisions))
        for number, row in enumerate(result.policies):
            if row.policy is not None and not row.policy.is_shadow:
                denials = {"allowed": outcome.bound != number, "delay_ns": np.zeros(len(outcome.bound), np.int64)}
                rows.append(TimelineRow(f"- {row.label}", comparison.traffic, denials))
    return rows
