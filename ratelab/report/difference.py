"""Difference between two policies as a table, as sentences and as plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ratelab.algorithms import Policy
from ratelab.lab.tune.difference import PolicyDifference
from ratelab.report.numbers import format_part, format_percent, format_quota
from ratelab.report.tables import Table, build_count

if TYPE_CHECKING:
    from ratelab.policies.policy_file import PolicyFile


def serialize_difference(
    difference: PolicyDifference, source: dict[str, Any], tolerated: float, max_clients: int
) -> dict[str, Any]:
    """Return a difference as `--json` prints it, with the clients that it changes most for.

    `source` describes the source of the traffic, `tolerated` is the share of requests that may be newly denied.
    """
    offered, clients = len(difference.traffic), int(np.count_nonzero(difference.traffic.client_requests))
    counts = {"newly_denied": difference.newly_denied, "newly_admitted": difference.newly_admitted}
    totals: dict[str, Any] = {}
    for name, column in counts.items():
        requests, concerned = int(column.sum()), int(np.count_nonzero(column))
        totals[name] = requests
        totals[f"{name}_ratio"] = round(requests / max(1, offered), 6)
        totals[f"clients_{name}"] = concerned
        totals[f"clients_{name}_ratio"] = round(concerned / max(1, clients), 6)
    return {
        "version": 1,
        **source,
        "offered": offered,
        "clients": clients,
        "old": _serialize_side(difference.old, difference.denied_old, offered),
        "new": _serialize_side(difference.new, difference.denied_new, offered),
        **totals,
        "max_newly_denied": tolerated,
        "passed": difference.newly_denied_ratio <= tolerated,
        "per_client": [
            {
                "client": difference.traffic.names[client],
                "offered": int(difference.traffic.client_requests[client]),
                **{name: int(column[client]) for name, column in counts.items()},
            }
            for client in rank_clients(difference, max_clients)
        ],
    }


def _serialize_side(side: Policy | PolicyFile, denied: int, offered: int) -> dict[str, Any]:
    if isinstance(side, Policy):
        limit: dict[str, Any] = {"algorithm": side.name, "rate": side.quota.rate, "burst": side.quota.burst}
    else:
        limit = {"policy_file": side.path, "policies": [policy.name for policy in side.policies]}
    return {
        **limit,
        "denied": denied,
        "denied_ratio": round(denied / max(1, offered), 6),
    }


def rank_clients(difference: PolicyDifference, most: int) -> list[int]:
    """Return the clients with different decisions, at most `most`, those with the most newly denied requests first."""
    order = np.lexsort((-difference.newly_admitted, -difference.newly_denied))
    changed = (difference.newly_denied + difference.newly_admitted)[order] > 0
    ranked: list[int] = order[changed][:most].tolist()
    return ranked


def build_difference_table(difference: PolicyDifference, most: int) -> Table | None:
    """Return a row for each client with different decisions; None if there is none."""
    ranked = rank_clients(difference, most)
    if not ranked:
        return None
    columns = (difference.traffic.client_requests, difference.newly_denied, difference.newly_admitted)
    return Table(
        "Clients with different decisions, those with the most newly denied requests first",
        ["client", "offered", "newly denied", "newly admitted"],
        [
            (difference.traffic.names[client], [build_count(int(column[client])) for column in columns])
            for client in ranked
        ],
        cut_names=True,
    )


def describe_difference(difference: PolicyDifference, tolerated: float) -> list[str]:
    """Describe what each policy denies, what changes, and whether that is tolerated."""
    traffic, offered = difference.traffic, len(difference.traffic)
    clients = int(np.count_nonzero(traffic.client_requests))
    sentences = [
        f"{label}: {_name_side(side)} {_format_part(denied, offered, 'request')}."
        for label, side, denied in (
            ("Old", difference.old, difference.denied_old),
            ("New", difference.new, difference.denied_new),
        )
    ]
    for verb, column in (("denied", difference.newly_denied), ("admitted", difference.newly_admitted)):
        requests, concerned = int(column.sum()), int(np.count_nonzero(column))
        owners = f", of {_format_part(concerned, clients, 'client')}" if concerned else ""
        sentences.append(f"Newly {verb}: {_format_part(requests, offered, 'request')}{owners}.")
    share, limit = format_percent(difference.newly_denied_ratio), format_percent(tolerated)
    passed = difference.newly_denied_ratio <= tolerated
    sentences.append(
        f"{'Passed' if passed else 'Failed'}: {share} of requests newly denied, at most {limit} tolerated "
        "(--max-newly-denied)."
    )
    return sentences


def _name_side(side: Policy | PolicyFile) -> str:
    """Return a limit, or a policy file and the number of its policies, with the verb."""
    if isinstance(side, Policy):
        return f"{side.name}, {format_quota(side.quota)}, denies"
    return f"{side.path}, {len(side.policies)} policies together, denies"


def _format_part(part: int, whole: int, noun: str) -> str:
    return format_part(part, whole, noun) if part else f"no {noun}"
