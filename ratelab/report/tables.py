"""Tables: one model for the terminal and for pages, and their form in a terminal of any width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, NamedTuple

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from ratelab.lab.comparison import Comparison
from ratelab.lab.metrics import Condition, Figure, Unit, list_figures
from ratelab.quota import about
from ratelab.report.numbers import format_per_second, format_percent, format_seconds, format_share, wrap_text

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
    "rate": format_per_second,
    "flag": lambda value: "yes" if value else "no",
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


def build_count(value: int) -> Cell:
    """Return a count as the cell of a sortable table."""
    return Cell(f"{value:,}", value)


# --- in a terminal

TERMINAL_COLUMNS = 80
MIN_NAME_COLUMNS = 20
"""Width that long names always have; beyond it, they take the width that numbers leave."""
MAX_NAME_CELL_COLUMNS = 16
"""Width at which names in other columns than the first are cut."""
MAX_WORD_COLUMNS = 16
"""Width at which words of headers are broken."""


class _Column(NamedTuple):
    """A column as the terminal shows it."""

    title: str
    texts: Sequence[str]
    styles: Sequence[str]
    is_name: bool
    width: int
    header: Sequence[str] = ()
    """The title, broken into lines."""

    def set_width(self, width: int, at_hyphens: bool) -> _Column:
        """Return the column with this width, or a larger one that its texts and the words of its title need."""
        words = [min(cell_len(word), MAX_WORD_COLUMNS) for word in wrap_text(self.title, 1, at_hyphens)]
        width = max(width, *words, *(cell_len(line) for text in self.texts for line in text.split("\n")), 1)
        return self._replace(width=width, header=wrap_text(self.title, width, at_hyphens) or [""])


class _Layout(NamedTuple):
    """A way to lay a table out: one table or several below each other, which have the same keys."""

    parts: list[list[_Column]]
    names: list[str]
    gap: int
    """Blanks between columns."""
    at_hyphens: bool
    """Whether headers may be broken at hyphens."""


def render_table(table: Table, width: int = TERMINAL_COLUMNS, with_caption: bool = True) -> RenderableType:
    """Render a table for a terminal of `width` columns.

    If it is too wide, headers are broken between words and at hyphens, then pairs of values are put on two lines; if
    that is not enough, the last columns form further tables below.
    """
    names = [name for name, _ in table.rows]
    name_width = min(MIN_NAME_COLUMNS, max(map(cell_len, (*names, table.headers[0]))))
    layouts = _list_layouts(table, names, width - name_width)
    layout = min(layouts, key=lambda layout: len(layout.parts))
    rendered: list[RenderableType] = [Text(table.caption)] if with_caption else []
    for number, part in enumerate(layout.parts):
        rest = width - sum(column.width + layout.gap for column in part)
        grid = _render_columns(
            table, layout, _shorten_headers(part, rest - name_width, layout.at_hyphens), max(name_width, rest)
        )
        rendered += [Text(), grid] if number else [grid]
    return Group(*rendered, *(Text(line, style="dim") for line in wrap_text(table.note, width)))


def _list_layouts(table: Table, names: list[str], room: int) -> list[_Layout]:
    """Return the ways to lay a table out next to its names, the most readable first."""
    has_pairs = any(cell.before for _, cells in table.rows for cell in cells)
    layouts = []
    for arrow, at_hyphens, gap in product((" -> ", "\n-> ") if has_pairs else (" -> ",), (False, True), (2, 1)):
        columns = [column.set_width(1, at_hyphens) for column in _format_columns(table, arrow)]
        shown = [f"{name}\n" for name in names] if arrow.startswith("\n") else names
        layouts.append(_Layout(_split_columns(columns, room, gap, table.key_columns), shown, gap, at_hyphens))
    return layouts


def _shorten_headers(columns: Sequence[_Column], room: int, at_hyphens: bool) -> list[_Column]:
    """Return the columns with fewer lines of headers, as far as there is room to widen them."""
    columns = list(columns)
    while (highest := max(len(column.header) for column in columns)) > 1:
        number, column = next(pair for pair in enumerate(columns) if len(pair[1].header) == highest)
        wider = (column.set_width(column.width + more, at_hyphens) for more in range(1, room + 1))
        shorter = next((candidate for candidate in wider if len(candidate.header) < highest), column)
        if not 0 < shorter.width - column.width <= room:
            break
        room -= shorter.width - column.width
        columns[number] = shorter
    return columns


def _render_columns(table: Table, layout: _Layout, columns: Sequence[_Column], max_name_width: int) -> RenderableType:
    grid = RichTable(box=None, padding=(0, layout.gap, 0, 0), pad_edge=False, header_style="bold")
    grid.add_column(
        Text(table.headers[0]),
        vertical="bottom",
        overflow="ellipsis" if table.cut_names else "fold",
        no_wrap=table.cut_names,
        max_width=max_name_width,
    )
    for column in columns:
        grid.add_column(
            Text("\n".join(column.header)),
            justify="left" if column.is_name else "right",
            vertical="bottom",
            overflow="ellipsis" if column.is_name else "fold",
            no_wrap=column.is_name,
            width=column.width,
        )
    for row, name in enumerate(layout.names):
        grid.add_row(Text(name), *(Text(column.texts[row], column.styles[row]) for column in columns))
    return grid


_STYLES: dict[Mark, str] = {"": "", "best": "green", "worst": "red", "above": "red"}


def _format_columns(table: Table, arrow: str) -> list[_Column]:
    """Return all columns but that of the names; in a column with marks, every text leaves room for one."""
    columns = []
    for number, header in enumerate(table.headers[1:]):
        cells, is_name = [cells[number] for _, cells in table.rows], number + 1 in table.name_columns
        blank = " " if any(cell.mark for cell in cells) else ""
        texts = [f"{cell.before}{arrow if cell.before else ''}{cell.text}{cell.sign or blank}" for cell in cells]
        if is_name:
            texts = [_cut(text, MAX_NAME_CELL_COLUMNS) for text in texts]
        styles = [_STYLES[cell.mark] for cell in cells]
        columns.append(_Column(header, texts, styles, is_name, 0))
    return columns


def _cut(text: str, width: int) -> str:
    cut = Text(text)
    cut.truncate(width, overflow="ellipsis")
    return cut.plain


def _split_columns(columns: Sequence[_Column], room: int, gap: int, key_columns: int) -> list[list[_Column]]:
    """Split columns into tables that fit next to the names; the key columns are in all of them."""
    keys, others = list(columns[:key_columns]), list(columns[key_columns:])
    for count in range(1, len(others) + 1):  # parts, with about the same number of columns
        size = -(-len(others) // count)
        parts = [[*keys, *others[start : start + size]] for start in range(0, len(others), size)]
        if all(sum(column.width + gap for column in part) <= room for part in parts):
            break
    return parts
