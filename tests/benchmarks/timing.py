"""A figure of a benchmark: what was measured, beside what it cannot go below."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

ROUNDS = 7
"""Each figure is the median of so many rounds, its floor measured in turn with it."""


class Figure(NamedTuple):
    """One line of the table."""

    what: str
    measured: float
    unit: str
    floor: float | None
    """What the same work costs at least, in the same unit."""
    ratio: float | None
    """How many times its floor it costs; the median over the rounds."""
    bar: str
    """What it should reach."""


def in_turn(
    work: Callable[[], object],
    floor: Callable[[], object],
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[float], list[float]]:
    """Time both in turn, after a first round that is not counted, so that a slow moment hits them alike."""
    timed = [(_seconds(work, clock), _seconds(floor, clock)) for _ in range(rounds + 1)][1:]
    return [one for one, _ in timed], [other for _, other in timed]


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    begun = clock()
    work()
    return clock() - begun


def figure(what: str, seconds: list[float], floors: list[float], scale: float, unit: str, bar: str) -> Figure:
    """Sum up what `in_turn` timed; a figure's unit is `scale` seconds."""
    ratio = median(one / other for one, other in zip(seconds, floors, strict=True))
    return Figure(what, median(seconds) / scale, unit, median(floors) / scale, ratio, bar)
