"""Comparisons as tables for the terminal, no wider than 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ratelab.lab.comparison import Comparison
from ratelab.lab.decisions import Decisions
from ratelab.lab.metrics import Result
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic
from ratelab.quota import Quota, about
from ratelab.report.summary import counted, findings, granted, seconds

TERMINAL_COLUMNS = 80
MIN_NAME_COLUMNS = 16
"""Columns of the terminal that a name always has; it gets what the numbers leave, and ends in an ellipsis if longer."""
HEADER = 9
"""Columns in which the name of an algorithm is broken."""

Row = tuple[str, Sequence[str]]


def client_table(title: str, headers: Sequence[str], rows: Sequence[Row]) -> RenderableType:
    """Return a row for each client; columns that do not fit beside its name stand in a further table below."""
    widths = [_width(header, [cells[place] for _, cells in rows]) for place, header in enumerate(headers)]
    tables = [_table(title, headers[part], widths[part], rows, part) for part in _parts(widths)]
    return Group(tables[0], *(one for table in tables[1:] for one in (Text(), table)))


def name_room(widths: Sequence[int]) -> int:
    """Return how wide a name may be beside columns of these widths."""
    return max(MIN_NAME_COLUMNS, TERMINAL_COLUMNS - sum(widths) - len(widths))


def _width(header: str, cells: Sequence[str]) -> int:
    words = header.replace("-", "- ").split()
    return max(min(HEADER, max(map(len, words))), *map(len, cells))


def _parts(widths: Sequence[int]) -> Iterator[slice]:
    """Yield the columns of each table."""
    begin = 0
    for place in range(1, len(widths)):
        if sum(widths[begin : place + 1]) + place + 1 - begin > TERMINAL_COLUMNS - MIN_NAME_COLUMNS:
            yield slice(begin, place)
            begin = place
    yield slice(begin, len(widths))


def _table(title: str, headers: Sequence[str], widths: Sequence[int], rows: Sequence[Row], part: slice) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(title, overflow="ellipsis", no_wrap=True, vertical="bottom", max_width=name_room(widths))
    for header, width in zip(headers, widths, strict=True):
        table.add_column(
            escape(header).replace("-", "-\n"), justify="right", vertical="bottom", overflow="fold", width=width
        )
    for name, cells in rows:
        table.add_row(escape(name), *cells[part])
    return table


NOTHING, ADMITTED, DELAYED, SOME_DENIED, DENIED = ".", "|", "~", "+", "x"
_STYLES = {NOTHING: "dim", ADMITTED: "green", DELAYED: "yellow", SOME_DENIED: "magenta", DENIED: "red"}

LEGEND = (
    f"{ADMITTED} admitted  {DELAYED} some delayed  {SOME_DENIED} some denied  {DENIED} all denied  {NOTHING} no request"
)


def strips(comparison: Comparison, width: int = 80) -> RenderableType:
    """Return a strip for each algorithm over a common time axis, `width` columns wide in all."""
    traffic = comparison.traffic
    margin = max(len(outcome.policy.name) for outcome in comparison.outcomes) + 1
    cells = max(20, width - margin)
    places = traffic.times.astype(np.float64) / traffic.duration * cells
    lines = [
        Text(f"{outcome.policy.name:<{margin}}").append_text(
            strip(places.astype(np.int64).clip(0, cells - 1), outcome.rows, cells)
        )
        for outcome in comparison.outcomes
    ]
    end = about(traffic.duration)
    axis = Text(f"{'':<{margin}}0s{end:>{cells - 2}}", style="dim")
    return Group(*lines, axis, Text(LEGEND, style="dim"))


def strip(places: Integers, decisions: Decisions, cells: int) -> Text:
    """Return a letter for each of so many cells, of which `places` names each request's."""
    offered = np.bincount(places, minlength=cells)
    denied = np.bincount(places[~decisions["allowed"]], minlength=cells)
    delayed = np.bincount(places[decisions["delay_ns"] > 0], minlength=cells)
    marks = np.select(
        [offered == 0, denied == offered, denied > 0, delayed > 0],
        [NOTHING, DENIED, SOME_DENIED, DELAYED],
        ADMITTED,
    )
    line = Text()
    for mark in marks.tolist():
        line.append(mark, style=_STYLES[mark])
    return line


BEST, WORST = "*", "!"


@dataclass(frozen=True)
class FigureColumn:
    """One figure of every result: its name, how it is written and how bad a value is."""

    header: str
    show: Callable[[Any, Any], str]
    """How a value is written in a column of which the largest is the other."""
    badness: Callable[[Any], float] | None = None
    """How bad a value is; None where that depends on what one wants."""

    @property
    def name(self) -> str:
        """The figure's name in `Result`, which the header breaks over several lines."""
        return self.header.replace("-\n", "").replace("\n", "")


def _count(value: int, most: int) -> str:
    """Write a count; where a column has one of a million, millions for all that are no small numbers."""
    return f"{value:,}" if most < 1_000_000 or value < 10_000 else f"{value / 1e6:.3f}M"


def _ratio(value: float, _: float) -> str:
    return f"{value:.2f}"


TABLE_COLUMNS = (
    FigureColumn("admitted", _count),
    FigureColumn("denied", _count),
    FigureColumn("delayed", _count),
    FigureColumn("max_\ndelay", lambda delay, _: seconds(delay), float),
    FigureColumn("peak_\nin_\nwindow", _count),
    FigureColumn("over-\nshoot", _ratio, lambda overshoot: max(1.0, overshoot)),
    FigureColumn("over_\nadmitted", _count, float),
    FigureColumn("over_\ndenied", _count, float),
    FigureColumn("fairness", _ratio, lambda fairness: -fairness),
    FigureColumn("clients_\ndenied_\nratio", lambda ratio, _: f"{100 * ratio:.3g}%"),
)


def comparison_table(comparison: Comparison, many_clients: bool = False) -> RenderableType:
    """Return the figures that tell something about this run, and the sentences that follow from them."""
    columns = [column for column in TABLE_COLUMNS if column.name in _telling(comparison, many_clients)]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("algorithm", overflow="fold", vertical="bottom")
    for column in columns:
        table.add_column(column.header, justify="right", vertical="bottom", no_wrap=True)
    for result in comparison.results:
        table.add_row(escape(result.algorithm), *(_cell(comparison, result, column) for column in columns))
    legend = [Text(f"{BEST} best  {WORST} worst", style="dim")]
    marked = any(_marks(comparison, column) for column in columns)
    sentences = [Text(sentence) for sentence in findings(comparison, many_clients)]
    return Group(table, *(legend if marked else []), Text(), *sentences)


def denied_table(comparison: Comparison, most: int) -> RenderableType:
    """Return the clients that were denied most often, with each algorithm's denials, at most `most` of them."""
    results, names = comparison.results, comparison.traffic.names
    denied, ranked = denials(comparison)
    offered = comparison.traffic.client_requests.tolist()
    rows = [
        (names[index], [f"{count:,}" for count in (offered[index], *denied[:, index].tolist())])
        for index in ranked[:most]
        if denied[:, index].any()
    ]
    return client_table("most denied\nclient", ["offered", *(result.algorithm for result in results)], rows)


def denials(comparison: Comparison) -> tuple[Integers, list[int]]:
    """Return how many requests of each client, by column, each result denied, and the clients, the most denied first.

    Clients of whom the harshest denied as many stand in the order of what the first denied.
    """
    denied = np.array([result.client_offered - result.client_admitted for result in comparison.results])
    return denied, np.lexsort((-denied[0], -denied.max(axis=0))).tolist()


def heading(traffic: Traffic, quota: Quota) -> str:
    """Return two lines: the requests and clients of the traffic, and the quota."""
    each = "key" if _keys(traffic) < len(traffic.names) else "client"
    granting = f"{granted(quota)}, burst {quota.burst:,} (window {about(quota.window)})"
    return f"{asked(traffic)}\nquota for each {each}: {granting}"


def asked(traffic: Traffic) -> str:
    """Say what was asked, and by how many."""
    keys = _keys(traffic)
    shared = f" sharing {counted(keys, 'key')}" if keys < len(traffic.names) else ""
    who = f"{counted(len(traffic.names), 'client')}{shared}"
    return f"{counted(len(traffic), 'request')} from {who} in {about(traffic.duration)}"


def _keys(traffic: Traffic) -> int:
    return len(np.unique(traffic.keys))


def _telling(comparison: Comparison, many_clients: bool) -> set[str]:
    """Return the columns to show: there is room for nine, so those that cannot differ in this run are left out."""
    names = {"admitted", "denied", "overshoot", "over_admitted", "over_denied"}
    if any(result.delayed for result in comparison.results):
        names |= {"delayed", "max_delay"}
    if many_clients:
        return names | {"clients_denied_ratio"}
    return names | ({"fairness"} if len(comparison.traffic.names) > 1 else {"peak_in_window"})


def _cell(comparison: Comparison, result: Result, column: FigureColumn) -> Text:
    text, mark = cell(comparison, result, column)
    mark = mark or (" " if column.badness else "")
    return Text(f"{text}{mark}", style={BEST: "green", WORST: "red"}.get(mark, ""))


def cell(comparison: Comparison, result: Result, column: FigureColumn) -> tuple[str, str]:
    """Return how a figure is written, and its mark if it is the best or the worst of its column."""
    value = getattr(result, column.name)
    if value is None:
        return "-", ""
    most = max(filter(None, (getattr(result, column.name) for result in comparison.results)), default=0)
    return column.show(value, most), _marks(comparison, column).get(value, "")


def _marks(comparison: Comparison, column: FigureColumn) -> dict[Any, str]:
    """Return the mark of a column's best and worst values; one that more than half of all would bear tells nothing."""
    if column.badness is None:
        return {}
    values = [getattr(result, column.name) for result in comparison.results]
    known = {value: column.badness(round(value, 2)) for value in values if value is not None}
    ends = {min(known.values(), default=0): BEST, max(known.values(), default=0): WORST}
    marks = {value: ends[badness] for value, badness in known.items() if badness in ends}
    if len(ends) < 2:
        return {}
    shown = [marks.get(value) for value in values]
    return {value: mark for value, mark in marks.items() if shown.count(mark) * 2 <= len(values)}
