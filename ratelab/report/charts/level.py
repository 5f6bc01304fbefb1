"""What each algorithm remembers over time: tokens, a queue, a count."""

from __future__ import annotations

import numpy as np

from ratelab.lab.levels import Levels, looked, recorded
from ratelab.limiter import Algorithm
from ratelab.report.charts.box import Box
from ratelab.report.charts.sheet import Sheet
from ratelab.report.charts.strips import height, strips
from ratelab.report.charts.view import COLUMNS, View
from ratelab.report.findings import listed

__all__ = ["finding", "height", "paint"]

MOST_REPEATED = 20_000
"""Requests that are decided again for the picture; of more, what was recorded with each is drawn."""


def finding(view: View) -> str:
    """Say for how much of the time each algorithm had nothing left to give."""
    spent = {result.algorithm: round(100 * _levels(view)[result.algorithm].spent()) for result in view.results}
    whose = f" for {view.focus_name}" if view.focus_name else ""
    least, most = min(spent.values()), max(spent.values())
    if most == 0:
        return f"No algorithm ever ran out{whose} for long."
    worst, best = ([name for name, share in spent.items() if share == end] for end in (most, least))
    rest = f", {listed(best)} for {least} %" if least < most else ""
    return f"{listed(worst)} had nothing left{whose} for {most} % of the time{rest}."


def paint(sheet: Sheet, box: Box, view: View) -> None:
    """Draw a strip for each algorithm, from 0 to the burst."""
    burst = view.comparison.quota.burst
    levels = _levels(view)
    notes = [getattr(algorithm, "shows", "left to give") for algorithm in view.comparison.algorithms]
    of = f" of {view.focus_name}" if view.focus_name else ""
    heading = f"what each algorithm remembers{of}, up to the burst of {burst:,}"
    limits = (0, 1.08 * max(burst, *(one.level.max(initial=0) for one in levels.values())))
    for result, axes in strips(sheet, box, view, heading, notes, limits):
        one, colour = levels[result.algorithm], view.colours[result.algorithm]
        times, values = view.points(one.times - view.comparison.traffic.origin, one.level)
        axes.fill_between(times, values, color=colour, alpha=0.3, linewidth=0)
        axes.plot(times, values, color=colour, linewidth=1.2)
        axes.axhline(burst, color=sheet.theme.ink, linewidth=1, linestyle=(0, (4, 3)))
        sheet.count_ticks(axes, [0, burst])


def _levels(view: View) -> dict[str, Levels]:
    return {algorithm.name: _level(view, algorithm) for algorithm in view.comparison.algorithms}


def _level(view: View, algorithm: Algorithm) -> Levels:
    traffic = view.comparison.traffic
    times, costs = traffic.clock_times[view.focussed], traffic.costs[view.focussed]
    if len(times) > MOST_REPEATED:
        made = view.comparison.decisions[algorithm.name][view.focussed]
        return recorded(algorithm, view.comparison.quota, times, costs, made)
    return looked(algorithm, times, costs, traffic.origin + np.linspace(0, view.end, 3 * COLUMNS).astype(np.int64))
