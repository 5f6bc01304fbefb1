"""Tables: one model for the terminal and for pages, the tables of a comparison, and the terminal renderer."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from ratelab.lab.comparison import Comparison
from ratelab.lab.metrics import Figure, Result, Unit, list_figures
from ratelab.report.summary import format_seconds, pluralize

Mark = Literal["", "best", "worst"]
SIGNS: dict[Mark, str] = {"": "", "best": "*", "worst": "!"}


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
    """The headers of the names and of the other columns; soft hyphens mark possible line breaks."""
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
    "percent": lambda value: f"{100 * value:.3g}%",
    "seconds": format_seconds,
    "name": str,
}
"""The format of a figure by its unit."""


def build_column(
    figure: Figure, values: Sequence[Any], with_marks: bool = False, in_millions: bool = False
) -> list[Cell]:
    """Return the cells of a figure, optionally with marks for the best and the worst value.

    With `in_millions`, a column of counts that has one of a million shows all but small ones in millions.
    """
    format_value = FORMATTERS[figure.unit]
    if in_millions and figure.unit == "count" and max((value or 0 for value in values), default=0) >= 1_000_000:
        format_value = _format_in_millions
    marks = _find_marks(figure, values) if with_marks else {}
    return [
        Cell("-")
        if value is None
        else Cell(format_value(value), mark=marks.get(value, ""), is_name=figure.unit == "name")
        for value in values
    ]


def _format_in_millions(value: int) -> str:
    return f"{value:,}" if value < 10_000 else f"{value / 1e6:.3f}M"


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


def select_columns(kind: type, comparison: Comparison) -> dict[str, Figure]:
    """Return the figures of a dataclass that have a column and are of interest for this comparison."""
    present = {
        None: True,
        "delays": any(result.delayed for result in comparison.results),
        "clients": len(comparison.traffic.names) > 1,
    }
    return {name: figure for name, figure in list_figures(kind).items() if figure.header and present[figure.only_with]}


# --- the tables of a comparison


def build_comparison_table(comparison: Comparison, omitted: Collection[str] = ()) -> Table:
    """Return the figures of each algorithm, without those `omitted`."""
    results = comparison.results
    figures = {name: figure for name, figure in select_columns(Result, comparison).items() if name not in omitted}
    columns = [
        build_column(figure, [getattr(result, name) for result in results], with_marks=True, in_millions=True)
        for name, figure in figures.items()
    ]
    marked = any(cell.mark for cells in columns for cell in cells)
    return Table(
        "Figures of each algorithm",
        ["algorithm", *(figure.header for figure in figures.values())],
        make_rows([result.algorithm for result in results], columns),
        note=f"{SIGNS['best']} best  {SIGNS['worst']} worst" if marked else "",
    )


def list_redundant_figures(comparison: Comparison, many_clients: bool) -> set[str]:
    """Return figures to omit in a terminal, which has room for nine columns: others show nearly the same."""
    if many_clients:
        return {"peak_in_window", "fairness"}
    return {"clients_denied_ratio"} | ({"peak_in_window"} if len(comparison.traffic.names) > 1 else set())


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


# --- the terminal renderer

TERMINAL_COLUMNS = 80
MIN_NAME_COLUMNS = 16
"""Width that long names always have; beyond it, they take the width that numbers leave."""
MAX_NAME_CELL_COLUMNS = 16
"""Width at which names in other columns than the first are cut."""
MAX_HEADER_COLUMNS = 9
"""Width at which the parts of a header are broken."""


class _Column(NamedTuple):
    """A column as the terminal shows it."""

    header: str
    texts: Sequence[str]
    styles: Sequence[str]
    width: int
    is_name: bool


def render_table(table: Table, width: int = TERMINAL_COLUMNS, with_caption: bool = True) -> RenderableType:
    """Render a table for a terminal of `width` columns.

    If it is too wide, pairs of values are put on two lines; if that is not enough, the last columns form further
    tables below.
    """
    header = _break_header(table.headers[0])
    names = [name for name, _ in table.rows]
    name_width = min(MIN_NAME_COLUMNS, max(map(cell_len, (*names, *header.split("\n")))))
    parts = _split_columns(_format_columns(table, " -> "), width - name_width, table.key_columns)
    has_pairs = any(cell.before for _, cells in table.rows for cell in cells)
    if has_pairs and len(parts) > 1:
        parts = _split_columns(_format_columns(table, "\n-> "), width - name_width, table.key_columns)
        names = [f"{name}\n" for name in names]
    rendered: list[RenderableType] = [Text(table.caption)] if with_caption else []
    for number, part in enumerate(parts):
        rest = width - sum(column.width + 1 for column in part)
        grid = _render_columns(header, names, part, max(name_width, rest), table.cut_names)
        rendered += [Text(), grid] if number else [grid]
    return Group(*rendered, *([Text(table.note, style="dim")] if table.note else []))


def _render_columns(
    header: str, names: Sequence[str], columns: Sequence[_Column], max_name_width: int, cut_names: bool
) -> RenderableType:
    grid = RichTable(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    grid.add_column(
        Text(header),
        vertical="bottom",
        overflow="ellipsis" if cut_names else "fold",
        no_wrap=cut_names,
        max_width=max_name_width,
    )
    for column in columns:
        grid.add_column(
            Text(column.header),
            justify="left" if column.is_name else "right",
            vertical="bottom",
            overflow="ellipsis" if column.is_name else "fold",
            no_wrap=column.is_name,
            width=column.width,
        )
    for row, name in enumerate(names):
        grid.add_row(Text(name), *(Text(column.texts[row], column.styles[row]) for column in columns))
    return grid


_STYLES: dict[Mark, str] = {"": "", "best": "green", "worst": "red"}


def _break_header(header: str) -> str:
    """Break a header after each underscore and hyphen, and at each soft hyphen."""
    return re.sub(r"(?<=[_-])(?=.)", "\n", header).replace("\N{SOFT HYPHEN}", "-\n")


def _format_columns(table: Table, arrow: str) -> list[_Column]:
    """Return all columns but that of the names; in a column with marks, every text leaves room for one."""
    columns = []
    for number, header in enumerate(table.headers[1:]):
        cells, is_name = [cells[number] for _, cells in table.rows], number + 1 in table.name_columns
        blank = " " if any(cell.mark for cell in cells) else ""
        texts = [f"{cell.before}{arrow if cell.before else ''}{cell.text}{cell.sign or blank}" for cell in cells]
        width = max((cell_len(line) for text in texts for line in text.split("\n")), default=0)
        if is_name:
            width = min(width, MAX_NAME_CELL_COLUMNS)
        broken = _break_header(header)
        width = max(width, min(MAX_HEADER_COLUMNS, max(map(cell_len, broken.split()))))
        columns.append(_Column(broken, texts, [_STYLES[cell.mark] for cell in cells], width, is_name))
    return columns


def _split_columns(columns: Sequence[_Column], room: int, key_columns: int) -> list[list[_Column]]:
    """Split columns into tables that fit next to the names; the key columns are in all of them."""
    keys, others = list(columns[:key_columns]), columns[key_columns:]
    parts = [keys.copy()]
    for column in others:
        if len(parts[-1]) > len(keys) and sum(other.width + 1 for other in [*parts[-1], column]) > room:
            parts.append(keys.copy())
        parts[-1].append(column)
    return parts
