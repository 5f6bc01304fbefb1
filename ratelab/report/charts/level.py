"""What each algorithm remembers over time: tokens, a queue, a count."""

from __future__ import annotations

from ratelab.lab.levels import describe_level
from ratelab.report.charts.canvas import LABEL, Box, Sheet
from ratelab.report.charts.view import ComparisonView, strips, strips_height
from ratelab.report.summary import describe_oversized_requests, join_names

__all__ = ["finding", "height", "paint"]

height = strips_height

TITLE_NAME_WIDTH_IN = 2.0
"""Inches in which the title names whose levels these are, before the name is cut."""


def finding(view: ComparisonView) -> str:
    """Say for how much of the time each algorithm had nothing left to give."""
    until = view.comparison.traffic.origin + view.comparison.traffic.duration
    shares = {name: one.exhausted_ratio(until) for name, one in view.levels.items()}
    spent = {name: 100 if share == 1 else min(99, round(100 * share)) for name, share in shares.items()}
    whose = LABEL.cut(view.focus_name, TITLE_NAME_WIDTH_IN)
    least, most = min(spent.values()), max(spent.values())
    if most == 0:
        nobody = f"No algorithm ever left {whose} with nothing" if whose else "No algorithm ever ran out"
        return " ".join([f"{nobody} for long.", *describe_oversized_requests(view.comparison)])
    worst, best = ([name for name, share in spent.items() if share == end] for end in (most, least))
    rest = f", {join_names(best)} for {least} %" if least < most else ""
    ran_out = f"left {whose} nothing" if whose else "had nothing left"
    return f"{join_names(worst)} {ran_out} for {most} % of the time{rest}."


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a strip for each algorithm, from 0 to the burst; a level that turns too often to be seen as a band."""
    burst = view.comparison.quota.burst
    levels = view.levels
    bands = {name: view.band(one.times - view.comparison.traffic.origin, one.level) for name, one in levels.items()}
    notes = [
        describe_level(outcome.policy.algorithm) + (": range and, roughly, mean" if bands[outcome.policy.name] else "")
        for outcome in view.comparison.outcomes
    ]
    heading = view.heading("what each algorithm remembers", f", up to the burst of {burst:,}", box.width)
    limits = (0, 1.08 * max(burst, *(one.level.max(initial=0) for one in levels.values())))
    for result, axes in strips(sheet, box, view, heading, notes, limits):
        one, colour = levels[result.algorithm], view.colours[result.algorithm]
        band = bands[result.algorithm]
        if band is None:
            times, values = view.points(one.times - view.comparison.traffic.origin, one.level)
            axes.fill_between(times, values, color=colour, alpha=0.3, linewidth=0)
            axes.plot(times, values, color=colour, linewidth=1.2)
        else:
            edges, (least, mean, most) = band
            sheet.bars(axes, edges, most, colour, least, 0.3)
            axes.plot((edges[1:] + edges[:-1]) / 2, mean, color=colour, linewidth=1.2)
        axes.axhline(burst, color=sheet.theme.ink, linewidth=1, linestyle=(0, (4, 3)))
        sheet.count_ticks(axes, [0, burst])
