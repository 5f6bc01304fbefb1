"""Level chart: the tokens, the queue or the count that each algorithm keeps for a key, over time."""

from __future__ import annotations

from ratelab.lab.levels import describe_level
from ratelab.report.charts.canvas import LABEL_PEN, Box, Sheet
from ratelab.report.charts.style import DASHED
from ratelab.report.charts.view import ComparisonView, add_strips, compute_strips_height
from ratelab.report.numbers import join_names
from ratelab.report.summary import describe_oversized_requests

__all__ = ["compose_title", "compute_height", "paint"]

MAX_NAME_IN_TITLE_IN = 2.0
"""Width at which the title truncates the name of the key."""

compute_height = compute_strips_height


def compose_title(view: ComparisonView) -> str:
    """State for how much of the time each algorithm had nothing left to grant."""
    end = view.comparison.traffic.origin + view.comparison.traffic.duration
    shares = {name: levels.exhausted_ratio(end) for name, levels in view.levels.items()}
    percentages = {name: 100 if share == 1 else min(99, round(100 * share)) for name, share in shares.items()}
    key = LABEL_PEN.truncate(view.focus_name, MAX_NAME_IN_TITLE_IN)
    grant = f"left to grant {key}" if key else "left to grant"
    low, high = min(percentages.values()), max(percentages.values())
    if high == 0:
        return " ".join(
            [f"Every algorithm nearly always had something {grant}.", *describe_oversized_requests(view.comparison)]
        )
    worst, best = ([name for name, value in percentages.items() if value == extreme] for extreme in (high, low))
    others = f", {join_names(best)} for {low} %" if low < high else ""
    return f"{join_names(worst)} had nothing {grant} for {high} % of the time{others}."


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a strip for each algorithm, with a line at the burst; a level that turns too often is drawn as a band."""
    burst, origin = view.comparison.quota.burst, view.comparison.traffic.origin
    bands = {name: view.build_band(levels.times - origin, levels.level) for name, levels in view.levels.items()}
    notes = []
    for outcome in view.comparison.outcomes:
        range_note = " (range and approximate mean)" if bands[outcome.policy.name] else ""
        notes.append(describe_level(outcome.policy.algorithm) + range_note)
    heading = view.format_heading("level", f" over time; dashed: the burst of {burst:,}", box.width)
    top = max(burst, *(levels.level.max(initial=0) for levels in view.levels.values()))
    for result, axes in add_strips(sheet, box, view, heading, notes, (0, 1.08 * top)):
        levels, band, color = view.levels[result.algorithm], bands[result.algorithm], view.colors[result.algorithm]
        if band is None:
            times, values = view.build_points(levels.times - origin, levels.level)
            axes.fill_between(times, values, color=color, alpha=0.3, linewidth=0)
            axes.plot(times, values, color=color, linewidth=1.2)
        else:
            edges, (low, mean, high) = band
            sheet.fill_steps(axes, edges, high, color, low, 0.3)
            axes.plot((edges[1:] + edges[:-1]) / 2, mean, color=color, linewidth=1.2)
        axes.axhline(burst, color=sheet.theme.ink, linewidth=1, linestyle=DASHED)
        sheet.set_count_ticks(axes, [0, burst])
