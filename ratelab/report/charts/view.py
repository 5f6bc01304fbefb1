"""View of a comparison for its charts: one key, its departures and levels, and strips on a common time axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.comparison import Comparison
from ratelab.lab.decisions import Outcome
from ratelab.lab.levels import Levels, rebuild_levels, sample_levels
from ratelab.lab.metrics import Result
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic
from ratelab.lab.windows import departures, fullest_window
from ratelab.quota import UNITS
from ratelab.report.charts.canvas import LABEL_PEN, Box, Sheet
from ratelab.report.charts.series import Band, Curve, Values, compute_band, count_turns, downsample, split_time
from ratelab.report.charts.style import assign_colors, choose_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVE_PARTS = 300
"""Parts of the time axis; a curve is drawn no finer."""

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
        """The end of the time axis in nanoseconds: that of the traffic, or the last departure."""
        traffic = self.traffic
        last = [int((traffic.times + outcome.rows["delay_ns"]).max(initial=0)) for outcome in self.comparison.outcomes]
        return max(1, traffic.duration, *last)

    @cached_property
    def unit(self) -> str:
        """The unit of the time axis."""
        return choose_unit(self.end)

    def scale(self, times: Integers | int) -> Any:
        """Convert nanoseconds to the unit of the time axis."""
        return times / UNITS[self.unit]

    # --- one key

    @cached_property
    def focus(self) -> int:
        """The key with the fullest window, which gives the largest `peak_in_window`."""
        if not self.traffic.keys.any():
            return 0
        window = self.comparison.quota.window
        worst = max(self.results, key=lambda result: result.peak_in_window)
        decisions = self.comparison.outcome(worst.algorithm).decisions
        fullest = fullest_window(departures(self.traffic, decisions), self.traffic.key_count, window)
        return fullest.key if fullest else 0

    @cached_property
    def focused(self) -> NDArray[np.bool_] | slice:
        """The requests of that key, as an index."""
        traffic = self.traffic
        return traffic.request_keys == self.focus if traffic.keys.any() else slice(None)

    @cached_property
    def focus_name(self) -> str:
        """The name of that key; empty if there is no other key."""
        return self.traffic.name_key(self.focus) if self.traffic.key_count > 1 else ""

    def format_heading(self, subject: str, rest: str, width: float) -> str:
        """Return a line of at most `width` inches that names the key, if there are several: `departures of alice`."""
        return LABEL_PEN.join(f"{subject} of ", self.focus_name, rest, width) if self.focus_name else subject + rest

    @cached_property
    def departures(self) -> dict[str, tuple[Integers, Integers]]:
        """The times at which requests of that key depart from each algorithm, in order, and their costs."""
        return {outcome.policy.name: self._list_departures(outcome) for outcome in self.comparison.outcomes}

    def _list_departures(self, outcome: Outcome) -> tuple[Integers, Integers]:
        traffic, decisions = self.traffic, outcome.rows[self.focused]
        allowed = decisions["allowed"]
        delays = decisions["delay_ns"][allowed]
        times, costs = traffic.times[self.focused][allowed] + delays, traffic.costs[self.focused][allowed]
        if delays.any():
            order = np.argsort(times, kind="stable")
            times, costs = times[order], costs[order]
        return times, costs

    @cached_property
    def levels(self) -> dict[str, Levels]:
        """The level that each algorithm keeps for that key."""
        return {outcome.policy.name: self._compute_levels(outcome) for outcome in self.comparison.outcomes}

    def _compute_levels(self, outcome: Outcome) -> Levels:
        traffic = self.traffic
        times, costs = traffic.clock_times[self.focused], traffic.costs[self.focused]
        if len(times) > MAX_REPEATED_REQUESTS:
            decisions = outcome.rows[self.focused]
            after, charged = decisions["remaining"], np.where(decisions["allowed"], costs, 0)
            return rebuild_levels(outcome.policy, times, after + charged, after)
        moments = traffic.origin + split_time(self.end, 3 * CURVE_PARTS)
        return sample_levels(outcome.policy.algorithm, times, costs, moments)

    # --- curves

    def build_steps(self, curve: Curve) -> tuple[NDArray[np.float64], Integers]:
        """Return the points of a step function, up to the end of the time axis."""
        return self.build_points(np.append(curve.times, self.end), np.append(curve.values, curve.values[-1]))

    def build_points(self, times: Integers, values: Values) -> tuple[NDArray[np.float64], Values]:
        """Return the points of a curve, without those that the picture does not show."""
        times, values = downsample(times, values, split_time(self.end, CURVE_PARTS))
        return self.scale(times), values

    def build_band(self, times: Integers, values: Values) -> tuple[NDArray[np.float64], Band] | None:
        """Return the edges and the values of a band that replaces a curve; None unless the curve turns too often."""
        edges = split_time(min(self.end, int(times.max(initial=0))), CURVE_PARTS)
        if count_turns(downsample(times, values, edges)[1]) <= CURVE_PARTS or edges[-1] < CURVE_PARTS:
            return None
        return self.scale(edges), compute_band(times, values, edges)


STRIP_HEIGHT_IN, STRIP_GAP_IN = 0.68, 0.1
STRIP_SCALE_IN = 0.4
"""Width for the scale to the left of a strip."""
STRIP_NAME_IN = LABEL_PEN.line + 0.06
"""Height for the name above a strip."""
HEADING_IN, TIME_AXIS_IN = 0.3, 0.3


def compute_strips_height(view: ComparisonView, strip_height: float = STRIP_HEIGHT_IN) -> float:
    """Return the height of all strips in inches, with their heading and time axis."""
    return HEADING_IN + len(view.results) * (strip_height + STRIP_GAP_IN) - STRIP_GAP_IN + TIME_AXIS_IN


def add_strips(
    sheet: Sheet, box: Box, view: ComparisonView, heading: str, notes: Sequence[str], limits: tuple[float, float]
) -> Iterator[tuple[Result, Axes]]:
    """Write the heading, and yield each result with the axes of its strip, below the algorithm's name and note."""
    sheet.write(box.left, box.top + 0.08, heading, width=box.width)
    bottom, top = limits
    rows = box.inset(top=HEADING_IN, bottom=TIME_AXIS_IN).split_rows(len(view.results), STRIP_GAP_IN)
    for result, row, note in zip(view.results, rows, notes, strict=True):
        middle = row.top + LABEL_PEN.line / 2
        sheet.write(row.right, middle, note, align="right", width=row.width)
        name_width = row.width - LABEL_PEN.measure(note) - 0.1
        sheet.write(row.left, middle, result.algorithm, LABEL_PEN, view.colors[result.algorithm], width=name_width)
        axes = sheet.add_axes(row.inset(left=STRIP_SCALE_IN, top=STRIP_NAME_IN), view.scale(view.end), top, bottom)
        sheet.set_time_ticks(axes, view.unit, labeled=row is rows[-1])
        yield result, axes
