"""When requests were admitted, delayed and denied: each a block where there are few, a density where there are many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.spill import Integers
from ratelab.report.charts import strips
from ratelab.report.charts.box import Box
from ratelab.report.charts.canvas import Sheet
from ratelab.report.charts.cells import Cells
from ratelab.report.charts.series import borders, within
from ratelab.report.charts.units import count
from ratelab.report.charts.view import View
from ratelab.report.summary import price

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EACH = 0.95
CELLS = 110
BLOCKS = 30
"""Requests above one another that are told apart."""
LIGHT = 0.4


def finding(view: View) -> str:
    """Say how many were denied and how many had to wait."""
    return price(view.comparison)


def height(view: View) -> float:
    """Return the height of the chart in inches."""
    return strips.height(view, EACH)


def paint(sheet: Sheet, box: Box, view: View) -> None:
    """Draw a strip for each algorithm: admitted requests upwards, lighter if they wait, denied ones downwards."""
    cells = _cells(view, box.width - strips.LEFT)
    up, down = max(one.up for one in cells.values()), max(one.down for one in cells.values())
    later = " (light: later)" if any(result.delayed for result in view.results) else ""
    heading = f"{'all clients, ' if view.focus_name else ''}up: admitted{later}, down: denied"
    for result, axes in strips.strips(sheet, box, view, heading, _notes(view), (-1.08 * down, 1.08 * max(1, up))):
        one, colour = cells[result.algorithm], view.colours[result.algorithm]
        edges = view.x(one.cuts)
        sheet.bars(axes, edges, one.at_once, colour)
        sheet.bars(axes, edges, one.admitted, colour, floor=one.at_once, opacity=LIGHT)
        sheet.bars(axes, edges, -one.denied, sheet.theme.denied)
        if up + down <= BLOCKS:
            for heights in (one.admitted, -one.denied):
                _cut_into_blocks(axes, heights, edges, sheet.theme.paper)
        if one.singly:
            axes.hlines(one.lanes + 0.5, view.x(one.begins), view.x(one.ends), color=colour, linewidth=1)
            axes.plot(view.x(one.ends), one.lanes + 0.5, ">", color=colour, markersize=3.5)
        else:
            axes.plot(edges, [*one.leaving, one.leaving[-1]], drawstyle="steps-post", color=colour, linewidth=1)
        axes.axhline(0, color=sheet.theme.quiet, linewidth=0.6)
        axes.spines["bottom"].set_visible(False)
        sheet.count_ticks(axes, [0, *(at for at in (-down, up) if abs(at) > 0.2 * (up + down))])


def _cells(view: View, width: float) -> dict[str, Cells]:
    """Cut the time axis so finely that each request is alone in its part, or, where that is too fine, coarsely."""
    times = view.traffic.times
    every = np.ones(len(times), np.bool_)
    ways = [borders(view.end, parts) for parts in (CELLS, 2 * CELLS, 4 * CELLS)]
    cuts = next((cuts for cuts in ways if within(every, times, cuts).max() <= 1), ways[0])
    height = EACH - strips.NAME
    return {name: Cells(times, made, cuts, width, height) for name, made in view.comparison.decisions.items()}


def _notes(view: View) -> list[str]:
    return [
        f"{count(result.admitted - result.delayed)} at once, {count(result.delayed)} later, "
        f"{count(result.denied)} denied"
        if result.delayed
        else f"{count(result.admitted)} admitted, {count(result.denied)} denied"
        for result in view.results
    ]


def _cut_into_blocks(axes: Axes, heights: Integers, edges: NDArray[np.float64], paper: str) -> None:
    cell = np.repeat(np.arange(len(heights)), abs(heights))
    floor = (np.arange(len(cell)) - np.searchsorted(cell, cell)) * np.sign(heights)[cell]
    axes.hlines(floor, edges[cell], edges[cell + 1], color=paper, linewidth=0.8)
