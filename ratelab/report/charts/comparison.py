"""Comparison chart: the cumulative, timeline, window and outcome charts in one picture."""

from __future__ import annotations

from ratelab.report.charts import cumulative, outcome, timeline, window
from ratelab.report.charts.canvas import Box, Sheet
from ratelab.report.charts.view import ComparisonView, compute_strips_height

PART_GAP_IN = 0.25
COMPACT_STRIP_HEIGHT_IN = 0.85

compose_title = window.compose_title


def compute_height(view: ComparisonView) -> float:
    """Return the height of the picture in inches."""
    heights = (
        cumulative.compute_height(view),
        compute_strips_height(view, COMPACT_STRIP_HEIGHT_IN),
        outcome.compute_height(view),
    )
    return sum(heights) + 2 * PART_GAP_IN


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw the cumulative chart, the timeline and the window chart side by side, and the outcome."""
    upper = box._replace(height=cumulative.compute_height(view))
    middle = box._replace(top=upper.bottom + PART_GAP_IN, height=compute_strips_height(view, COMPACT_STRIP_HEIGHT_IN))
    lower = box._replace(top=middle.bottom + PART_GAP_IN, height=outcome.compute_height(view))
    left, right = middle.split_columns(2, gap=PART_GAP_IN)
    cumulative.paint(sheet, upper, view)
    timeline.paint(sheet, left, view)
    window.paint(sheet, right, view)
    outcome.paint(sheet, lower, view)
