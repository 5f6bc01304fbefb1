"""The cost that left within the window that ends now, against the burst; what is above it is the overshoot."""

from __future__ import annotations

import numpy as np

from ratelab.quota import about
from ratelab.report.charts.canvas import Box, Sheet
from ratelab.report.charts.series import find_window_peaks, split_time
from ratelab.report.charts.view import ComparisonView, strips, strips_height
from ratelab.report.summary import describe_protection

COLUMNS_PER_INCH = 70
"""How finely time is cut; the most in each part is drawn, so that no moment above the burst is lost."""

__all__ = ["finding", "height", "paint"]

height = strips_height


def finding(view: ComparisonView) -> str:
    """Say how well the quota was kept."""
    return describe_protection(view.comparison)


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a strip for each algorithm: light up to the burst, in full colour above it."""
    burst, window = view.comparison.quota.burst, view.comparison.quota.window
    cuts = split_time(view.end, int(box.width * COLUMNS_PER_INCH))
    mosts = [find_window_peaks(*view.departures(result.algorithm), window, cuts) for result in view.results]
    peaks = [int(most.max()) for most in mosts]
    notes = [_note(peak, burst) for peak in peaks]
    heading = view.heading("what left", f" in the last {about(window)}, against {burst:,}", box.width)
    drawn = zip(strips(sheet, box, view, heading, notes, (0, 1.08 * max(burst, *peaks))), mosts, strict=True)
    for (result, axes), most in drawn:
        colour = view.colours[result.algorithm]
        sheet.bars(axes, view.x(cuts), np.minimum(most, burst), colour, opacity=0.3)
        sheet.bars(axes, view.x(cuts), np.maximum(most, burst), colour, floor=burst)
        axes.axhline(burst, color=sheet.theme.ink, linewidth=1, linestyle=(0, (4, 3)))
        sheet.count_ticks(axes, [0, burst])


def _note(peak: int, burst: int) -> str:
    if peak <= burst:
        return f"at most {peak:,}"
    return f"{peak:,}, {f'{peak / burst:.3g}x' if peak >= 1.05 * burst else f'{peak - burst:,} above'} the quota"
