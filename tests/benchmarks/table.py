"""Benchmark figures as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from timing import Figure


def figures_table(figures: list[Figure], machine: str) -> Table:
    """Return one row for each figure, medians throughout."""
    table = Table(title=machine, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("what")
    for name in ("measured", "floor", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("should be")
    for one in figures:
        floor = "" if one.floor is None else _told(one.floor, one.unit)
        ratio = "" if one.ratio is None else f"{one.ratio:.2f}x"
        table.add_row(one.what, _told(one.measured, one.unit), floor, ratio, one.bar)
    return table


def _told(value: float, unit: str) -> str:
    """Write a figure to three digits at least."""
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"
