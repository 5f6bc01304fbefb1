"""Cumulative chart: arrivals and departures up to each moment, and the quota's line `burst + rate * t`."""

from __future__ import annotations

import numpy as np

from ratelab.report.charts.canvas import LABEL_PEN, Box, LineLabel, Sheet, write_line_labels
from ratelab.report.charts.series import accumulate
from ratelab.report.charts.style import DASHED, format_count
from ratelab.report.charts.view import HEADING_IN, TIME_AXIS_IN, ComparisonView
from ratelab.report.numbers import format_rate
from ratelab.report.summary import describe_denials

SCALE_IN, LABELS_IN = 0.5, 1.75
"""Widths for the scale to the left of the lines, and for the labels to the right."""

MIN_AXES_HEIGHT_IN = 2.9


def compose_title(view: ComparisonView) -> str:
    """State how many requests were denied and how many were delayed."""
    return describe_denials(view.comparison)


def compute_height(view: ComparisonView) -> float:
    """Return the height of the chart in inches."""
    labels = (len(view.results) + 3) * LABEL_PEN.line
    return HEADING_IN + max(MIN_AXES_HEIGHT_IN, labels) + TIME_AXIS_IN


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw the arrivals as an area, and for each algorithm a line that ends at its label."""
    traffic, quota = view.traffic, view.comparison.quota
    arrivals = accumulate(traffic.times[view.focused], traffic.costs[view.focused])
    departures = {name: accumulate(*view.departures[name]) for name in view.colors}
    offered = int(arrivals.values[-1])
    admitted = max(int(curve.values[-1]) for curve in departures.values())
    shown = max(admitted, min(quota.burst, offered), 1)
    top = 1.15 * (max(1, offered) if offered <= 2.5 * shown else 1.5 * shown)
    sheet.write(box.left, box.top + 0.08, _compose_heading(view, box.width), width=box.width)
    inner = box.inset(top=HEADING_IN, bottom=TIME_AXIS_IN)
    axes = sheet.add_axes(inner.inset(left=SCALE_IN, right=LABELS_IN), view.scale(view.end), top)
    sheet.set_time_ticks(axes, view.unit)
    sheet.set_count_ticks(axes)
    axes.grid(axis="y", color=sheet.theme.grid, linewidth=0.6)
    axes.fill_between(*view.build_steps(arrivals), step="post", color=sheet.theme.denied, alpha=0.45, linewidth=0)
    limit = quota.burst + quota.limit / quota.period * view.end
    ends = [0, view.scale(view.end)]
    axes.plot(ends, [quota.burst, limit], color=sheet.theme.ink, linewidth=1, linestyle=DASHED, zorder=3)
    labels = [LineLabel(offered, f"{format_count(offered)} arrived", sheet.theme.quiet)]
    labels.append(LineLabel(limit, f"quota: {format_count(quota.burst)} + {format_rate(quota)}", sheet.theme.ink))
    for width, (name, curve) in zip(np.linspace(4, 1.4, len(departures)), departures.items(), strict=True):
        axes.plot(*view.build_steps(curve), drawstyle="steps-post", color=view.colors[name], linewidth=width)
        labels.append(LineLabel(int(curve.values[-1]), f"{format_count(curve.values[-1])} {name}", view.colors[name]))
    write_line_labels(sheet, inner.inset(left=box.width - LABELS_IN), labels, top)


def _compose_heading(view: ComparisonView, width: float) -> str:
    subject = "cost" if (view.traffic.costs != 1).any() else "requests"
    return view.format_heading(subject, ": arrivals (area) and departures (lines); dashed: burst + rate * t", width)
