"""Requests in the parts of a time axis, and their waits side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.decisions import Decisions
from ratelab.lab.traffic import Integers

FEW = 40
"""Waits that are drawn one by one."""


def fullest(times: Integers, end: int, count: int) -> int:
    """Return how many of `times` lie in the fullest of `count` parts of the time from 0 to `end`."""
    return int(_within(times, end, count).max())


@dataclass(frozen=True, eq=False)
class Cells:
    """How many requests came, and left, in each of `count` parts of the time from 0 to `end`."""

    times: Integers
    made: Decisions
    end: int
    count: int

    @cached_property
    def at_once(self) -> Integers:
        """Requests admitted without a wait."""
        return self._within(self.times[self.made["allowed"] & (self.made["delay_ns"] == 0)])

    @cached_property
    def admitted(self) -> Integers:
        """Requests admitted, at once or after a wait."""
        return self._within(self.times[self.made["allowed"]])

    @cached_property
    def denied(self) -> Integers:
        """Requests denied."""
        return self._within(self.times[~self.made["allowed"]])

    @cached_property
    def leaving(self) -> Integers:
        """Requests that went ahead."""
        return self._within((self.times + self.made["delay_ns"])[self.made["allowed"]])

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
        delays: Integers = self.made["delay_ns"]
        return (self.times + delays)[delays > 0]

    @property
    def singly(self) -> bool:
        """Whether they are few enough to be drawn one by one."""
        return len(self.begins) <= FEW

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
        return np.array(lanes, np.int64) + self.at_once[_cell(self.begins, self.end, self.count)]

    def _within(self, times: Integers) -> Integers:
        return _within(times, self.end, self.count)


def _cell(times: Integers, end: int, count: int) -> Integers:
    place: NDArray[np.float64] = times / end * count
    return np.minimum(place, count - 1).astype(np.int64)


def _within(times: Integers, end: int, count: int) -> Integers:
    return np.bincount(_cell(times, end, count), minlength=count)
