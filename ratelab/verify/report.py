"""Report of `ratelab verify`: text for the terminal and an object for `--json`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ratelab.algorithms import Policy
from ratelab.lab.traffic import Traffic
from ratelab.policies.description import describe_limit
from ratelab.quota import Quota, about
from ratelab.report.numbers import pluralize
from ratelab.report.serialize import serialize_quota
from ratelab.report.summary import describe_run, describe_traffic
from ratelab.verify.agreement import Agreement, Percentiles
from ratelab.verify.header_checks import HEADER_ERRORS
from ratelab.verify.reference import CombinedPolicies

MAX_LISTED_DIFFERENCES = 10

MIN_REPORTED_LATENESS_NS = 20_000_000
"""Lateness from which on the report advises a lower speed."""


@dataclass(frozen=True, eq=False)
class VerifyReport:
    """An agreement and the run that it describes."""

    agreement: Agreement
    policy: Policy
    """The policy that the endpoint was compared with."""
    quota: Quota
    """That of the scenario."""
    traffic: Traffic
    """With its times as sent, so divided by `speed`."""
    scenario: str
    seed: int
    url: str
    header: str
    """The header that identified clients to the server."""
    speed: float


def render_report(report: VerifyReport) -> RenderableType:
    """Render the report for a terminal: agreement, differences, header errors, times and advice."""
    agreement = report.agreement
    parts: list[RenderableType] = [
        Text(f"{report.scenario} against {report.url}, {report.policy.name}", style="bold"),
        *_describe_limits(report),
        Text(),
        Text(_summarize(agreement), style="bold red" if agreement.differences else "bold green"),
    ]
    if agreement.differences:
        parts += [_render_differences(agreement), Text()]
    if agreement.header_errors:
        parts += [Text("errors in header fields", style="bold red"), _render_header_errors(agreement), Text()]
    else:
        parts.append(Text("header fields correct", style="green"))
    parts += [Text(line) for line in _format_times(agreement)]
    parts += [Text(f"\n{sentence}") for sentence in _advise(report)]
    return Group(*parts)


def _describe_limits(report: VerifyReport) -> Iterator[Text]:
    """Yield the requests and the quota, or those of several policies."""
    algorithm = report.policy.algorithm
    if not isinstance(algorithm, CombinedPolicies):
        yield Text(describe_run(report.traffic, report.quota))
        return
    yield Text(describe_traffic(report.traffic))
    for policy in algorithm.policies:
        yield Text(f"{policy.name}: {describe_limit(policy)}, {policy.algorithm.name}")


def _summarize(agreement: Agreement) -> str:
    share = agreement.agreeing / agreement.requests
    percent = "100" if not agreement.differences else f"{min(99.9, 100 * share):.3g}"
    summary = f"{agreement.agreeing:,} of {pluralize(agreement.requests, 'response')} as simulated ({percent} %)"
    if not agreement.close_calls:
        return summary
    if agreement.close_calls == len(agreement.differences):
        return f"{summary}, the rest {'a close call' if agreement.close_calls == 1 else 'close calls'}"
    return f"{summary}, {pluralize(agreement.close_calls, 'close call')} among the rest"


def _render_differences(agreement: Agreement) -> RenderableType:
    table = _create_table("request", "at", "client", "simulated", "answered", "")
    for difference in agreement.differences[:MAX_LISTED_DIFFERENCES]:
        table.add_row(
            f"{difference.request:,}",
            f"{difference.at_ns / 1e9:.3f}s",
            escape(difference.client),
            difference.simulated,
            escape(difference.answered),
            "close call" if difference.close_call else "",
        )
    rest = len(agreement.differences) - MAX_LISTED_DIFFERENCES
    return Group(table, *([Text(f"... and {rest:,} more")] if rest > 0 else []))


def _render_header_errors(agreement: Agreement) -> Table:
    table = _create_table("responses", "error", "example")
    for error in agreement.header_errors:
        example = error.examples[0]
        text = f"request {example.request:,}, {example.client}: {example.detail}"
        table.add_row(f"{error.count:,}", HEADER_ERRORS[error.kind], escape(text))
    return table


def _create_table(*headers: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, justify="right" if header in ("request", "at", "responses") else "left")
    return table


def _format_times(agreement: Agreement) -> Iterator[str]:
    for name, percentiles in (("latency", agreement.latency), ("sent late by", agreement.lateness)):
        if percentiles is not None:
            text = "  ".join(f"{percentile} {about(value)}" for percentile, value in percentiles._asdict().items())
            yield f"{name + ':':13} {text}"


def _advise(report: VerifyReport) -> Iterator[str]:
    """Yield probable causes of the differences, each with a remedy."""
    agreement, header = report.agreement, report.header
    clients = len(set(report.traffic.keys[report.traffic.clients].tolist()))
    remedy = f"run the server with --key header:{header}"
    if agreement.used_keys and clients > 1:
        yield (
            f"{agreement.used_keys:,} of {pluralize(clients, 'client')} started with a used quota, as if they shared "
            f"it: {remedy}, or name with --key the header by which the server identifies clients."
        )
    elif agreement.used_keys:
        yield (
            "The client started with a used quota, since the server had counted earlier requests from it: "
            f"wait until the quota is replenished, or {remedy}."
        )
    if agreement.close_calls and not agreement.used_keys:
        yield (
            f"{pluralize(agreement.close_calls, 'close call')}: for some decision time between request and response, "
            "the simulation agrees with the server. The scenario sends requests just when quota is replenished."
        )
    if agreement.differences and agreement.lateness and agreement.lateness.max > MIN_REPORTED_LATENESS_NS:
        yield (
            f"Requests were sent up to {about(agreement.lateness.max)} late: lower --speed, or use a less busy machine."
        )


def report_object(report: VerifyReport) -> dict[str, Any]:
    """Return the whole report as the object that `--json` prints; times are in seconds."""
    agreement = report.agreement
    return {
        "version": 1,
        "scenario": report.scenario,
        "seed": report.seed,
        "url": report.url,
        "algorithm": report.policy.name,
        **_serialize_limits(report),
        "speed": report.speed,
        "duration": report.traffic.duration / 1e9,
        "requests": agreement.requests,
        "agreeing": agreement.agreeing,
        "agreement": agreement.agreeing / agreement.requests,
        "close_calls": agreement.close_calls,
        "errors": agreement.failures,
        "used_keys": agreement.used_keys,
        "differing": [
            {
                "request": difference.request,
                "at": difference.at_ns / 1e9,
                "client": difference.client,
                "simulated": difference.simulated,
                "answered": difference.answered,
                "close_call": difference.close_call,
            }
            for difference in agreement.differences
        ],
        "faults": [
            {
                "kind": error.kind,
                "count": error.count,
                "examples": [
                    {"request": example.request, "client": example.client, "told": example.detail}
                    for example in error.examples
                ],
            }
            for error in agreement.header_errors
        ],
        "latency": _in_seconds(agreement.latency),
        "lateness": _in_seconds(agreement.lateness),
    }


def _serialize_limits(report: VerifyReport) -> dict[str, Any]:
    algorithm = report.policy.algorithm
    if not isinstance(algorithm, CombinedPolicies):
        return {"quota": serialize_quota(report.quota)}
    limits = [(policy, serialize_quota(policy.quota)) for policy in algorithm.policies]
    return {"policies": [{"name": each.name, "algorithm": each.algorithm.name, **quota} for each, quota in limits]}


def _in_seconds(percentiles: Percentiles | None) -> dict[str, float] | None:
    return percentiles and {name: value / 1e9 for name, value in percentiles._asdict().items()}
