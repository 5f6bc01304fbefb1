"""When requests were admitted, delayed and denied: each a block where there are few, a density where there are many."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.decisions import Decisions
from ratelab.lab.spill import Integers
from ratelab.report.charts.canvas import Box, Sheet
from ratelab.report.charts.series import count_in_parts, split_time
from ratelab.report.charts.style import count
from ratelab.report.charts.view import LEFT, NAME, ComparisonView, strips, strips_height
from ratelab.report.summary import describe_denials

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_INDIVIDUAL_WAITS = 200
"""Waits for which room to be drawn one by one is looked for."""

HEAD, LINE = 3.5 / 72, 2 / 72
"""Inches from one arrowhead to the next, and from one line to the next, at which they are told apart."""


@dataclass(frozen=True, eq=False)
class Cells:
    """How many requests came, and left, in each part of the time between `cuts`."""

    times: Integers
    made: Decisions
    cuts: Integers
    width: float
    """The inches in which they are drawn."""
    height: float

    @cached_property
    def at_once(self) -> Integers:
        """Requests admitted without a wait."""
        return count_in_parts(self.made["allowed"] & (self.made["delay_ns"] == 0), self.times, self.cuts)

    @cached_property
    def admitted(self) -> Integers:
        """Requests admitted, at once or after a wait."""
        return count_in_parts(self.made["allowed"], self.times, self.cuts)

    @cached_property
    def denied(self) -> Integers:
        """Requests denied."""
        return count_in_parts(~self.made["allowed"], self.times, self.cuts)

    @cached_property
    def leaving(self) -> Integers:
        """Requests that went ahead, at once or after a wait."""
        return self.at_once + count_in_parts(np.ones(len(self.ends), np.bool_), np.sort(self.ends), self.cuts)

    @property
    def up(self) -> int:
        """The most that is drawn upwards."""
        return max(int(self.admitted.max()), int((self.lanes + 1 if self.singly else self.leaving).max(initial=0)))

    @property
    def down(self) -> int:
        """The most that is drawn downwards."""
        return int(self.denied.max())

    @cached_property
    def begins(self) -> Integers:
        """When those arrive that have to wait."""
        return self.times[self.made["delay_ns"] > 0]

    @cached_property
    def ends(self) -> Integers:
        """When they go ahead."""
        delays: Integers = self.made["delay_ns"][self.made["delay_ns"] > 0]
        return self.begins + delays

    @cached_property
    def singly(self) -> bool:
        """Whether there is room to draw each by itself, so that neither lines nor arrowheads touch."""
        if len(self.begins) > MAX_INDIVIDUAL_WAITS:
            return False
        lane = self.height / (max(int(self.admitted.max()), int(self.lanes.max(initial=0)) + 1) + self.down)
        across, up = self.ends / self.cuts[-1] * self.width, self.lanes * lane
        near = (abs(np.subtract.outer(across, across)) < HEAD) & (abs(np.subtract.outer(up, up)) < HEAD)
        return not len(up) or (lane >= LINE and int(near.sum()) == len(up))

    @cached_property
    def lanes(self) -> Integers:
        """A lane for each of them while it waits: the lowest that is free, above those that did not have to."""
        taken: list[tuple[int, int]] = []  # until when, and which
        free, lanes = [*range(len(self.begins))], []
        for begin, end in zip(self.begins.tolist(), self.ends.tolist(), strict=True):
            while taken and taken[0][0] <= begin:
                heappush(free, heappop(taken)[1])
            lane = heappop(free)
            heappush(taken, (end, lane))
            lanes.append(lane)
        part = np.searchsorted(self.cuts, self.begins, side="right") - 1
        return np.array(lanes, np.int64) + self.at_once[np.minimum(part, len(self.at_once) - 1)]


EACH = 0.95
CELLS = 110
BLOCKS = 30
"""Requests above one another that are told apart."""
LIGHT = 0.4


def finding(view: ComparisonView) -> str:
    """Say how many were denied and how many had to wait."""
    return describe_denials(view.comparison)


def height(view: ComparisonView) -> float:
    """Return the height of the chart in inches."""
    return strips_height(view, EACH)


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a strip for each algorithm: admitted requests upwards, lighter if they wait, denied ones downwards."""
    cells = _cells(view, box.width - LEFT)
    up, down = max(one.up for one in cells.values()), max(one.down for one in cells.values())
    later = " (light: later)" if any(result.delayed for result in view.results) else ""
    heading = f"{'all clients, ' if view.focus_name else ''}up: admitted{later}, down: denied"
    for result, axes in strips(sheet, box, view, heading, _notes(view), (-1.08 * down, 1.08 * max(1, up))):
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


def _cells(view: ComparisonView, width: float) -> dict[str, Cells]:
    """Cut the time axis so finely that each request is alone in its part, or, where that is too fine, coarsely."""
    times = view.traffic.times
    every = np.ones(len(times), np.bool_)
    ways = [split_time(view.end, parts) for parts in (CELLS, 2 * CELLS, 4 * CELLS)]
    cuts = next((cuts for cuts in ways if count_in_parts(every, times, cuts).max() <= 1), ways[0])
    height = EACH - NAME
    return {
        outcome.policy.name: Cells(times, outcome.rows, cuts, width, height) for outcome in view.comparison.outcomes
    }


def _notes(view: ComparisonView) -> list[str]:
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
