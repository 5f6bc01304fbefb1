"""Goodput chart: the tries that reach the limiter and the successes of clients, over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.closed_loop.figures import LoopResult
from ratelab.lab.spill import Integers
from ratelab.quota import about
from ratelab.report.charts.canvas import Box, Sheet, round_down
from ratelab.report.charts.loop_view import LoopView
from ratelab.report.charts.series import count_times
from ratelab.report.charts.view import add_named_strips, compute_strips_height
from ratelab.report.loop_findings import FAULT_NOUNS, format_tries, summarize_loops
from ratelab.report.numbers import format_per_second, join_names

STRIP_HEIGHT_IN, SINGLE_STRIP_HEIGHT_IN = 0.85, 1.6
ARRIVALS_OPACITY = 0.3
"""Opacity of the color for tries."""


def compose_title(view: LoopView) -> str:
    """State the first finding: recovery from the faults, or else what distinguishes the runs most."""
    return summarize_loops(view.comparison)[0]


def compute_height(view: LoopView, width: float) -> float:
    """Return the height of the chart in inches."""
    height = STRIP_HEIGHT_IN if len(view.results) > 1 else SINGLE_STRIP_HEIGHT_IN
    return compute_strips_height(len(view.results), view.whole, _compose_heading(view), width, height)


def paint(sheet: Sheet, box: Box, view: LoopView) -> None:
    """Draw a strip for each run: tries in a pale color, successes in full color, first tries as a line."""
    time, edges = view.whole, view.whole.split()
    rates = [[_count_rate(times, edges) for times in _list_times(result)] for result in view.results]
    top = max(1e-9, *(float(rate.max(initial=0)) for row in rates for rate in row))
    notes = [
        f"{format_per_second(result.goodput)} served, {format_tries(result.amplification)} per request"
        for result in view.results
    ]
    counts = [0, round_down(int(top))] if top >= 1 else [0, top]
    strips = add_named_strips(sheet, box, view.names, time, _compose_heading(view), notes, counts, (0, 1.08 * top))
    places = time.scale(edges)
    for result, (_, color), axes, (first_tries, arrivals, successes) in zip(
        view.results, view.names, strips, rates, strict=True
    ):
        for fault in result.population.faults:
            begin, end = (time.scale(at) for at in (fault.begin, fault.end))
            axes.axvspan(begin, max(end, begin + time.length / 400), color=sheet.theme.grid, linewidth=0)
        sheet.fill_steps(axes, places, arrivals, color, opacity=ARRIVALS_OPACITY)
        sheet.fill_steps(axes, places, successes, color)
        demand = np.append(first_tries, first_tries[-1])
        for line_color, line_width in ((sheet.theme.paper, 2), (sheet.theme.ink, 0.8)):
            axes.step(places, demand, where="post", color=line_color, linewidth=line_width)


def _list_times(result: LoopResult) -> Sequence[Integers]:
    return result.started, result.arrived, result.succeeded


def _count_rate(times: Integers, edges: Integers) -> NDArray[np.float64]:
    """Return how many times a second there are in each part between `edges`."""
    rates: NDArray[np.float64] = count_times(times, edges) / (np.diff(edges) / 1e9)
    return rates


def _compose_heading(view: LoopView) -> str:
    faults = [fault.kind for result in view.results for fault in result.population.faults]
    nouns = join_names([FAULT_NOUNS[kind] for kind in dict.fromkeys(faults)]) if faults else ""
    return (
        f"Tries that arrive (pale) and successes (full color) a second, in parts of {about(view.whole.part_length)}. "
        f"The line shows the first tries.{f' Shaded: {nouns}.' if nouns else ''}"
    )
