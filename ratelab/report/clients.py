"""Clients one by one in the terminal: tables in which long names give way, and numbers never do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

WIDTH = 80
NAME = 16
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
    return max(NAME, WIDTH - sum(widths) - len(widths))


def _width(header: str, cells: Sequence[str]) -> int:
    words = header.replace("-", "- ").split()
    return max(min(HEADER, max(map(len, words))), *map(len, cells))


def _parts(widths: Sequence[int]) -> Iterator[slice]:
    """Yield the columns of each table."""
    begin = 0
    for place in range(1, len(widths)):
        if sum(widths[begin : place + 1]) + place + 1 - begin > WIDTH - NAME:
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
