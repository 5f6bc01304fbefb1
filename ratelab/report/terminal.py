"""Tables, sentences and timelines in a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from textwrap import TextWrapper
from typing import NamedTuple

import numpy as np
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from ratelab.lab.comparison import Comparison
from ratelab.lab.decisions import Decisions
from ratelab.lab.spill import Integers
from ratelab.quota import about
from ratelab.report.numbers import bind_units
from ratelab.report.tables import Mark, Table


def wrap_text(text: str, width: int, at_hyphens: bool = False) -> list[str]:
    """Break a text into lines between words, and optionally at hyphens, but not between a number and its unit."""
    wrapper = TextWrapper(width, break_long_words=False, break_on_hyphens=at_hyphens)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in wrapper.wrap(bind_units(text))]


# --- tables

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


# --- timelines

NO_REQUEST, ADMITTED, DELAYED, SOME_DENIED, DENIED = ".", "|", "~", "+", "x"
_LETTER_STYLES = {NO_REQUEST: "dim", ADMITTED: "green", DELAYED: "yellow", SOME_DENIED: "magenta", DENIED: "red"}

TIMELINE_LEGEND = (
    f"{ADMITTED} admitted  {DELAYED} some delayed  {SOME_DENIED} some denied  {DENIED} all denied  "
    f"{NO_REQUEST} no request"
)


def render_timeline(comparison: Comparison, width: int) -> RenderableType:
    """Render a line for each algorithm over a common time axis, `width` columns wide in all."""
    traffic = comparison.traffic
    margin = max(cell_len(outcome.policy.name) for outcome in comparison.outcomes) + 1
    length = max(20, width - margin)
    places = (traffic.times.astype(np.float64) / traffic.duration * length).astype(np.int64).clip(0, length - 1)
    lines = [
        Text(f"{outcome.policy.name:<{margin}}").append_text(render_letters(places, outcome.rows, length))
        for outcome in comparison.outcomes
    ]
    axis = Text(f"{'':<{margin}}0 s{about(traffic.duration):>{length - 3}}", style="dim")
    return Group(*lines, axis, Text(TIMELINE_LEGEND, style="dim"))


def render_letters(places: Integers, decisions: Decisions, length: int) -> Text:
    """Render `length` letters for the decisions of requests, each of which belongs to one of these places."""
    offered = np.bincount(places, minlength=length)
    denied = np.bincount(places[~decisions["allowed"]], minlength=length)
    delayed = np.bincount(places[decisions["delay_ns"] > 0], minlength=length)
    letters = np.select(
        [offered == 0, denied == offered, denied > 0, delayed > 0],
        [NO_REQUEST, DENIED, SOME_DENIED, DELAYED],
        ADMITTED,
    )
    line = Text()
    for letter in letters.tolist():
        line.append(letter, style=_LETTER_STYLES[letter])
    return line
