"""What arrived and what left so far, under the line that the quota draws: `burst + rate * t`."""

from __future__ import annotations

import numpy as np

from ratelab.report.charts.canvas import LABEL, Box, Label, Sheet, label
from ratelab.report.charts.series import accumulate
from ratelab.report.charts.style import count
from ratelab.report.charts.view import ComparisonView
from ratelab.report.summary import describe_denials, format_rate

ROOM = 1.75
"""Inches for the labels beside the lines."""


def finding(view: ComparisonView) -> str:
    """Say how much each algorithm let through."""
    return describe_denials(view.comparison)


def height(view: ComparisonView) -> float:
    """Return the height of the chart in inches."""
    return 0.3 + max(2.9, (len(view.results) + 3) * LABEL.line) + 0.3


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw the arrivals as an area, and a line for each algorithm that ends at its name."""
    traffic, quota = view.traffic, view.comparison.quota
    arrived = accumulate(traffic.times[view.focussed], traffic.costs[view.focussed])
    left = {name: accumulate(*view.departures(name)) for name in view.colours}
    most, offered = max(int(curve.values[-1]) for curve in left.values()), int(arrived.values[-1])
    shown = max(most, min(quota.burst, offered), 1)
    top = 1.15 * (max(1, offered) if offered <= 2.5 * shown else 1.5 * shown)
    sheet.text(box.left, box.top + 0.08, _heading(view, box.width), width=box.width)
    axes = sheet.axes(box.inset(left=0.5, top=0.3, right=ROOM, bottom=0.3), view.x(view.end), top)
    sheet.time_ticks(axes, view.unit)
    sheet.count_ticks(axes)
    axes.grid(axis="y", color=sheet.theme.grid, linewidth=0.6)
    axes.fill_between(*view.steps(arrived), step="post", color=sheet.theme.denied, alpha=0.45, linewidth=0)
    limit = quota.burst + quota.limit / quota.period * view.end
    axes.plot([0, view.x(view.end)], [quota.burst, limit], color=sheet.theme.ink, linewidth=1, linestyle=(0, (4, 3)))
    labels = [Label(offered, f"{count(offered)} arrived", sheet.theme.quiet)]
    labels.append(Label(limit, f"{count(quota.burst)} + {format_rate(quota)} in all", sheet.theme.ink))
    for width, (name, curve) in zip(np.linspace(4, 1.4, len(left)), left.items(), strict=True):
        axes.plot(*view.steps(curve), drawstyle="steps-post", color=view.colours[name], linewidth=width)
        labels.append(Label(int(curve.values[-1]), f"{count(curve.values[-1])} {name}", view.colours[name]))
    label(sheet, box.inset(left=box.width - ROOM, top=0.3, bottom=0.3), labels, top)


def _heading(view: ComparisonView, width: float) -> str:
    cost = "cost" if (view.traffic.costs != 1).any() else "requests"
    return view.heading(cost, " that arrived (area) and left; dashed: what the quota grants from the start on", width)
