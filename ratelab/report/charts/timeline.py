"""Timeline chart: requests admitted, delayed and denied over time, one by one or as a density."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.decisions import Decisions
from ratelab.lab.metrics import Result
from ratelab.lab.spill import Integers
from ratelab.quota import about
from ratelab.report.charts.canvas import LABEL_PEN, Box, Sheet, round_down
from ratelab.report.charts.series import count_in_parts, split_time
from ratelab.report.charts.style import DELAYED_OPACITY
from ratelab.report.charts.time_axis import TIME_PARTS, TimeAxis
from ratelab.report.charts.view import STRIP_NAME_IN, ComparisonView, add_strips, compute_strips_height
from ratelab.report.summary import describe_denials

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT_IN = 0.95
"""Height of a strip."""

STRIP_SCALE_IN = 0.4
"""Width of the scale to the left of a strip, about."""

MIN_TICK_PART = 0.18
"""Part of the scale below which a tick would be too close to that at 0."""

MAX_BLOCKS = 20
"""Requests on top of each other that are drawn as separate blocks."""

MAX_ARROWS = 200
"""Delayed requests that are drawn as arrows, if there is room."""

ARROWHEAD_IN, MIN_LANE_IN = 3.5 / 72, 2 / 72
"""Smallest distances at which arrowheads and lanes remain distinct."""


def compose_title(view: ComparisonView) -> str:
    """State how many requests were denied and how many were delayed."""
    return describe_denials(view.comparison)


def compute_height(view: ComparisonView, width: float, strip_height: float = HEIGHT_IN) -> float:
    """Return the height of the chart in inches."""
    return compute_strips_height(len(view.results), view.whole, _Histograms(view, width).heading, width, strip_height)


def choose_time(view: ComparisonView) -> TimeAxis:
    """Return the time axis of the strips."""
    return view.whole


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a strip for each algorithm: admitted requests upwards, faint if delayed, and denied ones downwards."""
    drawn = _Histograms(view, box.width)
    up, down = drawn.up, drawn.down
    limits = (-1.08 * down, 1.08 * max(1, up))
    ends = (-round_down(down), round_down(max(1, up)))
    counts = [0, *(count for count in ends if abs(count) > MIN_TICK_PART * (up + down))]
    notes = [_compose_note(result, box.width) for result in view.results]
    for result, axes in add_strips(sheet, box, view, view.whole, drawn.heading, notes, counts, limits):
        histogram, color = drawn.histograms[result.algorithm], view.colors[result.algorithm]
        edges = view.whole.scale(histogram.edges)
        sheet.fill_steps(axes, edges, histogram.immediate, color)
        sheet.fill_steps(axes, edges, histogram.admitted, color, floor=histogram.immediate, opacity=DELAYED_OPACITY)
        sheet.fill_steps(axes, edges, -histogram.denied, sheet.theme.denied)
        if up + down <= MAX_BLOCKS:
            for heights in (histogram.admitted, -histogram.denied):
                _separate_blocks(axes, heights, edges, sheet.theme.paper)
        if histogram.has_arrows:
            starts, ends = view.whole.scale(histogram.arrivals), view.whole.scale(histogram.departures)
            axes.hlines(histogram.lanes + 0.5, starts, ends, color=color, linewidth=1)
            axes.plot(ends, histogram.lanes + 0.5, ">", color=color, markersize=3.5)
        else:
            departing = [*histogram.departing, histogram.departing[-1]]
            axes.plot(edges, departing, drawstyle="steps-post", color=color, linewidth=1)
        axes.axhline(0, color=sheet.theme.quiet, linewidth=0.6)
        axes.spines["bottom"].set_visible(False)


def _compose_note(result: Result, width: float) -> str:
    """Return the counts of an algorithm, with that of delayed requests if they fit next to its name."""
    denied = f"{result.denied:,} denied"
    if result.delayed:
        counts = f"{result.admitted - result.delayed:,} at once, {result.delayed:,} delayed, {denied}"
        if LABEL_PEN.measure(f"{result.algorithm}   {counts}") <= width:
            return counts
    return f"{result.admitted:,} admitted, {denied}"


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


class _Histograms:
    """The histogram of each algorithm, and the heading that describes them."""

    def __init__(self, view: ComparisonView, width: float) -> None:
        times, every = view.traffic.times, np.ones(len(view.traffic), np.bool_)
        candidates = [split_time(view.end, factor * TIME_PARTS) for factor in (1, 2, 4)]
        single = (edges for edges in candidates if count_in_parts(every, times, edges).max() <= 1)
        self._view, edges = view, next(single, view.whole.split())
        height = HEIGHT_IN - STRIP_NAME_IN
        self.histograms = {
            outcome.policy.name: Histogram(times, outcome.rows, edges, width - STRIP_SCALE_IN, height)
            for outcome in view.comparison.outcomes
        }
        self.up = max(histogram.max_up for histogram in self.histograms.values())
        self.down = max(histogram.max_down for histogram in self.histograms.values())

    @property
    def heading(self) -> str:
        """The meaning of the bars in sentences."""
        clients = " of all clients" if self._view.focus_name else ""
        is_single = all(int(histogram.admitted.max(initial=0)) <= 1 for histogram in self.histograms.values())
        rate = "" if is_single and self.down <= 1 else f" in parts of {about(self._view.whole.part_length)}"
        sentences = [f"Requests{clients}{rate}: admitted ones point up, denied ones (gray) point down."]
        if any(result.delayed for result in self._view.results):
            arrows = any(histogram.has_arrows and len(histogram.arrivals) for histogram in self.histograms.values())
            waits = "arrows lead to their departures" if arrows else "the line counts departures"
            sentences.append(f"Delayed ones are faint; {waits}.")
        return " ".join(sentences)
