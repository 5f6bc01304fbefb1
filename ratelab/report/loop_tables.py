"""Tables of closed loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ratelab.lab.closed_loop.diagnoses import has_herd
from ratelab.lab.closed_loop.figures import LoopComparison, LoopResult
from ratelab.quota import about
from ratelab.report.loops import LOOP_FIGURES, name_rows
from ratelab.report.numbers import format_percent, pluralize
from ratelab.report.tables import SIGNS, Cell, Table, build_column, build_count, make_rows

LOOP_COLUMNS = (
    *("successes", "goodput", "amplification", "gave_up", "time_to_success_p50", "time_to_success_p99"),
    *("recovery_time", "denied", "errors", "shed", "timeouts", "locally_rejected", "wasted", "herd_peak"),
    "peak_in_window",
)
"""The figures that have a column, in order; those of tries have one only if there are such tries."""

SHOWN_IF_ZERO = ("successes", "goodput", "amplification", "time_to_success_p50", "time_to_success_p99")
"""Figures that have a column even if they are 0."""


def build_loops_table(comparison: LoopComparison) -> Table:
    """Return the figures of each run that matter to the choice."""
    results = comparison.results
    columns = {
        format_loop_header(name, comparison): _build_column(name, comparison)
        for name in LOOP_COLUMNS
        if _has_column(name, comparison)
    }
    return Table(
        f"Figures of each {name_rows(comparison)}",
        [name_rows(comparison), *columns],
        make_rows([result.label for result in results], [*columns.values()]),
        note=_describe_limit(comparison),
    )


def format_loop_header(name: str, comparison: LoopComparison) -> str:
    """Return the header of a figure's column."""
    windows = {quota.window for quota in comparison.quotas}
    window = about(windows.pop()) if len(windows) == 1 else "its window"
    return LOOP_FIGURES[name].header.format(window=window)


def _describe_limit(comparison: LoopComparison) -> str:
    """Return the meaning of the marks, with the quota if there is a single one."""
    exceeded = any(_is_exceeded(result) for result in comparison.results)
    if len(comparison.quotas) != 1:
        return f"{SIGNS['above']} above the quota" if exceeded else ""
    (quota,) = comparison.quotas
    grant = f"quota of {quota.burst:,} in any {about(quota.window)}"
    return f"{SIGNS['above']} above the {grant}" if exceeded else f"With a {grant}."


def _is_exceeded(result: LoopResult) -> bool:
    return result.policy is not None and (result.peak_in_window or 0) > result.policy.quota.burst


def _has_column(name: str, comparison: LoopComparison) -> bool:
    if name == "recovery_time":
        return any(result.population.faults for result in comparison.results)
    if name == "herd_peak":
        return any(has_herd(result) for result in comparison.results)
    return name in SHOWN_IF_ZERO or any(getattr(result, name) for result in comparison.results)


def _build_column(name: str, comparison: LoopComparison) -> list[Cell]:
    results, cells = comparison.results, _build_figure(name, comparison.results)
    pairs = list(zip(cells, results, strict=True))
    if name == "recovery_time":
        return [
            replace(cell, text="never") if cell.text == "-" and result.population.faults else cell
            for cell, result in pairs
        ]
    if name == "peak_in_window":
        return [replace(cell, mark="above") if _is_exceeded(result) else cell for cell, result in pairs]
    return cells


def _build_figure(name: str, results: Sequence[LoopResult], with_marks: bool = False) -> list[Cell]:
    figure = LOOP_FIGURES[name]
    wholes = [getattr(result, figure.part_of) for result in results] if figure.part_of else []
    return build_column(figure, [getattr(result, name) for result in results], with_marks, wholes)


def build_loop_figures_table(comparison: LoopComparison) -> Table:
    """Return all figures: a row for each, with its name in JSON and CSV."""
    results = comparison.results
    rows = [(name, _build_figure(name, results, with_marks=True)) for name in LOOP_FIGURES]
    marked = any(cell.mark for _, cells in rows for cell in cells)
    return Table(
        "All figures",
        ["figure", *(result.label for result in results)],
        rows,
        note=f"{SIGNS['best']} best  {SIGNS['worst']} worst" if marked else "",
    )


def build_loop_clients_table(comparison: LoopComparison, limit: int) -> Table | None:
    """Return the part of its requests that each client got served, for at most `limit` clients, the worst served first.

    None if there are fewer than two clients, if variants have different ones, or if every request was served.
    """
    results, names = comparison.results, comparison.results[0].population.first_tries.names
    if any(result.population.first_tries.names != names for result in results):
        return None
    begun, served = (
        np.array([result.client_counts[name] for result in results]) for name in ("first_tries", "successes")
    )
    shares = served / np.maximum(begun, 1)
    worst = np.where(begun > 0, shares, 1.0).min(axis=0)
    behind = int(np.count_nonzero(worst < 1))
    if len(names) < 2 or not behind:
        return None
    ranked = np.lexsort((-begun.max(axis=0), worst))[: min(limit, behind)].tolist()
    shown = f"the {limit:,} worst served of " if behind > limit else ""
    headers = ["requests"] if comparison.has_same_requests else []

    def build_row(client: int) -> list[Cell]:
        cells = [_build_share(served[row, client], begun[row, client]) for row in range(len(results))]
        return [*([build_count(int(begun[0, client]))] if headers else []), *cells]

    return Table(
        f"Requests served, by client: {shown}the {pluralize(behind, 'client')} with unserved requests",
        ["client", *headers, *(result.label for result in results)],
        [(names[client], build_row(client)) for client in ranked],
        sortable=True,
        cut_names=True,
    )


def _build_share(served: Any, begun: Any) -> Cell:
    share = int(served) / max(1, int(begun))
    return Cell(f"{int(served):,} ({format_percent(share)})" if begun else "-", share)
