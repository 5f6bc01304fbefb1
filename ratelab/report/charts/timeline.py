"""Timeline chart: requests admitted, delayed and denied over time, one by one or as a density."""

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
from ratelab.report.charts.style import DELAYED_OPACITY, format_count
from ratelab.report.charts.view import STRIP_NAME_IN, STRIP_SCALE_IN, ComparisonView, add_strips, compute_strips_height
from ratelab.report.summary import describe_denials

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT_IN = 0.95
"""Height of a strip."""

TIME_PARTS = 110
"""Parts of the time axis in which requests are counted."""

MAX_BLOCKS = 20
"""Requests on top of each other that are drawn as separate blocks."""

MAX_ARROWS = 200
"""Delayed requests that are drawn as arrows, if there is room."""

ARROWHEAD_IN, MIN_LANE_IN = 3.5 / 72, 2 / 72
"""Smallest distances at which arrowheads and lanes remain distinct."""


def compose_title(view: ComparisonView) -> str:
    """State how many requests were denied and how many were delayed."""
    return describe_denials(view.comparison)


def compute_height(view: ComparisonView) -> float:
    """Return the height of the chart in inches."""
    return compute_strips_height(view, HEIGHT_IN)


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a strip for each algorithm: admitted requests upwards, faint if delayed, and denied ones downwards."""
    histograms = _count_requests(view, box.width - STRIP_SCALE_IN)
    up = max(histogram.max_up for histogram in histograms.values())
    down = max(histogram.max_down for histogram in histograms.values())
    delayed = " (faint: delayed)" if any(result.delayed for result in view.results) else ""
    heading = f"{'all clients; ' if view.focus_name else ''}up: admitted{delayed}, down: denied"
    limits = (-1.08 * down, 1.08 * max(1, up))
    for result, axes in add_strips(sheet, box, view, heading, _compose_notes(view), limits):
        histogram, color = histograms[result.algorithm], view.colors[result.algorithm]
        edges = view.scale(histogram.edges)
        sheet.fill_steps(axes, edges, histogram.immediate, color)
        sheet.fill_steps(axes, edges, histogram.admitted, color, floor=histogram.immediate, opacity=DELAYED_OPACITY)
        sheet.fill_steps(axes, edges, -histogram.denied, sheet.theme.denied)
        if up + down <= MAX_BLOCKS:
            for heights in (histogram.admitted, -histogram.denied):
                _separate_blocks(axes, heights, edges, sheet.theme.paper)
        if histogram.has_arrows:
            starts, ends, lanes = view.scale(histogram.arrivals), view.scale(histogram.departures), histogram.lanes
            axes.hlines(lanes + 0.5, starts, ends, color=color, linewidth=1)
            axes.plot(ends, lanes + 0.5, ">", color=color, markersize=3.5)
        else:
            departing = [*histogram.departing, histogram.departing[-1]]
            axes.plot(edges, departing, drawstyle="steps-post", color=color, linewidth=1)
        axes.axhline(0, color=sheet.theme.quiet, linewidth=0.6)
        axes.spines["bottom"].set_visible(False)
        sheet.set_count_ticks(axes, [0, *(at for at in (-down, up) if abs(at) > 0.2 * (up + down))])


def _compose_notes(view: ComparisonView) -> list[str]:
    notes = []
    for result in view.results:
        immediate = format_count(result.admitted - result.delayed)
        counts = f"{immediate} at once, {format_count(result.delayed)} delayed" if result.delayed else ""
        notes.append(f"{counts or f'{immediate} admitted'}, {format_count(result.denied)} denied")
    return notes


def _separate_blocks(axes: Axes, heights: Integers, edges: NDArray[np.float64], paper: str) -> None:
    """Draw lines between the requests on top of each other."""
    part = np.repeat(np.arange(len(heights)), abs(heights))
    floor = (np.arange(len(part)) - np.searchsorted(part, part)) * np.sign(heights)[part]
    axes.hlines(floor, edges[part], edges[part + 1], color=paper, linewidth=0.8)


@dataclass(frozen=True, eq=False)
class Histogram:
    """Requests and departures counted in the parts of the time between `edges`, and arrows for delayed requests."""

    times: Integers
    decisions: Decisions
    edges: Integers
    width: float
    """Width of the axes in inches."""
    height: float

    @cached_property
    def immediate(self) -> Integers:
        """Requests admitted without delay."""
        return count_in_parts(self.decisions["allowed"] & (self.decisions["delay_ns"] == 0), self.times, self.edges)

    @cached_property
    def admitted(self) -> Integers:
        """Requests admitted, with or without delay."""
        return count_in_parts(self.decisions["allowed"], self.times, self.edges)

    @cached_property
    def denied(self) -> Integers:
        """Requests denied."""
        return count_in_parts(~self.decisions["allowed"], self.times, self.edges)

    @cached_property
    def departing(self) -> Integers:
        """Requests that depart."""
        return self.immediate + count_in_parts(
            np.ones(len(self.departures), np.bool_), np.sort(self.departures), self.edges
        )

    @property
    def max_up(self) -> int:
        """The largest count drawn upwards."""
        upper = self.lanes + 1 if self.has_arrows else self.departing
        return max(int(self.admitted.max()), int(upper.max(initial=0)))

    @property
    def max_down(self) -> int:
        """The largest count drawn downwards."""
        return int(self.denied.max())

    @cached_property
    def arrivals(self) -> Integers:
        """The times at which the delayed requests arrive."""
        return self.times[self.decisions["delay_ns"] > 0]

    @cached_property
    def departures(self) -> Integers:
        """The times at which they depart."""
        delays: Integers = self.decisions["delay_ns"][self.decisions["delay_ns"] > 0]
        return self.arrivals + delays

    @cached_property
    def has_arrows(self) -> bool:
        """Whether there is room for an arrow for each delayed request, without contact of lines or arrowheads."""
        if len(self.arrivals) > MAX_ARROWS:
            return False
        lane = self.height / (max(int(self.admitted.max()), int(self.lanes.max(initial=0)) + 1) + self.max_down)
        x, y = self.departures / self.edges[-1] * self.width, self.lanes * lane
        near = (abs(np.subtract.outer(x, x)) < ARROWHEAD_IN) & (abs(np.subtract.outer(y, y)) < ARROWHEAD_IN)
        return not len(y) or (lane >= MIN_LANE_IN and int(near.sum()) == len(y))

    @cached_property
    def lanes(self) -> Integers:
        """The lane of each delayed request: the lowest free one, above the requests admitted at once."""
        occupied: list[tuple[int, int]] = []  # departure and lane
        free, lanes = [*range(len(self.arrivals))], []
        for arrival, departure in zip(self.arrivals.tolist(), self.departures.tolist(), strict=True):
            while occupied and occupied[0][0] <= arrival:
                heappush(free, heappop(occupied)[1])
            lane = heappop(free)
            heappush(occupied, (departure, lane))
            lanes.append(lane)
        part = np.searchsorted(self.edges, self.arrivals, side="right") - 1
        return np.array(lanes, np.int64) + self.immediate[np.minimum(part, len(self.immediate) - 1)]


def _count_requests(view: ComparisonView, width: float) -> dict[str, Histogram]:
    """Count requests in parts with one request at most; if those were too short, in `TIME_PARTS` parts."""
    times = view.traffic.times
    every = np.ones(len(times), np.bool_)
    candidates = [split_time(view.end, factor * TIME_PARTS) for factor in (1, 2, 4)]
    edges = next((edges for edges in candidates if count_in_parts(every, times, edges).max() <= 1), candidates[0])
    height = HEIGHT_IN - STRIP_NAME_IN
    return {
        outcome.policy.name: Histogram(times, outcome.rows, edges, width, height)
        for outcome in view.comparison.outcomes
    }
