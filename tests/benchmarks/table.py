"""Benchmark figures as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from timing import Figure

NOT_MEASURABLE = "not measurable here"


def figures_table(figures: Sequence[Figure], machine: str) -> Table:
    """Return a table with a row for each figure; a missed bar is marked."""
    table = Table(title=machine, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("benchmark", no_wrap=True)
    for name in ("measured", "floor", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bar", no_wrap=True)
    for figure in figures:
        measured = NOT_MEASURABLE if figure.measured is None else _format_value(figure.measured, figure.unit)
        floor = "" if figure.floor is None else _format_value(figure.floor, figure.unit)
        table.add_row(figure.label, measured, floor, _format_ratio(figure), _format_bar(figure))
    return table


def _format_value(value: float, unit: str) -> str:
    """Format a value to three digits or more."""
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"


def _format_ratio(figure: Figure) -> str:
    if figure.ratio is None:
        return ""
    return f"{figure.ratio:.1f}%" if figure.ratio_unit == "%" else f"{figure.ratio:.2f}x"


def _format_bar(figure: Figure) -> str:
    if figure.bar is None:
        return ""
    return f"{figure.bar}  [bold red]MISSED[/]" if figure.is_missed else str(figure.bar)
