"""Cumulative chart: arrivals and departures up to each moment, and the quota's line `burst + rate * t`."""

from __future__ import annotations

import numpy as np

from ratelab.report.charts.canvas import (
    LABEL_PEN,
    Box,
    LineLabel,
    Sheet,
    choose_counts,
    measure_heading,
    measure_scale,
    write_line_labels,
)
from ratelab.report.charts.series import accumulate
from ratelab.report.charts.style import DASHED
from ratelab.report.charts.view import ComparisonView, compute_axis_height
from ratelab.report.numbers import format_rate, join_names
from ratelab.report.summary import describe_denials

LABELS_IN = 1.75
"""Width for the labels to the right of the lines."""

MIN_AXES_HEIGHT_IN = 2.9

MIN_LINE_PART = 0.05
"""Part of the time below which the line of the quota has left the chart, so that it is not drawn."""


def compose_title(view: ComparisonView) -> str:
    """State how many requests were denied and how many were delayed."""
    return describe_denials(view.comparison)


def compute_height(view: ComparisonView, width: float) -> float:
    """Return the height of the chart in inches."""
    labels = (len(view.results) + 3) * LABEL_PEN.line
    heading = measure_heading(_Curves(view).describe(), width)
    return heading + max(MIN_AXES_HEIGHT_IN, labels) + compute_axis_height(view.detail)


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw the arrivals as an area, and for each algorithm a line that ends at its label."""
    curves, time, quota = _Curves(view), view.detail, view.comparison.quota
    inner = sheet.write_heading(box, curves.describe()).inset(bottom=compute_axis_height(time))
    labels_box = inner.inset(left=box.width - min(LABELS_IN, 0.37 * box.width))
    scale = measure_scale(choose_counts(4).tick_values(0, curves.top))
    axes = sheet.add_axes(inner.inset(left=scale, right=labels_box.width), time.length, curves.top)
    sheet.set_time_ticks(axes, time)
    sheet.set_count_ticks(axes)
    axes.grid(axis="y", color=sheet.theme.grid, linewidth=0.6)
    axes.fill_between(*curves.arrivals, step="post", color=sheet.theme.denied, alpha=0.45, linewidth=0)
    labels = [LineLabel(curves.offered, f"{curves.offered:,} arrived", sheet.theme.quiet)]
    if curves.has_limit:
        ends = [time.scale(curves.start), time.length]
        axes.plot(ends, [curves.grant, curves.limit], color=sheet.theme.ink, linewidth=1, linestyle=DASHED, zorder=3)
        labels.append(LineLabel(curves.limit, f"{quota.burst:,} + {format_rate(quota)}", sheet.theme.ink))
    for width, (name, (times, values)) in zip(
        np.linspace(4, 1.4, len(curves.lines)), curves.lines.items(), strict=True
    ):
        axes.plot(times, values, drawstyle="steps-post", color=view.colors[name], linewidth=width)
        labels.append(LineLabel(int(values[-1]), f"{values[-1]:,} {name}", view.colors[name]))
    write_line_labels(sheet, labels_box, labels, curves.top)


class _Curves:
    """The lines of the chart, and the end of its scale."""

    def __init__(self, view: ComparisonView) -> None:
        self._view, traffic, quota, time = view, view.traffic, view.comparison.quota, view.detail
        self.arrivals = view.build_steps(accumulate(traffic.times[view.focused], traffic.costs[view.focused]))
        self.lines = {name: view.build_steps(accumulate(*view.departures[name])) for name in view.colors}
        self.offered = int(self.arrivals[1][-1])
        fullest = view.comparison.fullest
        self.start = fullest.begin if view.is_detailed and fullest else time.begin
        self.grant = quota.burst + (self._count_before(self.start) if view.is_detailed else 0)
        self.limit = self.grant + quota.limit / quota.period * (time.end - self.start)
        admitted = max(int(values[-1]) for _, values in self.lines.values())
        shown = max(admitted, min(quota.burst, self.offered), 1)
        self.top = 1.15 * (max(1, self.offered) if self.offered <= 2.5 * shown else 1.5 * shown)

    @property
    def has_limit(self) -> bool:
        """Whether the line of the quota is in the chart for a visible part of the time."""
        return bool(self.top - self.grant > MIN_LINE_PART * (self.limit - self.grant))

    def _count_before(self, start: int) -> int:
        """Return the number let through before `start` by the algorithm that has the fullest window."""
        results, time = self._view.results, self._view.detail
        name = next(result.algorithm for result in results if result.fullest == self._view.comparison.fullest)
        times, values = self.lines[name]
        place = int(np.searchsorted(times, time.scale(start)))
        return int(values[place - 1]) if place else 0

    def describe(self) -> str:
        """Describe the lines in sentences."""
        view = self._view
        unit = "cost" if (view.traffic.costs != 1).any() else "number"
        lines = f"let through{view.describe_detail()}"
        sentences = [f"The {unit} of requests{view.owner} that arrived (gray area) and that each algorithm {lines}."]
        if self.has_limit:
            since = " from that window on" if view.is_detailed else ""
            sentences.append(f"The dashed line is the most that the quota grants{since}: the burst, then the rate.")
        groups: dict[bytes, list[str]] = {}
        for name, (times, values) in self.lines.items():
            groups.setdefault(times.tobytes() + values.tobytes(), []).append(name)
        equal = [f"The lines of {join_names(names)} are the same." for names in groups.values() if len(names) > 1]
        return " ".join([*sentences, *equal])
