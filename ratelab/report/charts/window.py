"""Window chart: the cost that departs in the window that ends now, compared with the burst."""

from __future__ import annotations

import numpy as np

from ratelab.quota import about
from ratelab.report.charts.canvas import Box, Sheet
from ratelab.report.charts.series import find_window_peaks, split_time
from ratelab.report.charts.style import DASHED
from ratelab.report.charts.view import ComparisonView, add_strips, compute_strips_height
from ratelab.report.summary import describe_protection

__all__ = ["compose_title", "compute_height", "paint"]

PARTS_PER_INCH = 70
"""Parts of the time axis; each shows its largest value, so that no moment above the burst is lost."""

compute_height = compute_strips_height


def compose_title(view: ComparisonView) -> str:
    """State how well each algorithm enforced the quota."""
    return describe_protection(view.comparison)


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a strip for each algorithm: faint up to the burst, and in full color above it."""
    burst, window = view.comparison.quota.burst, view.comparison.quota.window
    edges = split_time(view.end, int(box.width * PARTS_PER_INCH))
    costs = {name: find_window_peaks(*view.departures[name], window, edges) for name in view.colors}
    peaks = [int(cost.max()) for cost in costs.values()]
    notes = [_compose_note(peak, burst) for peak in peaks]
    heading = view.format_heading("departures", f" in the last {about(window)}; dashed: burst", box.width)
    for result, axes in add_strips(sheet, box, view, heading, notes, (0, 1.08 * max(burst, *peaks))):
        cost, color = costs[result.algorithm], view.colors[result.algorithm]
        sheet.fill_steps(axes, view.scale(edges), np.minimum(cost, burst), color, opacity=0.3)
        sheet.fill_steps(axes, view.scale(edges), np.maximum(cost, burst), color, floor=burst)
        axes.axhline(burst, color=sheet.theme.ink, linewidth=1, linestyle=DASHED)
        sheet.set_count_ticks(axes, [0, burst])


def _compose_note(peak: int, burst: int) -> str:
    if peak <= burst:
        return f"peak {peak:,}"
    excess = f"{peak / burst:.3g}x" if peak >= 1.05 * burst else f"{peak - burst:,} above"
    return f"peak {peak:,}, {excess} the quota"
