"""View of a comparison for its charts: one key, its departures and levels, and strips on a common time axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.comparison import Comparison
from ratelab.lab.decisions import Outcome
from ratelab.lab.levels import Levels, rebuild_levels, sample_levels
from ratelab.lab.metrics import Result
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic
from ratelab.quota import about
from ratelab.report.charts.canvas import LABEL_PEN, Box, Sheet, measure_heading, measure_scale
from ratelab.report.charts.series import Band, Curve, Values, compute_band, count_turns, downsample, split_time
from ratelab.report.charts.style import assign_colors
from ratelab.report.charts.text import make_legible
from ratelab.report.charts.time_axis import TimeAxis, choose_step
from ratelab.report.numbers import is_dated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVE_PARTS = 300
"""Parts of the time axis; a curve is drawn no finer."""

MAX_WHOLE_WINDOWS = 40
"""Windows of the quota up to which charts of one key show the whole time."""

DETAIL_WINDOWS = 8
"""Windows that they show at least of a longer time."""

MAX_NAME_IN = 2.0
"""Width at which headings truncate the name of a key."""

MAX_REPEATED_REQUESTS = 20_000
"""Requests that are decided again to compute exact levels; for more, the recorded decisions give the levels."""


@dataclass(frozen=True, eq=False)
class ComparisonView:
    """A comparison, with the values that its charts share.

    Each key has a quota of its own. So charts that compare with the quota show a single key, `focus`.
    """

    comparison: Comparison
    theme: str

    @property
    def has_quota(self) -> bool:
        """Whether all results have the same quota."""
        return True

    @property
    def results(self) -> tuple[Result, ...]:
        """The figures of each algorithm, in the order of drawing."""
        return self.comparison.results

    @cached_property
    def colors(self) -> dict[str, str]:
        """The color of each algorithm."""
        return assign_colors([result.algorithm for result in self.results], self.theme)

    @property
    def traffic(self) -> Traffic:
        """The requests, in memory."""
        return self.comparison.traffic

    # --- the time axis

    @cached_property
    def end(self) -> int:
        """The end of the time in nanoseconds: that of the traffic, or the last departure."""
        traffic = self.traffic
        last = [int((traffic.times + outcome.rows["delay_ns"]).max(initial=0)) for outcome in self.comparison.outcomes]
        return max(1, traffic.duration, *last)

    @cached_property
    def whole(self) -> TimeAxis:
        """The whole time."""
        return self._create_axis(0, self.end)

    @cached_property
    def detail(self) -> TimeAxis:
        """The time that charts of one key show: the whole, or of a long one the part around the fullest window."""
        fullest, window = self.comparison.fullest, self.comparison.quota.window
        if fullest is None or self.end <= MAX_WHOLE_WINDOWS * window:
            return self.whole
        length = choose_step(DETAIL_WINDOWS * window, 1)
        if length >= self.end:
            return self.whole
        begin = max(0, min(self.end - length, fullest.begin - length // 4))
        tick = choose_step(length, 10)
        begin -= (begin + (self.traffic.origin if is_dated(self.traffic) else 0)) % tick
        return self._create_axis(max(0, begin), max(0, begin) + length)

    @property
    def is_detailed(self) -> bool:
        """Whether charts of one key show a part of the time."""
        return self.detail != self.whole

    def _create_axis(self, begin: int, end: int) -> TimeAxis:
        return TimeAxis(begin, end, self.traffic.origin if is_dated(self.traffic) else None)

    def describe_detail(self) -> str:
        """Describe the part of the time, as the end of a sentence: ` in the 10 min around its fullest window`."""
        detail = self.detail
        return f" in the {about(detail.end - detail.begin)} around its fullest window" if self.is_detailed else ""

    # --- one key

    @property
    def focus(self) -> int:
        """The key with the fullest window of all."""
        return self.comparison.fullest.key if self.comparison.fullest else 0

    @cached_property
    def focused(self) -> NDArray[np.bool_] | slice:
        """The requests of that key, as an index."""
        return self._select(self.focus)

    def _select(self, key: int) -> NDArray[np.bool_] | slice:
        return self.traffic.request_keys == key if self.traffic.keys.any() else slice(None)

    @cached_property
    def focus_name(self) -> str:
        """The name of that key; empty if there is no other key."""
        return self.traffic.name_key(self.focus) if self.traffic.key_count > 1 else ""

    @cached_property
    def short_name(self) -> str:
        """The name of that key, truncated."""
        return LABEL_PEN.truncate(make_legible(self.focus_name), MAX_NAME_IN)

    @property
    def owner(self) -> str:
        """The owner of the requests that charts of one key show, for a heading: ` of alice`; empty if it is alone."""
        return f" of {self.short_name}" if self.focus_name else ""

    @cached_property
    def departures(self) -> dict[str, tuple[Integers, Integers]]:
        """The times at which requests of that key depart from each algorithm, in order, and their costs."""
        return {outcome.policy.name: self.list_departures(outcome, self.focus) for outcome in self.comparison.outcomes}

    def list_departures(self, outcome: Outcome, key: int) -> tuple[Integers, Integers]:
        """Return the times at which requests of a key depart from an algorithm, in order, and their costs."""
        traffic, chosen = self.traffic, self._select(key)
        allowed = outcome.decisions["allowed"][chosen]
        delays = outcome.decisions["delay_ns"][chosen][allowed]
        times, costs = traffic.times[chosen][allowed] + delays, traffic.costs[chosen][allowed]
        if delays.any():
            order = np.argsort(times, kind="stable")
            times, costs = times[order], costs[order]
        return times, costs

    @cached_property
    def levels(self) -> dict[str, Levels]:
        """The level that each algorithm keeps for that key."""
        begin, end = (self.traffic.origin + time for time in (self.detail.begin, self.detail.end))
        return {
            outcome.policy.name: self._compute_levels(outcome).cut(begin, end) for outcome in self.comparison.outcomes
        }

    def _compute_levels(self, outcome: Outcome) -> Levels:
        traffic = self.traffic
        times, costs = traffic.clock_times[self.focused], traffic.costs[self.focused]
        if len(times) > MAX_REPEATED_REQUESTS:
            decisions = outcome.rows[self.focused]
            after, charged = decisions["remaining"], np.where(decisions["allowed"], costs, 0)
            return rebuild_levels(outcome.policy, times, after + charged, after)
        moments = traffic.origin + split_time(self.detail.end, 3 * CURVE_PARTS, self.detail.begin)
        return sample_levels(outcome.policy.algorithm, times, costs, moments)

    # --- curves

    def build_steps(self, curve: Curve) -> tuple[NDArray[np.float64], Integers]:
        """Return the points of a step function within the detail, counted from its beginning."""
        begin, end = self.detail.begin, self.detail.end
        first = int(np.searchsorted(curve.times, begin, side="right"))
        stop = int(np.searchsorted(curve.times, end, side="right"))
        base = int(curve.values[first - 1]) if first else 0
        last = int(curve.values[stop - 1]) if stop else 0
        times = np.concatenate([[begin], curve.times[first:stop], [end]])
        values = np.concatenate([[base], curve.values[first:stop], [last]]) - (base if self.is_detailed else 0)
        return self.build_points(times, values)

    def build_points(self, times: Integers, values: Values) -> tuple[NDArray[np.float64], Values]:
        """Return the points of a curve, without those that the picture does not show."""
        times, values = downsample(times, values, split_time(self.detail.end, CURVE_PARTS, self.detail.begin))
        return self.detail.scale(times), values

    def build_band(self, times: Integers, values: Values) -> tuple[NDArray[np.float64], Band] | None:
        """Return the edges and the values of a band that replaces a curve; None unless the curve turns too often."""
        last = min(self.detail.end, int(times.max(initial=0)))
        edges = split_time(last, CURVE_PARTS, self.detail.begin)
        if count_turns(downsample(times, values, edges)[1]) <= CURVE_PARTS or last - self.detail.begin < CURVE_PARTS:
            return None
        return self.detail.scale(edges), compute_band(times, values, edges)


STRIP_HEIGHT_IN, STRIP_GAP_IN = 0.68, 0.1
STRIP_NAME_IN = LABEL_PEN.line + 0.06
"""Height for the name above a strip."""
TIME_AXIS_IN, DATE_AXIS_IN = 0.3, 0.45


def compute_axis_height(time: TimeAxis) -> float:
    """Return the height of the labels below a time axis in inches."""
    return TIME_AXIS_IN if time.origin is None else DATE_AXIS_IN


def compute_strips_height(
    strips: int, time: TimeAxis, heading: str, width: float, strip_height: float = STRIP_HEIGHT_IN
) -> float:
    """Return the height of this many strips in inches, with their heading and time axis."""
    height = strips * (strip_height + STRIP_GAP_IN) - STRIP_GAP_IN
    return measure_heading(heading, width) + height + compute_axis_height(time)


class Strip(NamedTuple):
    """The part of a chart for one algorithm."""

    result: Result
    axes: Axes


def add_strips(
    sheet: Sheet, box: Box, view: ComparisonView, time: TimeAxis, heading: str, notes: Sequence[str],
    counts: Sequence[float], limits: tuple[float, float],
) -> Iterator[Strip]:  # fmt: skip
    """Write the heading, and yield a strip for each result, below the algorithm's name and note.

    The scale has ticks at `counts`.
    """
    names = [(result.algorithm, view.colors[result.algorithm]) for result in view.results]
    axes = add_named_strips(sheet, box, names, time, heading, notes, counts, limits)
    return map(Strip, view.results, axes)


def add_named_strips(
    sheet: Sheet, box: Box, names: Sequence[tuple[str, str]], time: TimeAxis, heading: str, notes: Sequence[str],
    counts: Sequence[float], limits: tuple[float, float],
) -> Iterator[Axes]:  # fmt: skip
    """Write the heading, and yield the axes of a strip for each name, given with its color, below it and its note.

    The scale has ticks at `counts`.
    """
    rest = sheet.write_heading(box, heading).inset(bottom=compute_axis_height(time))
    bottom, top = limits
    rows = rest.split_rows(len(names), STRIP_GAP_IN)
    for (name, color), row, note in zip(names, rows, notes, strict=True):
        middle = row.top + LABEL_PEN.line / 2
        sheet.write(row.right, middle, note, align="right", width=row.width)
        sheet.write(row.left, middle, name, LABEL_PEN, color, width=row.width - LABEL_PEN.measure(note) - 0.1)
        inner = row.inset(left=measure_scale(counts), top=STRIP_NAME_IN)
        axes = sheet.add_axes(inner, time.length, top, bottom)
        sheet.set_time_ticks(axes, time, labeled=row is rows[-1])
        sheet.set_count_ticks(axes, counts)
        yield axes
