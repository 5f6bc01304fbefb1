"""Timing of a benchmark next to its floor, and the figures that come of it."""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Literal, NamedTuple

ROUNDS = 7
"""Default number of rounds that a figure is the median of."""

COMPARISONS = {"<=": operator.le, ">=": operator.ge, ">": operator.gt}


class Bar(NamedTuple):
    """A limit that a figure should keep."""

    comparison: Literal["<=", ">=", ">"]
    limit: float
    unit: str = "x"
    """The unit of the ratio, `x` or `%`, if the ratio is limited; else the unit of the measured value."""
    baseline: str = ""
    """The owner of the floor, if it is not clear from the benchmark."""

    def __str__(self) -> str:
        unit = self.unit if self.unit in ("x", "%") else f" {self.unit}"
        return " ".join(filter(None, (self.comparison, f"{self.limit:g}{unit}", self.baseline)))


class Figure(NamedTuple):
    """One row of the table; all values are medians."""

    label: str
    measured: float | None
    """None if noise hides it: a difference that comes out at zero or below."""
    unit: str
    floor: float | None = None
    """The least that the same work can cost, in the same unit."""
    ratio: float | None = None
    """The measured value in `ratio_unit` of the floor."""
    bar: Bar | None = None
    ratio_unit: Literal["x", "%"] = "x"

    @property
    def is_missed(self) -> bool:
        """Whether the figure misses its bar."""
        if self.bar is None:
            return False
        value = self.ratio if self.bar.unit == self.ratio_unit else self.measured
        return value is not None and not COMPARISONS[self.bar.comparison](value, self.bar.limit)


def time_in_turn(
    work: Callable[[], object],
    floor: Callable[[], object],
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[float], list[float]]:
    """Time `work` and `floor` alternately, so that a slow moment hits both; return the seconds of each.

    A first round warms up and is not counted.
    """
    pairs = [(_time(work, clock), _time(floor, clock)) for _ in range(rounds + 1)][1:]
    return [seconds for seconds, _ in pairs], [seconds for _, seconds in pairs]


def _time(function: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    function()
    return clock() - start


def median_ratio(values: Sequence[float], floors: Sequence[float]) -> float:
    """Return the median over the rounds of how many times its floor each value is."""
    return median(value / floor for value, floor in zip(values, floors, strict=True))


def median_difference(values: Sequence[float], floors: Sequence[float]) -> float | None:
    """Return the median over the rounds of how far each value exceeds its floor; None if that is not above zero."""
    difference = median(value - floor for value, floor in zip(values, floors, strict=True))
    return difference if difference > 0 else None


def duration_figure(
    label: str, seconds: Sequence[float], floors: Sequence[float], scale: float, unit: str, bar: Bar | None
) -> Figure:
    """Summarize times in a unit of `scale` seconds."""
    ratio = median_ratio(seconds, floors)
    return Figure(label, median(seconds) / scale, unit, median(floors) / scale, ratio, bar)


def rate_figure(
    label: str, seconds: Sequence[float], floors: Sequence[float], count: float, unit: str, bar: Bar | None
) -> Figure:
    """Summarize times of `count` pieces of work as pieces per second; the floor is a rate, too."""
    ratio = median_ratio(floors, seconds)
    return Figure(label, count / median(seconds), unit, count / median(floors), ratio, bar)


def processor_pin(number: int) -> Callable[[], None] | None:
    """Return a function that pins the calling process to one processor; None if the system cannot pin."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    processors = sorted(os.sched_getaffinity(0))
    return partial(os.sched_setaffinity, 0, {processors[number % len(processors)]})
