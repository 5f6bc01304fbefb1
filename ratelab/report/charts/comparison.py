"""Comparison chart: the cumulative, timeline, window and outcome charts in one picture."""

from __future__ import annotations

from ratelab.report.charts import cumulative, outcome, timeline, window
from ratelab.report.charts.canvas import NARROW_WIDTH_IN, Box, Sheet
from ratelab.report.charts.view import ComparisonView, compute_axis_height

PART_GAP_IN = 0.3
COMPACT_STRIP_HEIGHT_IN = 0.85

compose_title = window.compose_title


def compute_height(view: ComparisonView, width: float) -> float:
    """Return the height of the picture in inches."""
    heights = _compute_heights(view, width)
    return sum(heights) + (len(heights) - 1) * PART_GAP_IN


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw the cumulative chart, the timeline and the window chart, side by side if possible, and the outcome."""
    boxes, top = [], box.top
    for height in _compute_heights(view, box.width):
        boxes.append(box._replace(top=top, height=height))
        top += height + PART_GAP_IN
    if len(boxes) == 3:
        columns = boxes[1].split_columns(2, gap=PART_GAP_IN)
        heights = _compute_strips_heights(view, columns[0].width)
        axes = [compute_axis_height(chart.choose_time(view)) for chart in (timeline, window)]
        lowest = max(height - axis for height, axis in zip(heights, axes, strict=True))  # so that strips are aligned
        strips = [
            part._replace(top=part.top + lowest - (height - axis), height=height)
            for part, height, axis in zip(columns, heights, axes, strict=True)
        ]
        boxes = [boxes[0], *strips, boxes[2]]
    for chart, part in zip((cumulative, timeline, window, outcome), boxes, strict=True):
        chart.paint(sheet, part, view)


def _compute_strips_heights(view: ComparisonView, width: float) -> list[float]:
    return [chart.compute_height(view, width, COMPACT_STRIP_HEIGHT_IN) for chart in (timeline, window)]


def _compute_heights(view: ComparisonView, width: float) -> list[float]:
    """Return the heights of the rows: the timeline and the window chart share one on a wide sheet."""
    is_wide = width > NARROW_WIDTH_IN
    column = (width - PART_GAP_IN) / 2 if is_wide else width
    strips = _compute_strips_heights(view, column)
    rows = [max(strips)] if is_wide else strips
    return [cumulative.compute_height(view, width), *rows, outcome.compute_height(view, width)]
