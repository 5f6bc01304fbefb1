"""What the charts of a comparison have in common: which key they look at, and in which colours and units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.comparison import Comparison
from ratelab.lab.curves import Curve, Values, thinned
from ratelab.lab.metrics import Result
from ratelab.lab.traffic import Integers
from ratelab.lab.windows import fullest_window
from ratelab.quota import UNITS
from ratelab.report.charts.palette import colours
from ratelab.report.charts.units import unit_of
from ratelab.report.findings import counted

COLUMNS = 300
"""Parts of the time axis in which a curve is drawn no finer."""


@dataclass(frozen=True)
class View:
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
        traffic = self.comparison.traffic
        last = [int((traffic.times + made["delay_ns"]).max(initial=0)) for made in self.comparison.decisions.values()]
        return max(1, traffic.duration, *last)

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
        traffic, window = self.comparison.traffic, self.comparison.quota.window
        worst = max(self.results, key=lambda result: result.peak_in_window)
        made = self.comparison.decisions[worst.algorithm]
        left = made["allowed"]
        departures = (traffic.times + made["delay_ns"])[left]
        fullest = fullest_window(departures, traffic.costs[left], traffic.request_keys[left], window)
        return fullest.key if fullest else 0

    @cached_property
    def focussed(self) -> NDArray[np.bool_]:
        """Which requests are of that key."""
        found: NDArray[np.bool_] = self.comparison.traffic.request_keys == self.focus
        return found

    @cached_property
    def focus_name(self) -> str:
        """Who that is, unless there is nobody else."""
        traffic = self.comparison.traffic
        keys = len(set(traffic.keys.tolist()))
        if keys < 2:
            return ""
        clients = np.flatnonzero(traffic.keys == self.focus).tolist()
        sharing = f" and {counted(len(clients) - 1, 'other')}" if len(clients) > 1 else ""
        return f"{traffic.names[clients[0]]}{sharing}"

    def departures(self, algorithm: str) -> tuple[Integers, Integers]:
        """Return when that key's requests leave, in order, and what each costs."""
        traffic, made = self.comparison.traffic, self.comparison.decisions[algorithm]
        chosen = self.focussed & made["allowed"]
        times = (traffic.times + made["delay_ns"])[chosen]
        order = np.argsort(times, kind="stable")
        return times[order], traffic.costs[chosen][order]

    def steps(self, curve: Curve) -> tuple[NDArray[np.float64], Integers]:
        """Return a step function as points to draw, up to the end of the time axis."""
        times, values = np.append(curve.times, self.end), np.append(curve.values, curve.values[-1])
        return self.points(times, values)

    def points(self, times: Integers, values: Values) -> tuple[NDArray[np.float64], Values]:
        """Return a curve as points to draw, none of them where it would make no difference to the picture."""
        times, values = thinned(times, values, self.end, COLUMNS)
        return self.x(times), values
