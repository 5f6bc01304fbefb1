"""A strip for each algorithm, one below the other over a common time axis: what several charts are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ratelab.lab.metrics import Result
from ratelab.report.charts.box import Box
from ratelab.report.charts.canvas import LABEL, Sheet
from ratelab.report.charts.view import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADING, FOOT, EACH, GAP = 0.3, 0.3, 0.68, 0.1
LEFT, NAME = 0.4, LABEL.line + 0.06
"""Inches of a strip for its scale, and for its name."""


def height(view: View, each: float = EACH) -> float:
    """Return the height of all strips in inches, of which one takes `each`."""
    return HEADING + len(view.results) * each + (len(view.results) - 1) * GAP + FOOT


def strips(
    sheet: Sheet, box: Box, view: View, heading: str, notes: Sequence[str], limits: tuple[float, float]
) -> Iterator[tuple[Result, Axes]]:
    """Write the heading and each algorithm's name and note, and yield the axes of its strip."""
    sheet.text(box.left, box.top + 0.08, heading, width=box.width)
    rows = box.inset(top=HEADING, bottom=FOOT).rows(len(view.results), GAP)
    for result, row, note in zip(view.results, rows, notes, strict=True):
        width = LABEL.width(note)
        middle = row.top + LABEL.line / 2
        sheet.text(row.right, middle, note, align="right", width=row.width)
        name = row.width - width - 0.15
        sheet.text(row.left, middle, result.algorithm, LABEL, view.colours[result.algorithm], width=name)
        axes = sheet.axes(row.inset(left=LEFT, top=NAME), view.x(view.end), limits[1], limits[0])
        sheet.time_ticks(axes, view.unit, labelled=row is rows[-1])
        yield result, axes
