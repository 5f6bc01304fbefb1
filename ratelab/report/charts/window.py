"""Window chart: the cost that departs in the window that ends now, compared with the burst."""

from __future__ import annotations

import numpy as np

from ratelab.lab.decisions import Outcome
from ratelab.lab.metrics import Result
from ratelab.lab.spill import Integers
from ratelab.quota import about
from ratelab.report.charts.canvas import LABEL_PEN, Box, Sheet
from ratelab.report.charts.series import find_window_peaks, split_time
from ratelab.report.charts.style import DASHED
from ratelab.report.charts.text import make_legible
from ratelab.report.charts.time_axis import TimeAxis
from ratelab.report.charts.view import STRIP_HEIGHT_IN, ComparisonView, add_strips, compute_strips_height
from ratelab.report.numbers import format_short_moment
from ratelab.report.summary import describe_protection

MAX_CLIENT_IN = 1.0
"""Width at which notes truncate the name of a key."""

PARTS_PER_INCH = 70
"""Parts of the time axis; each shows its largest value, so that no moment above the burst is lost."""


def compose_title(view: ComparisonView) -> str:
    """State how well each algorithm enforced the quota."""
    return describe_protection(view.comparison)


def compute_height(view: ComparisonView, width: float, strip_height: float = STRIP_HEIGHT_IN) -> float:
    """Return the height of the chart in inches."""
    return compute_strips_height(len(view.results), choose_time(view), _compose_heading(view), width, strip_height)


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a strip for each algorithm: faint up to the burst, and in full color above it."""
    burst, time = view.comparison.quota.burst, choose_time(view)
    edges = split_time(time.end, int(box.width * PARTS_PER_INCH), time.begin)
    costs = [_find_peaks(view, outcome, result, edges) for outcome, result in _pair(view)]
    peaks = [int(cost.max()) for cost in costs]
    notes = [_compose_note(view, result, peak) for result, peak in zip(view.results, peaks, strict=True)]
    limits = (0, 1.08 * max(burst, *peaks))
    strips = add_strips(sheet, box, view, time, _compose_heading(view), notes, [0, burst], limits)
    for (result, axes), cost in zip(strips, costs, strict=True):
        color = view.colors[result.algorithm]
        sheet.fill_steps(axes, time.scale(edges), np.minimum(cost, burst), color, opacity=0.3)
        sheet.fill_steps(axes, time.scale(edges), np.maximum(cost, burst), color, floor=burst)
        axes.axhline(burst, color=sheet.theme.ink, linewidth=1, linestyle=DASHED)


def _pair(view: ComparisonView) -> list[tuple[Outcome, Result]]:
    return list(zip(view.comparison.outcomes, view.results, strict=True))


def choose_time(view: ComparisonView) -> TimeAxis:
    """Return the time axis of the strips: the whole time, or the part around a fullest window, which begins at 0."""
    length = view.detail.end - view.detail.begin
    return TimeAxis(-(length // 4), length - length // 4, None) if view.is_detailed else view.whole


def _find_peaks(view: ComparisonView, outcome: Outcome, result: Result, edges: Integers) -> Integers:
    """Return the largest cost in the window that ends in each part of the time, for the key that is shown."""
    window = view.comparison.quota.window
    if not view.is_detailed:
        return find_window_peaks(*view.departures[outcome.policy.name], window, edges)
    if result.fullest is None:
        return np.zeros(len(edges) - 1, np.int64)
    times, costs = view.list_departures(outcome, result.fullest.key)
    return find_window_peaks(times - result.fullest.begin, costs, window, edges)


def _compose_heading(view: ComparisonView) -> str:
    quota, owner = view.comparison.quota, "" if view.is_detailed else view.owner
    subject = "Cost" if (view.traffic.costs != 1).any() else "Requests"
    time = "around the fullest window of each algorithm, which begins at 0" if view.is_detailed else "at each moment"
    return (
        f"{subject}{owner} let through in the last {about(quota.window)}, {time}. "
        f"The dashed line is the quota of {quota.burst:,}."
    )


def _compose_note(view: ComparisonView, result: Result, shown: int) -> str:
    """Return the peak of the key that is shown, with its name and time, or the peak of all keys if that is higher."""
    if result.fullest is None or not view.is_detailed:
        others = "" if result.peak_in_window == shown else f"; {result.peak_in_window:,} for any client"
        return f"at most {shown:,}{others}"
    name = view.traffic.name_key(result.fullest.key) if view.focus_name else ""
    client = f"{LABEL_PEN.truncate(make_legible(name), MAX_CLIENT_IN)}, " if name else ""
    return f"{shown:,} ({client}{format_short_moment(view.traffic, result.fullest.begin)})"
