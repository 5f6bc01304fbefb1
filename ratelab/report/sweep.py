"""Sweep of quotas as a table, as a sentence and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ratelab.lab.sweep import SweepResult, SweepRow
from ratelab.lab.traffic import Traffic
from ratelab.quota import Quota
from ratelab.report.serialize import serialize_quota
from ratelab.report.tables import Cell, Table

MAX_DENIED_RATIO = 0.01
"""The share of requests that a sufficient quota may deny."""


def serialize_sweep(traffic: Traffic, result: SweepResult, source: dict[str, Any]) -> dict[str, Any]:
    """Return a sweep as `--json` prints it; `source` describes the source of the traffic."""
    return {
        "version": 1,
        **source,
        "offered": result.offered,
        "duration": traffic.duration / 1e9,
        "results": serialize_sweep_rows(result),
    }


def serialize_sweep_rows(result: SweepResult) -> list[dict[str, Any]]:
    """Return one row for each quota and algorithm, with the parts of the quota among its figures."""
    return [
        {
            "algorithm": row.algorithm,
            **serialize_quota(row.quota),
            "offered": result.offered,
            "denied": row.denied,
            "denied_ratio": row.denied_ratio,
            "clients": result.clients,
            "clients_denied": row.clients_denied,
            "clients_denied_ratio": row.clients_denied_ratio,
        }
        for row in result.rows
    ]


def build_sweep_table(result: SweepResult) -> Table:
    """Return a row for each quota and a column for each algorithm: the percentages of requests and clients denied."""
    algorithms = result.algorithms
    cells = {(row.quota, row.algorithm): Cell(_format_shares(row)) for row in result.rows}
    return Table(
        "% of requests denied / % of clients denied at least once",
        ["rate", "burst", *algorithms],
        [
            (quota.rate, [Cell(f"{quota.burst:,}"), *(cells[quota, algorithm] for algorithm in algorithms)])
            for quota in result.quotas
        ],
        key_columns=1,
    )


def describe_sweep(result: SweepResult) -> str:
    """Describe the lowest quota that denies few requests, and the denials of the lowest quota of all."""
    if not result.offered:
        return "There were no requests, so there is nothing to deny."
    groups = _group_by_quota(result)
    lowest, highest = next(iter(groups)), next(reversed(groups))
    even = "Even " if len(groups) > 1 else ""
    if not any(row.denied for row in result.rows):
        return f"{even}{_format_quota(lowest)} denied no request."
    sufficient = find_sufficient_quota(result)
    if sufficient is None:
        return f"{even}{_format_quota(highest)} denied {_summarize_denials(result, groups[highest])}."
    if sufficient == lowest:
        return f"{even}{_format_quota(lowest)} denied no more than {_summarize_denials(result, groups[lowest])}."
    algorithms = result.algorithms
    actor = "every algorithm" if len(algorithms) > 1 else algorithms[0]
    return (
        f"{_format_quota(sufficient)} is the lowest quota tried with which {actor} denied at most "
        f"{100 * MAX_DENIED_RATIO:g} % of requests; "
        f"{_format_quota(lowest)} denied {_summarize_denials(result, groups[lowest])}."
    )


def find_sufficient_quota(result: SweepResult) -> Quota | None:
    """Return the lowest quota with which every algorithm denies few requests; None if there is none."""
    return next(
        (
            quota
            for quota, rows in _group_by_quota(result).items()
            if max(row.denied_ratio for row in rows) <= MAX_DENIED_RATIO
        ),
        None,
    )


def _format_quota(quota: Quota) -> str:
    """Format a quota with the numbers of the table: `10/min, burst 1,000`."""
    return f"{quota.rate}, burst {quota.burst:,}"


def _group_by_quota(result: SweepResult) -> dict[Quota, list[SweepRow]]:
    """Return the rows of each quota, ordered by rate and then by burst."""
    groups: dict[Quota, list[SweepRow]] = {}
    for row in sorted(result.rows, key=lambda row: (row.quota.limit / row.quota.period, row.quota.burst)):
        groups.setdefault(row.quota, []).append(row)
    return groups


def _summarize_denials(result: SweepResult, rows: Sequence[SweepRow]) -> str:
    """Return the shares of requests and clients that one quota denied, from the lowest to the highest."""
    requests = f"{_format_range([row.denied_ratio for row in rows])} % of requests"
    if result.clients < 2:
        return requests
    return f"{requests} and, at least once, {_format_range([row.clients_denied_ratio for row in rows])} % of clients"


def _format_range(ratios: Sequence[float]) -> str:
    ends = (_format_percentage(ratio) if ratio else "0" for ratio in (min(ratios), max(ratios)))
    return " to ".join(dict.fromkeys(ends))


def _format_shares(row: SweepRow) -> str:
    if not row.denied:
        return "0"
    return f"{_format_percentage(row.denied_ratio)}/{_format_percentage(row.clients_denied_ratio)}"


def _format_percentage(ratio: float) -> str:
    """Format a ratio with three digits; it is 0 or 100 only if it is exactly that."""
    return "100" if ratio == 1 else f"{min(99.9, max(0.01, 100 * ratio)):.3g}"
