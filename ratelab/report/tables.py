"""Tables: one model for the terminal and for pages, and the tables of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ratelab.lab.comparison import Comparison
from ratelab.lab.metrics import Condition, Figure, Result, Unit, list_figures
from ratelab.quota import about
from ratelab.report.numbers import format_percent, format_seconds, format_share, pluralize

Mark = Literal["", "best", "worst", "above"]
SIGNS: dict[Mark, str] = {"": "", "best": "*", "worst": "!", "above": "!"}


@dataclass(frozen=True)
class Cell:
    """One value of a table."""

    text: str
    value: float | None = None
    """The number to sort by, in sortable tables."""
    mark: Mark = ""
    before: str = ""
    """An earlier value, which is shown in front of `text` with an arrow."""
    is_name: bool = False
    """Whether this is a name; anything else is aligned as a number."""

    @property
    def sign(self) -> str:
        """The sign of the mark."""
        return SIGNS[self.mark]


@dataclass(frozen=True)
class Table:
    """A table whose rows begin with a name."""

    caption: str
    headers: Sequence[str]
    """The headers of the names and of the other columns."""
    rows: Sequence[tuple[str, Sequence[Cell]]]
    note: str = ""
    """The meaning of the marks."""
    sortable: bool = False
    cut_names: bool = False
    """Whether long names of rows are cut, as those of clients; those of algorithms are broken over lines."""
    key_columns: int = 0
    """The number of columns after the names that identify a row together with its name."""

    @property
    def name_columns(self) -> set[int]:
        """The numbers of the columns that hold names, besides column 0."""
        return {number for _, cells in self.rows for number, cell in enumerate(cells, 1) if cell.is_name}


# --- figures


FORMATTERS: dict[Unit, Callable[[Any], str]] = {
    "count": "{:,}".format,
    "ratio": "{:.2f}".format,
    "percent": format_percent,
    "seconds": format_seconds,
    "name": str,
}
"""The format of a figure by its unit."""


def build_column(
    figure: Figure, values: Sequence[Any], with_marks: bool = False, wholes: Sequence[int] = ()
) -> list[Cell]:
    """Return the cells of a figure, optionally with marks for the best and the worst value.

    With `wholes`, each count has its share of a whole.
    """
    format_value = FORMATTERS[figure.unit]
    marks = _find_marks(figure, values) if with_marks else {}
    texts = ["-" if value is None else format_value(value) for value in values]
    if wholes:
        texts = [format_share(value, whole) if value else "0" for value, whole in zip(values, wholes, strict=True)]
    return [
        Cell(text, mark=marks.get(value, ""), is_name=figure.unit == "name" and value is not None)
        for text, value in zip(texts, values, strict=True)
    ]


def _find_marks(figure: Figure, values: Sequence[Any]) -> dict[Any, Mark]:
    """Return the marks of the best and of the worst values, without a mark that more than half of the rows would get.

    Values that look equal in a table are equal.
    """
    if figure.better is None:
        return {}
    limit, sign = (max, 1) if figure.better == "lower" else (min, -1)
    targets = [] if figure.target is None else [figure.target]
    badness = {value: sign * limit([round(value, 2), *targets]) for value in values if value is not None}
    if len({*badness.values()}) < 2:
        return {}
    ends: dict[Any, Mark] = {min(badness.values()): "best", max(badness.values()): "worst"}
    marks = {value: ends[bad] for value, bad in badness.items() if bad in ends}
    counts = [marks.get(value) for value in values]
    return {value: mark for value, mark in marks.items() if counts.count(mark) * 2 <= len(values)}


def make_rows(names: Sequence[str], columns: Sequence[Sequence[Cell]]) -> list[tuple[str, Sequence[Cell]]]:
    """Return the rows of a table, given by its columns."""
    return [(name, [cells[number] for cells in columns]) for number, name in enumerate(names)]


LEADING_COLUMNS = ("admitted", "in_time", "delayed", "timed_out", "denied")
"""Figures whose columns come first."""


def select_columns(kind: type, comparison: Comparison, accuracy: bool = False) -> dict[str, Figure]:
    """Return the figures of a dataclass that have a column for this comparison, with their headers filled in."""
    too_late = any(result.timed_out for result in comparison.results)
    present: dict[Condition | None, bool] = {
        None: True,
        "clients": len(comparison.traffic.names) > 1,
        "delays": any(result.delayed for result in comparison.results),
        "no timeouts": not too_late,
        "timeouts": too_late,
        "accuracy": accuracy,
    }
    window = about(comparison.quota.window)
    return {
        name: figure._replace(header=figure.header.format(window=window))
        for name, figure in list_figures(kind).items()
        if figure.header and present[figure.only_with]
    }


# --- the tables of a comparison


def build_comparison_table(comparison: Comparison) -> Table:
    """Return the figures of each algorithm that matter to the choice; those beyond a limit are marked."""
    results, quota, timeout = comparison.results, comparison.quota, comparison.client_timeout
    selected = select_columns(Result, comparison)
    figures = {name: selected[name] for name in (*LEADING_COLUMNS, *selected) if name in selected}
    columns = {name: _build_result_column(results, name, figure) for name, figure in figures.items()}
    limits = {"peak_in_window": quota.burst, "max_delay": timeout / 1e9}
    for name in limits.keys() & columns.keys():
        columns[name] = _mark_above(columns[name], [getattr(result, name) > limits[name] for result in results])
    return Table(
        "Figures of each algorithm",
        ["algorithm", *(figure.header for figure in figures.values())],
        make_rows([result.algorithm for result in results], [*columns.values()]),
        note=_describe_limits(comparison),
    )


def _describe_limits(comparison: Comparison) -> str:
    """Return the meaning of the marks, with the limits; the quota even if nothing exceeds it."""
    quota, results = comparison.quota, comparison.results
    grant = f"quota of {quota.burst:,} in any {about(quota.window)}"
    limits = [f"above the {grant}"] if any(result.peak_in_window > quota.burst for result in results) else []
    if any(result.timed_out for result in results):
        limits.append(f"longer than the client timeout of {about(comparison.client_timeout)}")
    meaning = f"{SIGNS['above']} {', or '.join(limits)}" if limits else ""
    return meaning if grant in meaning else f"{meaning} ({grant})" if meaning else f"With a {grant}."


def _build_result_column(results: Sequence[Result], name: str, figure: Figure, with_marks: bool = False) -> list[Cell]:
    wholes = [getattr(result, figure.part_of) for result in results] if figure.part_of else []
    return build_column(figure, [getattr(result, name) for result in results], with_marks, wholes)


def _mark_above(cells: Sequence[Cell], above: Sequence[bool]) -> list[Cell]:
    return [replace(cell, mark="above") if is_above else cell for cell, is_above in zip(cells, above, strict=True)]


def build_figures_table(comparison: Comparison) -> Table:
    """Return all figures of all algorithms: a row for each figure, with its name in JSON and CSV."""
    results = comparison.results
    rows = [(name, _build_result_column(results, name, figure, True)) for name, figure in list_figures(Result).items()]
    marked = any(cell.mark for _, cells in rows for cell in cells)
    return Table(
        "All figures",
        ["figure", *(result.algorithm for result in results)],
        rows,
        note=f"{SIGNS['best']} best  {SIGNS['worst']} worst" if marked else "",
    )


def build_clients_table(comparison: Comparison, limit: int, denied_only: bool = True) -> Table | None:
    """Return the denials of each client by each algorithm, for at most `limit` clients, the most denied first.

    None if there are fewer than two clients, or none to list.
    """
    traffic, results = comparison.traffic, comparison.results
    denied = np.array([result.client_offered - result.client_admitted for result in results])
    ranked = np.lexsort((-denied[0], -denied.max(axis=0))).tolist()
    caption = "Requests denied, by client, the most denied first"
    if denied_only or len(ranked) > limit:
        count = int(np.count_nonzero(denied.any(axis=0)))
        ranked = ranked[:count]
        shown = f"the {limit:,} most denied of " if count > limit else ""
        caption = f"Requests denied, by client: {shown}the {pluralize(count, 'client')} with denials"
    if len(traffic.names) < 2 or not ranked:
        return None
    counts = np.vstack([traffic.client_requests, denied])
    return Table(
        caption,
        ["client", "offered", *(result.algorithm for result in results)],
        [(traffic.names[index], [*map(build_count, counts[:, index].tolist())]) for index in ranked[:limit]],
        sortable=True,
        cut_names=True,
    )


def build_count(value: int) -> Cell:
    """Return a count as the cell of a sortable table."""
    return Cell(f"{value:,}", value)
