"""What the charts of a comparison have in common: which key they look at, and in which colours and units."""

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
from ratelab.report.charts.canvas import LABEL, Box, Sheet
from ratelab.report.charts.series import Band, Curve, Values, compute_band, count_turns, downsample, split_time
from ratelab.report.charts.style import colours, unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVE_POINTS = 300
"""Parts of the time axis in which a curve is drawn no finer."""

MOST_REPEATED = 20_000
"""Requests that are decided again for their levels; of more, what was recorded with each is drawn."""


@dataclass(frozen=True, eq=False)
class ComparisonView:
    """A comparison as its charts look at it.

    Where there are several keys, each has a quota of its own, so what is held against the quota is shown for one key,
    `focus`.
    """

    comparison: Comparison
    theme: str

    @cached_property
    def colours(self) -> dict[str, str]:
        """Each algorithm's colour."""
        return colours([result.algorithm for result in self.results], self.theme)

    @property
    def results(self) -> tuple[Result, ...]:
        """Each algorithm's figures, in the order of drawing."""
        return self.comparison.results

    @cached_property
    def end(self) -> int:
        """The nanosecond at which the time axis ends: that of the traffic, or of the last departure."""
        traffic = self.traffic
        last = [int((traffic.times + outcome.rows["delay_ns"]).max(initial=0)) for outcome in self.comparison.outcomes]
        return max(1, traffic.duration, *last)

    @property
    def traffic(self) -> Traffic:
        """The requests, in memory."""
        return self.comparison.traffic

    @cached_property
    def unit(self) -> str:
        """The unit of the time axis."""
        return unit_of(self.end)

    def x(self, times: Integers | int) -> Any:
        """Return nanoseconds in the unit of the time axis."""
        return times / UNITS[self.unit]

    @cached_property
    def focus(self) -> int:
        """The key of which the most left within a window: the one of whose overshoot the figures tell."""
        if not self.traffic.keys.any():
            return 0
        window = self.comparison.quota.window
        worst = max(self.results, key=lambda result: result.peak_in_window)
        made = self.comparison.outcome(worst.algorithm).decisions
        fullest = fullest_window(departures(self.traffic, made), self.traffic.key_count, window)
        return fullest.key if fullest else 0

    @cached_property
    def focussed(self) -> NDArray[np.bool_] | slice:
        """Which requests are of that key, as an index."""
        traffic = self.traffic
        return traffic.request_keys == self.focus if traffic.keys.any() else slice(None)

    @cached_property
    def focus_name(self) -> str:
        """The name of that key; empty if there is no other."""
        return self.traffic.name_key(self.focus) if self.traffic.key_count > 1 else ""

    def heading(self, before: str, after: str, width: float) -> str:
        """Return what is shown as a line, with whose it is; a long name gives way to what stands behind it."""
        return LABEL.around(f"{before} of ", self.focus_name, after, width) if self.focus_name else before + after

    @cached_property
    def _departures(self) -> dict[str, tuple[Integers, Integers]]:
        return {}

    def departures(self, algorithm: str) -> tuple[Integers, Integers]:
        """Return when that key's requests leave, in order, and what each costs."""
        if algorithm not in self._departures:
            traffic, made = self.traffic, self.comparison.outcome(algorithm).rows
            allowed = made["allowed"][self.focussed]
            delays = made["delay_ns"][self.focussed][allowed]
            times, costs = traffic.times[self.focussed][allowed] + delays, traffic.costs[self.focussed][allowed]
            if delays.any():
                order = np.argsort(times, kind="stable")
                times, costs = times[order], costs[order]
            self._departures[algorithm] = times, costs
        return self._departures[algorithm]

    @cached_property
    def levels(self) -> dict[str, Levels]:
        """What each algorithm remembers of that key."""
        return {outcome.policy.name: self._level(outcome) for outcome in self.comparison.outcomes}

    def _level(self, outcome: Outcome) -> Levels:
        traffic, algorithm = self.traffic, outcome.policy.algorithm
        times, costs = traffic.clock_times[self.focussed], traffic.costs[self.focussed]
        if len(times) > MOST_REPEATED:
            made = outcome.rows
            after, charged = made["remaining"][self.focussed], np.where(made["allowed"][self.focussed], costs, 0)
            return rebuild_levels(outcome.policy, times, after + charged, after)
        return sample_levels(algorithm, times, costs, traffic.origin + split_time(self.end, 3 * CURVE_POINTS))

    def steps(self, curve: Curve) -> tuple[NDArray[np.float64], Integers]:
        """Return a step function as points to draw, up to the end of the time axis."""
        times, values = np.append(curve.times, self.end), np.append(curve.values, curve.values[-1])
        return self.points(times, values)

    def band(self, times: Integers, values: Values) -> tuple[NDArray[np.float64], Band] | None:
        """Return where the parts of a curve begin and its band in them, if its turns lie too close to be told apart."""
        cuts = split_time(min(self.end, int(times.max(initial=0))), CURVE_POINTS)
        if count_turns(downsample(times, values, cuts)[1]) <= CURVE_POINTS or cuts[-1] < CURVE_POINTS:
            return None
        return self.x(cuts), compute_band(times, values, cuts)

    def points(self, times: Integers, values: Values) -> tuple[NDArray[np.float64], Values]:
        """Return a curve as points to draw, none of them where it would make no difference to the picture."""
        times, values = downsample(times, values, split_time(self.end, CURVE_POINTS))
        return self.x(times), values


HEADING, FOOT, EACH, GAP = 0.3, 0.3, 0.68, 0.1
LEFT, NAME = 0.4, LABEL.line + 0.06
"""Inches of a strip for its scale, and for its name."""


def strips_height(view: ComparisonView, each: float = EACH) -> float:
    """Return the height of all strips in inches, of which one takes `each`."""
    return HEADING + len(view.results) * each + (len(view.results) - 1) * GAP + FOOT


def strips(
    sheet: Sheet, box: Box, view: ComparisonView, heading: str, notes: Sequence[str], limits: tuple[float, float]
) -> Iterator[tuple[Result, Axes]]:
    """Write the heading and each algorithm's name and note, and yield the axes of its strip."""
    sheet.text(box.left, box.top + 0.08, heading, width=box.width)
    rows = box.inset(top=HEADING, bottom=FOOT).rows(len(view.results), GAP)
    for result, row, note in zip(view.results, rows, notes, strict=True):
        width = LABEL.width(note)
        middle = row.top + LABEL.line / 2
        sheet.text(row.right, middle, note, align="right", width=row.width)
        name = row.width - width - 0.15
        sheet.text(row.left, middle, result.algorithm, LABEL, view.colours[result.algorithm], width=name)
        axes = sheet.axes(row.inset(left=LEFT, top=NAME), view.x(view.end), limits[1], limits[0])
        sheet.time_ticks(axes, view.unit, labelled=row is rows[-1])
        yield result, axes
