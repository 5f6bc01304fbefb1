"""Comparisons as plain values: one set of names for JSON, CSV and tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from ratelab.lab.accuracy import Accuracy
from ratelab.lab.comparison import Comparison
from ratelab.lab.equal_protection import EqualProtection
from ratelab.lab.metrics import Result, list_figures
from ratelab.lab.recording import RecordingCheck, digest
from ratelab.lab.spill import Integers
from ratelab.limiter import ROW_FIELDS
from ratelab.quota import Quota

EVENT_COLUMNS = ("at_ns", "client", "cost", "algorithm", *ROW_FIELDS)
"""The columns of a row of events, one for each request and algorithm."""

EVENT_BATCH = 10_000
"""Requests whose events are listed at a time."""


def serialize_comparison(
    comparison: Comparison, source: dict[str, Any], max_clients: int | None = None
) -> dict[str, Any]:
    """Return the whole comparison as `--json` prints it.

    `source` describes the source of the traffic. `max_clients` limits the list of clients to the most denied.
    """
    return {
        "version": 1,
        **source,
        "quota": serialize_quota(comparison.quota),
        "offered": len(comparison.traffic),
        "duration": comparison.traffic.duration / 1e9,
        "client_timeout": comparison.client_timeout / 1e9,
        "results": [
            {**row, "per_client": serialize_clients(comparison, number, max_clients)}
            for number, row in enumerate(serialize_results(comparison))
        ],
        **({"estimate": asdict(comparison.estimate)} if comparison.estimate else {}),
        **(
            {"equal_protection": serialize_equal_protection(comparison.equal_protection)}
            if comparison.equal_protection
            else {}
        ),
    }


def serialize_quota(quota: Quota) -> dict[str, Any]:
    """Return the quota, with its window in seconds, and the time zone of a calendar."""
    timezone = {} if quota.calendar is None else {"timezone": quota.calendar.timezone}
    return {"rate": quota.rate, "burst": quota.burst, "window": quota.window / 1e9, **timezone}


def serialize_results(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the figures of each result, with those of its accuracy if that was measured."""
    rows = [serialize_result(result) for result in comparison.results]
    for row, accuracy in zip(rows, comparison.accuracy, strict=False):
        row |= {name: getattr(accuracy, name) for name in list_figures(Accuracy)}
    return rows


def serialize_result(result: Result) -> dict[str, Any]:
    """Return the name of the algorithm and the figures of a result."""
    return {"algorithm": result.algorithm, **{name: getattr(result, name) for name in list_figures(Result)}}


def serialize_clients(comparison: Comparison, number: int, max_clients: int | None = None) -> list[dict[str, Any]]:
    """Return the requests of each client and their decisions in result `number`.

    With `max_clients`, return the most denied clients, the most denied first.
    """
    result = comparison.results[number]
    columns: dict[str, Integers | None] = {"offered": result.client_offered, "admitted": result.client_admitted}
    if comparison.accuracy:
        accuracy = comparison.accuracy[number]
        columns |= {"over_admitted": accuracy.client_over_admitted, "over_denied": accuracy.client_over_denied}
    denied = result.client_offered - result.client_admitted
    clients = range(len(denied)) if max_clients is None else np.argsort(-denied, kind="stable")[:max_clients].tolist()
    return [
        {
            "client": comparison.traffic.names[index],
            **{name: None if column is None else int(column[index]) for name, column in columns.items()},
        }
        for index in clients
    ]


def list_events(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield every request with every algorithm's decision, in the order of arrival."""
    traffic, outcomes = comparison.traffic, comparison.outcomes
    columns = [traffic.clock_times, traffic.clients, traffic.costs, *(outcome.rows for outcome in outcomes)]
    for start in range(0, len(traffic), EVENT_BATCH):
        batch = [column[start : start + EVENT_BATCH].tolist() for column in columns]
        for at_ns, client, cost, *decisions in zip(*batch, strict=True):
            request = {"at_ns": at_ns, "client": traffic.names[client], "cost": cost}
            for outcome, decision in zip(outcomes, decisions, strict=True):
                yield {**request, "algorithm": outcome.policy.name, **dict(zip(ROW_FIELDS, decision, strict=True))}


def serialize_equal_protection(protection: EqualProtection) -> dict[str, Any]:
    """Return each algorithm's result at equal protection, with the burst found."""
    return {
        "peak_in_window": protection.target,
        "good": protection.good,
        "results": [
            {
                **serialize_result(equal.result),
                "burst": equal.burst,
                "fits": equal.fits,
                "good_denied": equal.good_denied,
                "at_quota_good_denied": equal.at_quota_good_denied,
            }
            for equal in protection.results
        ],
    }


def serialize_recording(check: RecordingCheck) -> dict[str, Any]:
    """Return the comparison of a recording with its replay for `--json`."""
    recorded, replayed = check.recorded, check.replayed
    return {
        "decisions": len(replayed),
        "differing": len(check.differing),
        "shared": recorded.shared,
        "unfinished": recorded.truncated,
        "recorded_sha256": digest(recorded.rows),
        "replayed_sha256": digest(replayed),
    }
