"""Outcome chart: the numbers of requests that each algorithm admitted at once, delayed and denied."""

from __future__ import annotations

from ratelab.report.charts.canvas import LABEL_PEN, Box, Sheet
from ratelab.report.charts.style import DELAYED_OPACITY
from ratelab.report.charts.view import HEADING_IN, ComparisonView
from ratelab.report.numbers import pluralize
from ratelab.report.summary import describe_denials

BAR_HEIGHT_IN = 0.26
BAR_NAME_WIDTH_IN, COUNT_WIDTH_IN = 1.45, 0.85


def compose_title(view: ComparisonView) -> str:
    """State how many requests were denied and how many were delayed."""
    return describe_denials(view.comparison)


def compute_height(view: ComparisonView) -> float:
    """Return the height of the chart in inches."""
    return HEADING_IN + BAR_HEIGHT_IN * len(view.results)


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a bar for each algorithm, and its three counts to the right."""
    offered = len(view.comparison.traffic)
    sheet.write(box.left, box.top + 0.08, f"of {pluralize(offered, 'request')}")
    rights = [box.right - columns * COUNT_WIDTH_IN for columns in (2, 1, 0)]
    for right, label in zip(rights, ("at once", "delayed", "denied"), strict=True):
        sheet.write(right, box.top + 0.08, label, align="right", width=COUNT_WIDTH_IN)
    for result, row in zip(view.results, box.inset(top=HEADING_IN).split_rows(len(view.results)), strict=True):
        middle, color = row.top + row.height / 2, view.colors[result.algorithm]
        sheet.write(row.left, middle, result.algorithm, LABEL_PEN, color, width=BAR_NAME_WIDTH_IN - 0.1)
        inner = row.inset(left=BAR_NAME_WIDTH_IN, top=0.03, right=3 * COUNT_WIDTH_IN, bottom=0.03)
        axes = sheet.add_axes(inner, max(1, offered), 1)
        axes.set_axis_off()
        immediate = result.admitted - result.delayed
        axes.barh(0.5, immediate, 1, 0, color=color)
        axes.barh(0.5, result.delayed, 1, immediate, color=color, alpha=DELAYED_OPACITY)
        axes.barh(0.5, result.denied, 1, result.admitted, color=sheet.theme.denied)
        for right, count in zip(rights, (immediate, result.delayed, result.denied), strict=True):
            ink = sheet.theme.ink if count else sheet.theme.quiet
            sheet.write(right, middle, f"{count:,}", LABEL_PEN, ink, "right", COUNT_WIDTH_IN)
