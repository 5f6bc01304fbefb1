"""Time-to-success chart: the part of the requests that had succeeded within each time from their first try."""

from __future__ import annotations

from math import log10

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from ratelab.lab.closed_loop.figures import LoopResult
from ratelab.quota import UNITS, about
from ratelab.report.charts.canvas import (
    LABEL_PEN,
    TICK_PEN,
    Box,
    LineLabel,
    Sheet,
    measure_heading,
    write_line_labels,
)
from ratelab.report.charts.loop_view import LoopView
from ratelab.report.charts.view import TIME_AXIS_IN
from ratelab.report.loop_findings import describe_served, describe_times
from ratelab.report.numbers import format_percent

TIMES_HEIGHT_IN = 2.2
AXIS_OF_SUCCESSES_AT_ONCE = UNITS["s"] // 10
"""Nanoseconds that the axis shows if all successes come at once."""

MAX_LABELS_PART = 0.45
"""The part of the width that labels take at most."""

MAX_POINTS = 400
"""Points of a curve."""

MAX_DECADES = 5
"""Powers of ten on the axis at most; shorter times are at its beginning."""

DECADES = tuple(
    count * UNITS[unit]
    for unit, counts in [
        ("us", (1, 10, 100)),
        ("ms", (1, 10, 100)),
        ("s", (1, 10)),
        ("min", (1, 10)),
        ("h", (1, 10)),
        ("day", (1, 10, 100)),
    ]
    for count in counts
)
"""Times to label; with enough room, those two and five times as long are labeled too."""

TICK_WIDTH_IN = 0.5
"""Least distance between labels."""


def compose_title(view: LoopView) -> str:
    """State within what time the slowest successes came."""
    return (
        " ".join(describe_times(view.comparison)) or f"Every success came at once. {describe_served(view.comparison)}"
    )


def compute_height(view: LoopView, width: float) -> float:
    """Return the height of the chart in inches."""
    labels = len(view.results) * LABEL_PEN.line
    return measure_heading(_compose_heading(view), width) + max(TIMES_HEIGHT_IN, labels) + TIME_AXIS_IN


def paint(sheet: Sheet, box: Box, view: LoopView) -> None:
    """Draw a curve for each run, with its label at the end."""
    low, high = _choose_limits(view)
    rest = sheet.write_heading(box, _compose_heading(view)).inset(bottom=TIME_AXIS_IN)
    labels = [_create_label(result, color) for result, (_, color) in zip(view.results, view.names, strict=True)]
    label_width = min(MAX_LABELS_PART * box.width, 0.12 + max(LABEL_PEN.measure(label.text) for label in labels))
    inner = rest.inset(left=TICK_PEN.measure("100 %") + 0.12, top=0.06, right=label_width)
    axes = sheet.add_axes(inner, 1, 1)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(_choose_ticks(low, high, inner.width)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: about(round(value))))
    axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_percent(value)))
    axes.grid(color=sheet.theme.grid, linewidth=0.6)
    for result, label in zip(view.results, labels, strict=True):
        times, shares = _build_curve(result, low, high)
        axes.step(times, shares, where="post", color=label.color, linewidth=1.6, clip_on=False)
    write_line_labels(sheet, Box(inner.right, inner.top, label_width, inner.height), labels, 1)


def _create_label(result: LoopResult, color: str) -> LineLabel:
    return LineLabel(result.goodput_ratio, f"{result.label}: {format_percent(result.goodput_ratio)}", color)


def _choose_limits(view: LoopView) -> tuple[int, int]:
    """Return the beginning and the end of the axis in nanoseconds."""
    times = np.concatenate([result.times_to_success for result in view.results])
    longest = int(times.max(initial=0)) or AXIS_OF_SUCCESSES_AT_ONCE
    high = longest * 3 // 2
    shortest = int(times[times > 0].min(initial=longest))
    low = max(shortest // 2, 10 ** (int(log10(high)) - MAX_DECADES + 1), 1)  # below the shortest, for those at once
    return min(10 ** int(log10(low)), longest // 10), high


def _choose_ticks(low: int, high: int, width: float) -> list[int]:
    """Return the times to label on an axis of `width` inches."""
    room = max(1, int(width / TICK_WIDTH_IN / log10(high / low)))  # labels for a decade
    digits = (1, 2, 5) if room >= 4 else (1, 3) if room >= 2 else (1,)
    ticks = [digit * decade for decade in DECADES for digit in digits if low <= digit * decade <= high]
    return ticks[:: -(-len(ticks) // max(1, int(width / TICK_WIDTH_IN)))] if ticks else []


def _build_curve(result: LoopResult, low: int, high: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the times at which the part of the requests that succeeded rises, and the parts from then on."""
    count = len(result.times_to_success)
    places = np.unique(np.linspace(0, max(0, count - 1), min(count, MAX_POINTS)).astype(np.int64))
    times = np.clip(result.times_to_success[places], low, high)
    shares = (places + 1) / max(1, result.first_tries)
    begin, end = np.searchsorted(result.times_to_success, [low, high], side="right") / max(1, result.first_tries)
    return np.concatenate([[low], times, [high]]), np.maximum.accumulate(np.concatenate([[begin], shares, [end]]))


def _compose_heading(view: LoopView) -> str:
    low, _ = _choose_limits(view)
    has_shorter = any(len(result.times_to_success) and result.times_to_success[0] < low for result in view.results)
    shorter = f" Those of less than {about(low)} are at the left edge." if has_shorter else ""
    return f"Requests that had succeeded within a time from their first try, which is on a logarithmic scale.{shorter}"
