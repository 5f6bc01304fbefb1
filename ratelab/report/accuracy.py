"""Accuracy of each algorithm as tables and sentences: how far it is from the exact sliding log."""

from __future__ import annotations

from typing import Any

import numpy as np

from ratelab.lab.accuracy import Accuracy
from ratelab.lab.comparison import Comparison
from ratelab.lab.counter_estimate import CLAIMED_DIFFERENCE, CLAIMED_WRONG, Estimate
from ratelab.lab.metrics import Result, list_figures
from ratelab.report.numbers import format_count, format_percent, format_short_moment, is_dated, join_names, pluralize
from ratelab.report.serialize import serialize_results
from ratelab.report.tables import SIGNS, Cell, Table, build_column, build_count, make_rows, select_columns

RESULT_COLUMNS = ("over_admitted", "over_denied", "peak_in_window")
"""The figures of a `Result` that the table repeats, before those of `Accuracy`."""

EXPLAINED = ("over_admitted", "over_denied", "at_most", "unearned", "withheld")
"""The figures whose meanings stand below the table in the terminal."""


def build_accuracy_table(comparison: Comparison) -> Table:
    """Return the accuracy of each algorithm; a peak above the guarantee of the algorithm is marked."""
    repeated = select_columns(Result, comparison, accuracy=True)
    figures = {**{name: repeated[name] for name in RESULT_COLUMNS}, **select_columns(Accuracy, comparison)}
    rows = serialize_results(comparison)
    columns = {name: build_column(figure, [row[name] for row in rows]) for name, figure in figures.items()}
    broken = [_breaks_guarantee(row) for row in rows]
    columns["peak_in_window"] = [
        Cell(cell.text, mark="worst" if is_broken else "")
        for cell, is_broken in zip(columns["peak_in_window"], broken, strict=True)
    ]
    if is_dated(comparison.traffic):
        columns["peak_at"] = [
            Cell(
                "-" if row["peak_at"] is None else format_short_moment(comparison.traffic, round(1e9 * row["peak_at"]))
            )
            for row in rows
        ]
    return Table(
        "Compared with the exact sliding log of the same quota",
        ["algorithm", *(figure.header for figure in figures.values())],
        make_rows([row["algorithm"] for row in rows], [*columns.values()]),
        note=f"{SIGNS['worst']} more than the algorithm guarantees" if any(broken) else "",
    )


def explain_figures() -> list[str]:
    """Return the meanings of the figures that readers may not know."""
    figures = {**list_figures(Result), **list_figures(Accuracy)}
    return [f"{figures[name].header}: {figures[name].meaning}" for name in EXPLAINED]


def _breaks_guarantee(row: dict[str, Any]) -> bool:
    """Return whether the fullest window of an algorithm exceeds its guarantee."""
    return row["at_most"] is not None and bool(row["peak_in_window"] > row["at_most"])


def build_differing_table(comparison: Comparison, limit: int) -> Table | None:
    """Return the clients with the most requests decided differently than by the exact log; None if there are none.

    A cell holds the client's `over_admitted` and `over_denied`.
    """
    pairs = [(card.client_over_admitted, card.client_over_denied) for card in comparison.accuracy]
    known = [(over, under) for over, under in pairs if over is not None and under is not None]
    names, offered = comparison.traffic.names, comparison.traffic.client_requests
    counts = np.array([over + under for over, under in known])
    if len(names) < 2 or not counts.any():
        return None
    most = counts.max(axis=0)
    ranked = [index for index in np.argsort(-most, kind="stable")[:limit].tolist() if most[index]]
    rows = []
    for index in ranked:
        cells = [Cell(f"+{over[index]:,} -{under[index]:,}", int(over[index] + under[index])) for over, under in known]
        rows.append((names[index], [build_count(int(offered[index])), *cells]))
    return Table(
        "Requests decided differently than by the exact log, by client",
        ["client", "offered", *(result.algorithm for result in comparison.results)],
        rows,
        note="+ over-admitted  - over-denied",
        sortable=True,
        cut_names=True,
    )


def describe_differences(comparison: Comparison) -> list[str]:
    """Describe the share of each algorithm's decisions that differ from the exact log; nothing if it is unknown."""
    counts = {
        result.algorithm: result.over_admitted + result.over_denied
        for result in comparison.results
        if result.over_admitted is not None and result.over_denied is not None
    }
    offered = max(1, len(comparison.traffic))
    differing = [f"{name} {count:,} ({format_percent(count / offered)})" for name, count in counts.items() if count]
    same = [name for name, count in counts.items() if not count]
    parts = [", ".join(differing)] if differing else []
    parts += [f"{join_names(same)} none"] if same else []
    return [f"Decisions that differ from those of the exact log: {'; '.join(parts)}."] if parts else []


def describe_estimate(comparison: Comparison) -> list[str]:
    """Describe the error of the sliding counter's estimate, compared with a published claim about it."""
    estimate, offered = comparison.estimate, len(comparison.traffic)
    if estimate is None or not offered:
        return []
    wrong = estimate.wrongly_allowed + estimate.wrongly_limited
    share = f" ({format_percent(estimate.wrong_ratio)})" if wrong else ""
    return [
        "As an estimate of the requested rate, without denials, the sliding counter was off by "
        f"{format_percent(estimate.mean_difference)} on average, and on the wrong side of the limit for "
        f"{format_count(wrong)} of {pluralize(offered, 'request')}{share}. {_describe_keys(estimate)} "
        f"Cloudflare's analysis of 2017 found {format_percent(CLAIMED_DIFFERENCE)} and "
        f"{format_percent(CLAIMED_WRONG)}: https://blog.cloudflare.com/counting-things-a-lot-of-different-things/"
    ]


def _describe_keys(estimate: Estimate) -> str:
    missed = f" ({estimate.keys_missed:,} of them missed)" if estimate.keys_missed else ""
    return (
        f"Keys ever above the limit: {estimate.keys_above:,}{missed}; only by the estimate: {estimate.keys_blamed:,}."
    )
