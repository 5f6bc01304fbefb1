"""Level chart: the cost that each algorithm would still grant a key, over time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.decisions import Outcome
from ratelab.lab.levels import counts_remaining
from ratelab.report.charts.canvas import Box, Sheet
from ratelab.report.charts.style import DASHED
from ratelab.report.charts.view import ComparisonView, add_strips, compute_strips_height
from ratelab.report.numbers import format_percent, group_by_value
from ratelab.report.summary import describe_oversized_requests


def compose_title(view: ComparisonView) -> str:
    """State for how much of the time each algorithm had nothing left to grant."""
    shares = {name: round(1e4 * levels.exhausted_ratio()) for name, levels in view.levels.items()}
    grant = f"left to grant {view.short_name}" if view.focus_name else "left to grant"
    if not any(shares.values()):
        return " ".join(
            [f"Every algorithm nearly always had something {grant}.", *describe_oversized_requests(view.comparison)]
        )
    (most, names), *others = group_by_value(shares.items())
    time = view.describe_detail() or " of the time"
    rest = "".join(f", {group} for {format_percent(share / 1e4)}" for share, group in others)
    part = time.replace(" in the ", " of the ")
    return f"{names} had nothing {grant} for {format_percent(most / 1e4)}{part}{rest}."


def compute_height(view: ComparisonView, width: float) -> float:
    """Return the height of the chart in inches."""
    return compute_strips_height(len(view.results), view.detail, _compose_heading(view), width)


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a strip for each algorithm; a level that turns too often is drawn as a band."""
    burst, origin = view.comparison.quota.burst, view.traffic.origin
    left = {outcome.policy.name: _compute_left(view, outcome) for outcome in view.comparison.outcomes}
    bands = {name: view.build_band(levels.times - origin, left[name]) for name, levels in view.levels.items()}
    notes = ["range and approximate mean" if bands[result.algorithm] else "" for result in view.results]
    strips = add_strips(sheet, box, view, view.detail, _compose_heading(view), notes, [0, burst], (0, 1.08 * burst))
    for result, axes in strips:
        times, band, color = view.levels[result.algorithm].times, bands[result.algorithm], view.colors[result.algorithm]
        if band is None:
            places, values = view.build_points(times - origin, left[result.algorithm])
            axes.fill_between(places, values, color=color, alpha=0.3, linewidth=0)
            axes.plot(places, values, color=color, linewidth=1.2)
        else:
            edges, (low, mean, high) = band
            sheet.fill_steps(axes, edges, high, color, low, 0.3)
            axes.plot((edges[1:] + edges[:-1]) / 2, mean, color=color, linewidth=1.2)
        axes.axhline(burst, color=sheet.theme.ink, linewidth=1, linestyle=DASHED)


def _compute_left(view: ComparisonView, outcome: Outcome) -> NDArray[np.float64]:
    """Return the quota left: the level itself, or the burst less a level that counts the used quota."""
    level, burst = view.levels[outcome.policy.name].level, view.comparison.quota.burst
    left = level if counts_remaining(outcome.policy) else burst - level
    return np.asarray(np.clip(left, 0, burst), np.float64)


def _compose_heading(view: ComparisonView) -> str:
    client = view.short_name or "the client"
    return (
        f"The quota that {client} has left{view.describe_detail()}: places, tokens or requests. "
        f"The dashed line is the full burst of {view.comparison.quota.burst:,}."
    )
