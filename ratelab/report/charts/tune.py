"""Tuning chart: the burst that each rate needs so that at most some share of the clients is denied."""

from __future__ import annotations

from math import ceil, log10

from matplotlib.ticker import NullLocator

from ratelab.lab.tune import Tuning
from ratelab.lab.tune.curves import choose_unit, measure_curves
from ratelab.report.charts.canvas import (
    TICK_PEN,
    Box,
    LineLabel,
    Sheet,
    format_number,
    measure_heading,
    measure_scale,
    write_line_labels,
)
from ratelab.report.charts.style import assign_colors
from ratelab.report.charts.sweep import build_axis
from ratelab.report.numbers import format_percent

CURVE_LABELS_IN = 1.15
RATE_AXIS_IN = 0.25
CURVES_HEIGHT_IN = 3.4

MAX_MARKS = 9

MIN_BURST = 0.8
"""Lower end of the scale of bursts, so that a burst of 1 is above the axis."""

HEADING = (
    "The burst that each rate needs so that a token bucket denies something to no more than this share of clients; "
    "both scales are logarithmic. The dot is the recommended quota."
)


def compute_height(width: float) -> float:
    """Return the height of the chart in inches."""
    return CURVES_HEIGHT_IN + measure_heading(HEADING, width)


def paint(sheet: Sheet, box: Box, tuning: Tuning) -> None:
    """Draw a line for each share, which ends at its label, and the recommended quota."""
    curves = measure_curves(tuning)
    plot = sheet.write_heading(box, HEADING).inset(bottom=RATE_AXIS_IN)
    best = tuning.recommended.policy.quota
    top = 1.3 * max(best.burst, *(max(column) for column in curves.bursts.values()))
    marks = [digit * 10**power for power in range(ceil(log10(top))) for digit in (1, 2, 5)]
    marks = [mark for mark in marks if mark <= top]
    marks = marks if len(marks) <= MAX_MARKS else marks[::3]
    scale = measure_scale(marks)
    inner = plot.inset(left=CURVE_LABELS_IN, right=scale)
    axis = build_axis(curves.rates, choose_unit(best))
    axes = sheet.add_axes(inner, 1, top, MIN_BURST)
    axes.set_yscale("log")
    axes.set_ylim(MIN_BURST, top)
    axes.yaxis.tick_right()
    axes.spines["right"].set_visible(True)
    axes.spines["left"].set_visible(False)
    axes.set_yticks(marks, [format_number(mark) for mark in marks])
    axes.yaxis.set_minor_locator(NullLocator())
    ticks = axis.select_ticks((max(TICK_PEN.measure(axis.format(value)) for value in axis.values) + 0.1) / inner.width)
    axes.set_xticks([axis.place(value) for value in ticks], [axis.format(value) for value in ticks])
    axes.grid(axis="both", color=sheet.theme.grid, linewidth=0.6)
    places = [axis.place(axis.read(rate)) for rate in curves.rates]
    color = assign_colors(["token-bucket"], "light")["token-bucket"]
    names: dict[float, list[str]] = {}
    for (share, column), opacity in zip(curves.bursts.items(), (1.0, 0.8, 0.65, 0.5), strict=True):
        axes.plot(places, column, color=color, alpha=opacity, linewidth=2.2)
        height = log10(column[0] / MIN_BURST) / log10(top / MIN_BURST)
        names.setdefault(height, []).append("none" if not share else format_percent(float(share)))
    labels = [
        LineLabel(height, " to ".join(dict.fromkeys((shares[0], shares[-1]))), sheet.theme.quiet)
        for height, shares in names.items()
    ]
    write_line_labels(sheet, plot._replace(width=CURVE_LABELS_IN), labels, 1)
    x = axis.place(axis.read(best))
    axes.plot([x], [best.burst], marker="o", markersize=7, color=sheet.theme.ink, zorder=4)
