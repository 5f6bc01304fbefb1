"""Sweep of quotas as a table, as a sentence and as plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

from ratelab.lab.sweep import SweepResult, SweepRow
from ratelab.lab.traffic import Traffic
from ratelab.quota import UNITS, Quota
from ratelab.report.numbers import format_percent, format_rate, format_share
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


def build_sweep_tables(result: SweepResult) -> list[Table]:
    """Return the requests and, if there are several, the clients denied: a row for each quota."""
    goal = f"goal: at most {format_percent(MAX_DENIED_RATIO)} of requests"
    requests = f"Requests denied, of {result.offered:,}"
    tables = [_build_table(result, requests, goal, lambda row: (row.denied, result.offered))]
    if result.clients > 1:
        clients = f"Clients denied at least once, of {result.clients:,}"
        tables.append(_build_table(result, clients, "", lambda row: (row.clients_denied, result.clients)))
    return tables


def _build_table(result: SweepResult, caption: str, note: str, part: Callable[[SweepRow], tuple[int, int]]) -> Table:
    cells = {(row.quota, row.algorithm): Cell(format_share(*part(row)) if part(row)[0] else "0") for row in result.rows}
    unit = choose_rate_unit(result.quotas)
    return Table(
        caption,
        ["rate", "burst", *result.algorithms],
        [
            (
                _format_rate(quota, unit),
                [Cell(f"{quota.burst:,}"), *(cells[quota, algorithm] for algorithm in result.algorithms)],
            )
            for quota in result.quotas
        ],
        note=note,
        key_columns=1,
    )


def describe_sweep(result: SweepResult) -> str:
    """Describe the lowest quota that denies few requests, and the denials of the lowest quota of all."""
    if not result.offered:
        return "There were no requests, so there is nothing to deny."
    groups, unit = _group_by_quota(result), choose_rate_unit(result.quotas)
    lowest, highest = next(iter(groups)), next(reversed(groups))
    even = "Even " if len(groups) > 1 else ""
    if not any(row.denied for row in result.rows):
        return f"{even}{_format_quota(lowest, unit)} denied no request."
    sufficient = find_sufficient_quota(result)
    if sufficient is None:
        return f"{even}{_format_quota(highest, unit)} denied {_summarize_denials(result, groups[highest])}."
    if sufficient == lowest:
        return f"{even}{_format_quota(lowest, unit)} denied no more than {_summarize_denials(result, groups[lowest])}."
    algorithms = result.algorithms
    actor = "every algorithm" if len(algorithms) > 1 else algorithms[0]
    return (
        f"{_format_quota(sufficient, unit)} is the lowest quota tried with which {actor} denied at most "
        f"{format_percent(MAX_DENIED_RATIO)} of requests; "
        f"{_format_quota(lowest, unit)} denied {_summarize_denials(result, groups[lowest])}."
    )


def find_sufficient_quota(result: SweepResult) -> Quota | None:
    """Return the lowest quota with which every algorithm denies few requests; None if there is none."""
    groups = _group_by_quota(result).items()
    return next((quota for quota, rows in groups if all(row.denied_ratio <= MAX_DENIED_RATIO for row in rows)), None)


def choose_rate_unit(quotas: Iterable[Quota]) -> str:
    """Return the smallest unit in which all rates are whole numbers, else the smallest in which none is below 1."""
    units, rates = ("s", "min", "h", "day"), {compute_rate(quota) for quota in quotas}
    whole = (unit for unit in units if all((rate * UNITS[unit]).denominator == 1 for rate in rates))
    return next(whole, next((unit for unit in units if min(rates) * UNITS[unit] >= 1), units[-1]))


def compute_rate(quota: Quota) -> Fraction:
    """Return the rate of a quota, in units of cost per nanosecond."""
    return Fraction(quota.limit, quota.period)


def _format_rate(quota: Quota, unit: str) -> str:
    """Format a rate in the unit that all rates have, if it is a whole number of it."""
    rate = compute_rate(quota) * UNITS[unit]
    return f"{int(rate):,}/{unit}" if rate.denominator == 1 else format_rate(quota)


def _format_quota(quota: Quota, unit: str) -> str:
    return f"{_format_rate(quota, unit)}, burst {quota.burst:,}"


def _group_by_quota(result: SweepResult) -> dict[Quota, list[SweepRow]]:
    """Return the rows of each quota, ordered by rate and then by burst."""
    groups: dict[Quota, list[SweepRow]] = {}
    for row in sorted(result.rows, key=lambda row: (row.quota.limit / row.quota.period, row.quota.burst)):
        groups.setdefault(row.quota, []).append(row)
    return groups


def _summarize_denials(result: SweepResult, rows: Sequence[SweepRow]) -> str:
    """Return the shares of requests and clients that one quota denied, from the lowest to the highest."""
    requests = f"{_format_range([row.denied / result.offered for row in rows])} of requests"
    if result.clients < 2:
        return requests
    clients = _format_range([row.clients_denied / result.clients for row in rows])
    return f"{requests} and, at least once, {clients} of clients"


def _format_range(ratios: Sequence[float]) -> str:
    """Return the lowest and the highest percentage: `4.22 to 11.6 %`, `0 to 5 %`, `3 %`."""
    ends = dict.fromkeys(format_percent(ratio) for ratio in (min(ratios), max(ratios)))
    return " to ".join(ends).replace(" % to", " to")
