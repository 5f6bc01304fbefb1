"""Loop chart: the goodput, attempts and time-to-success charts in one picture."""

from __future__ import annotations

from ratelab.report.charts import attempts, goodput, time_to_success
from ratelab.report.charts.canvas import Box, Sheet
from ratelab.report.charts.comparison import PART_GAP_IN
from ratelab.report.charts.loop_view import LoopView

PARTS = (goodput, attempts, time_to_success)

compose_title = goodput.compose_title


def compute_height(view: LoopView, width: float) -> float:
    """Return the height of the picture in inches."""
    heights = [float(part.compute_height(view, width)) for part in PARTS]
    return sum(heights) + (len(heights) - 1) * PART_GAP_IN


def paint(sheet: Sheet, box: Box, view: LoopView) -> None:
    """Draw the charts below each other."""
    top = box.top
    for part in PARTS:
        height = part.compute_height(view, box.width)
        part.paint(sheet, box._replace(top=top, height=height), view)
        top += height + PART_GAP_IN
