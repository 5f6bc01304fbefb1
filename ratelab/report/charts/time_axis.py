"""Time axis of charts: its span, and round times to label, as dates and times of day if the traffic has them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from ratelab.lab.spill import Integers
from ratelab.quota import UNITS, about
from ratelab.report.numbers import parse_clock

_DECIMAL_STEPS = tuple(digit * 10**power for power in range(9) for digit in (1, 2, 5))
_STEPS = {
    "ns": [(step, "ns") for step in _DECIMAL_STEPS if step < 1000],
    "us": [(step, "us") for step in _DECIMAL_STEPS if step < 1000],
    "ms": [(step, "ms") for step in _DECIMAL_STEPS if step < 1000],
    "s": [(step, "s") for step in (1, 2, 5, 10, 15, 30)],
    "min": [(step, "min") for step in (1, 2, 5, 10, 15, 30)],
    "h": [(step, "h") for step in (1, 2, 3, 6, 12)],
    "day": [(step, "day") for step in _DECIMAL_STEPS],
}
ROUND_STEPS: tuple[int, ...] = tuple(step * UNITS[unit] for steps in _STEPS.values() for step, unit in steps)
"""Nanoseconds between times that are round numbers of one unit, the shortest first."""

MONTH_STEPS = (1, 3, 6, 12, 24, 60, 120, 240, 600, 1200)
"""Months between dates, for steps that are longer than `MAX_DAYS`."""

MAX_DAYS = 14

TIME_PARTS = 110
"""Parts of a time axis in which requests are counted, at most."""

TICK_WIDTH_IN, DAY_WIDTH_IN, CLOCK_WIDTH_IN = 0.65, 0.6, 0.85
"""Least distances between labels: times without a date, days, and times of day with their date below."""


class Tick(NamedTuple):
    """A labeled time."""

    place: float
    """Its place on the axis, in the unit of the axis."""
    label: str


class TimeAxis(NamedTuple):
    """A span of the traffic's time, in nanoseconds since the traffic began."""

    begin: int
    end: int
    origin: int | None
    """Clock time at which the traffic begins; None if it is not a date."""

    @property
    def unit(self) -> str:
        """The unit of places on the axis: the largest that fits into it three times."""
        return choose_unit(self.end - self.begin)

    @property
    def length(self) -> float:
        """The length of the axis, in its unit."""
        return (self.end - self.begin) / UNITS[self.unit]

    def scale(self, times: Integers | int) -> Any:
        """Convert nanoseconds since the traffic began to places on the axis."""
        return (times - self.begin) / UNITS[self.unit]

    def split(self) -> Integers:
        """Return the edges of parts that begin at round times; the first and the last may be shorter."""
        length, origin = self.part_length, self.origin or 0
        first = -(origin + self.begin) % length + self.begin
        return np.unique(np.concatenate([[self.begin], np.arange(first, self.end, length), [self.end]]))

    @property
    def part_length(self) -> int:
        """The length of the parts in nanoseconds: a round time."""
        return choose_step(self.end - self.begin, TIME_PARTS)

    def choose_ticks(self, width: float) -> list[Tick]:
        """Return the times to label on an axis of `width` inches."""
        duration = self.end - self.begin
        if self.origin is not None:
            days = width / DAY_WIDTH_IN
            step = choose_step(duration, days)
            step = step if step >= UNITS["day"] else choose_step(duration, max(2, width / CLOCK_WIDTH_IN))
            return self._label_dates(step, days)
        step = choose_step(duration, max(2, int(width / TICK_WIDTH_IN)))
        first, last = -(-self.begin // step), self.end // step
        return [Tick(self.scale(step * n), _format_time(step * n, self.unit)) for n in range(first, last + 1)]

    def _label_dates(self, step: int, max_steps: float) -> list[Tick]:
        ticks: list[Tick] = []
        previous: datetime | None = None
        origin = self.origin or 0
        for time in _list_dates(origin + self.begin, origin + self.end, step, max_steps):
            date = parse_clock(time)
            ticks.append(Tick(self.scale(time - origin), _format_date(date, time, previous, step)))
            previous = date
        return ticks


def choose_unit(duration: int) -> str:
    """Return the unit for a time axis of `duration` nanoseconds: the largest that fits into it three times."""
    return next((unit for unit in reversed(UNITS) if duration >= 3 * UNITS[unit]), "ns")


def choose_step(duration: int, max_steps: float) -> int:
    """Return the shortest round time of which at most `max_steps` fit into `duration` nanoseconds."""
    return next((step for step in ROUND_STEPS if duration <= step * max_steps), ROUND_STEPS[-1])


def _format_time(time: int, unit: str) -> str:
    """Format a time without a date: `0`, `-2 s`, `2.5 s`, `1 s` on an axis in milliseconds, `1 day 12 h`."""
    if not time:
        return "0"
    value, sign = abs(time) / UNITS[unit], "\N{MINUS SIGN}" if time < 0 else ""
    return sign + (about(abs(time)) if unit == "day" or value >= 1000 else f"{value:g} {unit}")


def _list_dates(begin: int, end: int, step: int, max_steps: float) -> Iterator[int]:
    """Yield the clock times from `begin` to `end` to label, in nanoseconds since 1970: beyond two days, whole weeks."""
    if step <= MAX_DAYS * UNITS["day"]:
        if step > 2 * UNITS["day"]:
            step = (7 if step <= 7 * UNITS["day"] else 14) * UNITS["day"]
        monday = 4 * UNITS["day"] if step > 2 * UNITS["day"] else 0
        yield from range(begin + (monday - begin) % step, end + 1, step)
        return
    months = next(
        (count for count in MONTH_STEPS if end - begin <= count * 30 * UNITS["day"] * max_steps), MONTH_STEPS[-1]
    )
    number = parse_clock(begin).year * 12 // months * months
    while number < 12 * datetime.max.year:
        time = _count_nanoseconds(datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC))
        if time > end:
            return
        if time >= begin:
            yield time
        number += months


def _count_nanoseconds(date: datetime) -> int:
    microseconds: int = (date - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return microseconds * 1000


def _format_date(date: datetime, time: int, previous: datetime | None, step: int) -> str:
    """Format the parts of a date that change with `step`; below it, those that differ from the `previous` date."""
    year = f"\n{date.year}" if previous is None or previous.year != date.year else ""
    if step >= 300 * UNITS["day"]:
        return str(date.year)
    if step > MAX_DAYS * UNITS["day"]:
        return f"{date:%b}{year}"
    if step >= UNITS["day"]:
        return f"{date.day} {date:%b}{year}"
    day = f"\n{date.day} {date:%b}" if previous is None or previous.date() != date.date() else ""
    part = f".{time % UNITS['s']:09d}".rstrip("0").rstrip(".") if step < UNITS["s"] else ""
    seconds = f":{date:%S}{part}" if step < UNITS["min"] else ""
    return f"{date:%H:%M}{seconds}{day}{year.replace(chr(10), ' ') if previous is None else ''}"
