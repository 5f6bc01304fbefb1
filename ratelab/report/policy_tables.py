"""Tables of several policies together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ratelab.lab.policies.figures import JointResult, PolicyCheck, PolicyComparison, PolicyResult
from ratelab.report.numbers import format_part, format_quota, format_share, pluralize
from ratelab.report.policies import FIGURES, count_bound, get_figure
from ratelab.report.tables import Cell, Table, build_column, build_count, make_rows


def build_policies_table(comparison: PolicyComparison) -> Table:
    """Return the figures of the whole and of each policy that matter to the choice."""
    results = comparison.results
    rows = [row for result in results for row in result.rows]
    names = [name for result in results for name in _name_rows(result, len(results) > 1)]
    columns = {
        FIGURES[name].header: _build_column(name, rows)
        for name in ("delayed", "denied", "bound", "denied_alone", "burned", "differing", "max_delay")
        if _has_column(name, rows)
    }
    if any(row.result.offered != len(comparison.traffic) for row in rows):
        columns = {"asked": [Cell(f"{row.result.offered:,}") for row in rows], **columns}
    columns["most in its window"] = [_build_peak(row) for row in rows]
    if len(comparison.traffic.names) > 1:
        columns[FIGURES["clients_denied"].header] = _build_column("clients_denied", rows)
    exceeded = any(cell.mark for cell in columns["most in its window"])
    return Table(
        "Figures of each policy",
        ["policy", *columns],
        make_rows(names, [*columns.values()]),
        note="! above the quota" if exceeded else "",
    )


def _name_rows(result: JointResult, with_semantics: bool) -> list[str]:
    whole = result.outcome.semantics if with_semantics else result.whole.label
    return [whole, *(f"- {name_policy(row)}" for row in result.policies)]


def name_policy(row: PolicyResult) -> str:
    """Return the label of a policy, and whether it is a shadow."""
    return f"{row.label}, shadow" if row.policy is not None and row.policy.is_shadow else row.label


def _has_column(name: str, rows: Sequence[PolicyResult]) -> bool:
    if name in ("delayed", "max_delay", "burned", "differing"):
        return any(get_figure(row, name) for row in rows)
    return name == "denied" or len([row for row in rows if row.policy is not None]) > 1


def _build_column(name: str, rows: Sequence[PolicyResult]) -> list[Cell]:
    figure = FIGURES[name]
    wholes = []
    if name in ("denied", "clients_denied"):
        wholes = [row.result.offered if name == "denied" else row.result.clients for row in rows]
    values = [get_figure(row, name) for row in rows]
    cells = build_column(figure._replace(better=None), values, wholes=wholes)
    if name in ("bound", "denied_alone", "burned"):
        cells = [
            Cell("-") if row.policy is not None and row.policy.is_shadow else cell
            for row, cell in zip(rows, cells, strict=True)
        ]
    return cells


def _build_peak(row: PolicyResult) -> Cell:
    """Return the cost in the fullest window, and the quota; the whole has no quota of its own."""
    if row.policy is None:
        return Cell("-")
    burst = row.policy.asked.policy.quota.burst
    peak = row.result.peak_in_window
    return Cell(f"{peak:,} of {burst:,}", mark="above" if peak > burst else "")


def build_policy_figures_table(comparison: PolicyComparison) -> Table:
    """Return all figures: a row for each, with its name in JSON and CSV, and a column for the whole and each policy."""
    several = len(comparison.results) > 1
    columns = [
        (f"{result.outcome.semantics}: {row.label}" if several else row.label, row)
        for result in comparison.results
        for row in result.rows
    ]
    rows = [
        (name, build_column(figure._replace(better=None), [get_figure(row, name) for _, row in columns]))
        for name, figure in FIGURES.items()
    ]
    return Table("All figures", ["figure", *(label for label, _ in columns)], rows)


def build_policy_clients_table(comparison: PolicyComparison, limit: int) -> Table | None:
    """Return the denials of each client, by way to enforce the policies and by the policy that bound them.

    None if there are fewer than two clients, or none was denied.
    """
    traffic, results = comparison.traffic, comparison.results
    denied = np.array([row.whole.result.client_offered - row.whole.result.client_admitted for row in results])
    ranked = np.lexsort((-denied[0], -denied.max(axis=0)))[: int(np.count_nonzero(denied.any(axis=0)))].tolist()
    if len(traffic.names) < 2 or not ranked:
        return None
    columns = {"offered": traffic.client_requests}
    for result, counts in zip(results, denied, strict=True):
        columns[f"denied, {result.outcome.semantics}" if len(results) > 1 else "denied"] = counts
        if len(results) == 1:
            bound = zip(result.policies, count_bound(result), strict=True)
            columns |= {
                f"bound by {row.label}": counts for row, counts in bound if row.policy and not row.policy.is_shadow
            }
    shown = f"the {limit:,} most denied of " if len(ranked) > limit else ""
    return Table(
        f"Requests denied, by client: {shown}the {pluralize(len(ranked), 'client')} with denials",
        ["client", *columns],
        [
            (traffic.names[client], [build_count(int(column[client])) for column in columns.values()])
            for client in ranked[:limit]
        ],
        sortable=True,
        cut_names=True,
    )


def build_check_table(check: PolicyCheck) -> Table:
    """Return the denials of each policy alone and together with the others."""
    rows = check.result.policies
    columns = {
        "denied alone": [
            format_share(denied, row.result.offered) for row, (denied, _) in zip(rows, check.alone, strict=True)
        ],
        "clients denied alone": [f"{clients:,}" for _, clients in check.alone],
        "denied together": [format_share(row.result.denied, row.result.offered) for row in rows],
        "bound": ["-" if row.policy is not None and row.policy.is_shadow else f"{row.bound:,}" for row in rows],
    }
    cells = [[Cell(text) for text in column] for column in columns.values()]
    return Table("Requests denied by each policy", ["policy", *columns], make_rows([*map(name_policy, rows)], cells))


def serialize_check(check: PolicyCheck) -> dict[str, Any]:
    """Return the denials of each policy as `--json` prints them, and the policy that is tuned."""
    policies = [
        {
            "policy": row.label,
            "offered": row.result.offered,
            "denied_alone": denied,
            "clients_denied_alone": clients,
            "denied": row.result.denied,
            "bound": row.bound,
            "shadow": row.policy is not None and row.policy.is_shadow,
        }
        for row, (denied, clients) in zip(check.result.policies, check.alone, strict=True)
    ]
    return {"policy": check.chosen and check.chosen.label, "policies": policies}


def describe_policy_check(check: PolicyCheck) -> list[str]:
    """Describe the denials of all policies together, and name the policy for which a quota is recommended."""
    whole, chosen = check.result.whole.result, check.chosen
    denied = format_part(whole.denied, whole.offered, "request") if whole.denied else "no request"
    sentences = [f"Together, the policies deny {denied}."]
    if chosen is not None:
        sentences.append(
            f"For {chosen.label}, now {chosen.policy.algorithm.name}, {format_quota(chosen.policy.quota)}:"
        )
    return sentences
