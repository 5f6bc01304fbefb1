"""How many requests each algorithm admitted at once, after a wait, and not at all."""

from __future__ import annotations

from ratelab.report.charts.canvas import LABEL, Box, Sheet
from ratelab.report.charts.view import ComparisonView
from ratelab.report.summary import describe_denials, pluralize

HEADING, EACH = 0.3, 0.26
NAMES, NUMBER = 1.45, 0.85
"""Inches for the names, and for each of the three numbers."""


def finding(view: ComparisonView) -> str:
    """Say how many were denied and how many had to wait."""
    return describe_denials(view.comparison)


def height(view: ComparisonView) -> float:
    """Return the height of the chart in inches."""
    return HEADING + EACH * len(view.results)


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a bar for each algorithm, and its numbers beside it."""
    offered = max(1, len(view.comparison.traffic))
    for place, label in enumerate(("at once", "after a wait", "denied")):
        sheet.text(box.right - (2 - place) * NUMBER, box.top + 0.08, label, align="right", width=NUMBER)
    sheet.text(box.left, box.top + 0.08, f"of {pluralize(len(view.comparison.traffic), 'request')}")
    for result, row in zip(view.results, box.inset(top=HEADING).rows(len(view.results)), strict=True):
        middle, colour = row.top + row.height / 2, view.colours[result.algorithm]
        sheet.text(row.left, middle, result.algorithm, LABEL, colour, width=NAMES - 0.1)
        axes = sheet.axes(row.inset(left=NAMES, top=0.03, right=3 * NUMBER, bottom=0.03), offered, 1)
        axes.set_axis_off()
        counts = (result.admitted - result.delayed, result.delayed, result.denied)
        starts = (0, counts[0], result.admitted)
        looks = ((colour, 1.0), (colour, 0.4), (sheet.theme.denied, 1.0))
        for place, (number, start, (look, alpha)) in enumerate(zip(counts, starts, looks, strict=True)):
            axes.barh(0.5, number, 1, start, color=look, alpha=alpha)
            ink = sheet.theme.ink if number else sheet.theme.quiet
            sheet.text(row.right - (2 - place) * NUMBER, middle, f"{number:,}", LABEL, ink, "right", NUMBER)
