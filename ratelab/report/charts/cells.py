"""Requests in the parts of a time axis, and their waits side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush

import numpy as np

from ratelab.lab.decisions import Decisions
from ratelab.lab.spill import Integers
from ratelab.report.charts.series import within

FEW = 200
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
        return within(self.made["allowed"] & (self.made["delay_ns"] == 0), self.times, self.cuts)

    @cached_property
    def admitted(self) -> Integers:
        """Requests admitted, at once or after a wait."""
        return within(self.made["allowed"], self.times, self.cuts)

    @cached_property
    def denied(self) -> Integers:
        """Requests denied."""
        return within(~self.made["allowed"], self.times, self.cuts)

    @cached_property
    def leaving(self) -> Integers:
        """Requests that went ahead, at once or after a wait."""
        return self.at_once + within(np.ones(len(self.ends), np.bool_), np.sort(self.ends), self.cuts)

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
        if len(self.begins) > FEW:
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
