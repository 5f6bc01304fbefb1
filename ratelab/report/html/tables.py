"""The tables of a page, as plain text in cells: what is shown where, but not how it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ratelab.lab.comparison import Comparison
from ratelab.report.accuracy import BROKEN, breaks, card_cell, card_columns
from ratelab.report.equal_protection import EQUAL, differs, equal_cells
from ratelab.report.serialize import result_rows
from ratelab.report.summary import counted
from ratelab.report.tables import BEST, TABLE_COLUMNS, WORST, FigureColumn, cell, denials

MAX_LISTED_CLIENTS = 1000
"""Clients that a page tells of, so that it stays small."""

MARKS = {BEST: "best", WORST: "worst"}


@dataclass(frozen=True)
class Cell:
    """One value: how it is written, what it is sorted by, whether it is the best or the worst, or a name."""

    text: str
    value: float | None = None
    mark: str = ""
    name: bool = False


@dataclass(frozen=True)
class Table:
    """Rows that begin with a name; all cells beside it are numbers unless said otherwise."""

    caption: str
    headers: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    sortable: bool = False
    note: str = ""

    @property
    def named(self) -> set[int]:
        """Which columns hold names, the first being that of the rows' own."""
        return {place for _, cells in self.rows for place, cell in enumerate(cells, 1) if cell.name}


def results(comparison: Comparison) -> Table:
    """Return every figure that tells something of this run."""
    columns = [column for column in TABLE_COLUMNS if _tells(comparison, column)]
    rows = []
    for result in comparison.results:
        told = (cell(comparison, result, column) for column in columns)
        rows.append((result.algorithm, [Cell(text, mark=MARKS.get(mark, "")) for text, mark in told]))
    marked = any(one.mark for _, cells in rows for one in cells)
    note = f"{BEST} the best of a column, {WORST} the worst" if marked else ""
    return Table("The figures of each algorithm", ["algorithm", *(column.name for column in columns)], rows, note=note)


def _tells(comparison: Comparison, column: FigureColumn) -> bool:
    if column.name in ("delayed", "max_delay"):
        return any(result.delayed for result in comparison.results)
    if column.name in ("fairness", "clients_denied_ratio"):
        return len(comparison.traffic.names) > 1
    return True


def card(comparison: Comparison) -> Table:
    """Return each algorithm's accuracy card as a row."""
    columns = card_columns(comparison)
    found = result_rows(comparison)
    rows = [(row["algorithm"], [_card_cell(row, column) for column in columns]) for row in found]
    note = f"{WORST} {BROKEN}" if any(map(breaks, found)) else ""
    return Table("Held against the exact sliding log of the same quota", ["algorithm", *columns], rows, note=note)


def _card_cell(row: dict[str, Any], column: str) -> Cell:
    mark = MARKS[WORST] if column == "peak_in_window" and breaks(row) else ""
    return Cell(card_cell(row, column), mark=mark, name=column == "peak_key")


def equal(comparison: Comparison) -> Table | None:
    """Return what changes from the quota to equal protection, if that was asked for and there is a difference."""
    if comparison.equal_protection is None or not differs(comparison.equal_protection):
        return None
    rows = [
        (
            one.result.algorithm,
            [
                Cell(f"{before} → {after}", mark="" if one.fits or number else "worst")
                for number, (before, after) in enumerate(equal_cells(comparison, one))
            ],
        )
        for one in comparison.equal_protection.equals
    ]
    fits = all(one.fits for one in comparison.equal_protection.equals)
    return Table(
        "At the quota → at equal protection",
        ["algorithm", *(header.replace("\n", "") for header in EQUAL)],
        rows,
        note="" if fits else f"{WORST} no burst tried fits",
    )


def clients(comparison: Comparison) -> Table | None:
    """Return how many requests of each client each algorithm denied, the most denied first.

    Of clients too many for a page, those that were denied; None if there are none, and for one client.
    """
    names, all_results = comparison.traffic.names, comparison.results
    denied, ranked = denials(comparison)
    shown = "the most denied first"
    if len(names) > MAX_LISTED_CLIENTS:
        ranked = ranked[: np.count_nonzero(denied.any(axis=0))]
        shown = _of_many(len(ranked))
    if len(names) < 2 or not ranked:
        return None
    counts = np.vstack([comparison.traffic.client_requests, denied])
    rows = [(names[index], [*map(_count, counts[:, index].tolist())]) for index in ranked[:MAX_LISTED_CLIENTS]]
    return Table(
        f"Requests of each client that each algorithm denied: {shown}",
        ["client", "offered", *(result.algorithm for result in all_results)],
        rows,
        sortable=True,
    )


def _of_many(denied: int) -> str:
    """Say which clients are shown where so many were denied."""
    if denied > MAX_LISTED_CLIENTS:
        return f"the {MAX_LISTED_CLIENTS:,} most denied of the {denied:,} that were denied"
    return f"the {counted(denied, 'client')} that {'was' if denied == 1 else 'were'} denied"


def differing(comparison: Comparison) -> Table | None:
    """Return whose requests were decided otherwise than by the exact log; None if nobody's of several were."""
    pairs = [(one.client_over_admitted, one.client_over_denied) for one in comparison.accuracy]
    known = [(over, under) for over, under in pairs if over is not None and under is not None]
    names, offered = comparison.traffic.names, comparison.traffic.client_requests
    counts = np.array([over + under for over, under in known])
    if len(names) < 2 or not counts.any():
        return None
    ranked = [index for index in np.argsort(-counts.max(axis=0), kind="stable").tolist() if counts[:, index].any()]
    rows = []
    for index in ranked[:MAX_LISTED_CLIENTS]:
        cells = [Cell(f"+{over[index]:,} -{under[index]:,}", int(over[index] + under[index])) for over, under in known]
        rows.append((names[index], [_count(int(offered[index])), *cells]))
    return Table(
        "Requests of each client that were decided otherwise than by the exact log: + admitted, - denied",
        ["client", "offered", *(result.algorithm for result in comparison.results)],
        rows,
        sortable=True,
    )


def _count(value: int) -> Cell:
    return Cell(f"{value:,}", value)
