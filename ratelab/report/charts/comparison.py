"""The comparison in one picture: what came and left, when, how it held against the quota, and what it cost."""

from __future__ import annotations

from ratelab.report.charts import cumulative, outcome, timeline, window
from ratelab.report.charts.canvas import Box, Sheet
from ratelab.report.charts.view import ComparisonView, strips_height

GAP, EACH = 0.25, 0.85

finding = window.finding


def height(view: ComparisonView) -> float:
    """Return the height of the picture in inches."""
    return cumulative.height(view) + GAP + strips_height(view, EACH) + GAP + outcome.height(view)


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw the parts below and beside one another."""
    upper = box._replace(height=cumulative.height(view))
    middle = box._replace(top=upper.bottom + GAP, height=strips_height(view, EACH))
    lower = box._replace(top=middle.bottom + GAP, height=outcome.height(view))
    left, right = middle.columns(2, gap=GAP)
    cumulative.paint(sheet, upper, view)
    timeline.paint(sheet, left, view)
    window.paint(sheet, right, view)
    outcome.paint(sheet, lower, view)
