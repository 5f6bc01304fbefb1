"""Quotas in rows, and the axis along which those of a row stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from math import log
from typing import NamedTuple

from ratelab.quota import UNITS, Quota
from ratelab.report.charts.units import count

MOST_ROWS = 6
"""Bursts that have a row; of more, as many from the least to the largest, the one that matters among them."""
SPAN = 8
"""How many times the least the largest value is from which on the axis is logarithmic."""


class Row(NamedTuple):
    """Some quotas in their order along the axis."""

    name: str
    quotas: tuple[Quota, ...]


class Along(NamedTuple):
    """The axis, from 0 to 1; logarithmic where the values go far."""

    value: Callable[[Quota], float]
    text: Callable[[float], str]
    values: Sequence[float]
    """Those that were tried, the least first."""

    def place(self, value: float) -> float:
        """Return where on the axis a value stands: in its middle, if there is no other."""
        low, high = self.values[0], self.values[-1]
        if high == low:
            return 0.5
        return log(value / low) / log(high / low) if high >= SPAN * low else (value - low) / (high - low)

    def named(self, gap: float) -> list[float]:
        """Return values to name, no two nearer to each other than `gap` of the axis: both ends, and others between."""
        *others, last = self.values
        found: list[float] = []
        for value in others:
            apart = not found or self.place(value) - self.place(found[-1]) >= gap
            if apart and self.place(last) - self.place(value) >= gap:
                found.append(value)
        return [*found, last]


def rows_of(quotas: Iterable[Quota], matters: Quota | None) -> list[Row]:
    """Return a row for each burst, or a single one where there is one rate alone or each has a burst of its own."""
    ordered = sorted(set(quotas), key=lambda quota: (rate(quota), quota.burst))
    rates, bursts = {rate(quota) for quota in ordered}, sorted({quota.burst for quota in ordered})
    if len(bursts) > 1 and len(rates) == 1:
        return [Row(f"rate {ordered[0].rate}, against the burst", tuple(ordered))]
    if len(bursts) > 1 and len(rates) == len(ordered):
        return [Row(f"bursts of {bursts[0]:,} to {bursts[-1]:,}, one for each rate", tuple(ordered))]
    shown = _some(bursts, matters.burst if matters else bursts[0])
    return [Row(f"burst {burst:,}", tuple(quota for quota in ordered if quota.burst == burst)) for burst in shown]


def _some(bursts: Sequence[int], matters: int) -> list[int]:
    """Return as many bursts as have a row, `matters` in the place of the nearest of those between the ends."""
    steps = min(len(bursts), MOST_ROWS)
    places = [step * (len(bursts) - 1) // max(1, steps - 1) for step in range(steps)]
    wanted = bursts.index(matters)
    if wanted not in places:
        nearest = min(range(1, steps - 1), key=lambda step: abs(places[step] - wanted))
        places[nearest] = wanted
    return [bursts[place] for place in places]


def rate(quota: Quota) -> Fraction:
    """Return a rate that can be compared, in units of cost for each nanosecond."""
    return Fraction(quota.limit, quota.period)


def along(quotas: Iterable[Quota]) -> Along:
    """Return the rate as the axis, in whole numbers if a unit has them; the burst, where there is one rate alone."""
    rates, bursts = ({of(quota) for quota in quotas} for of in (rate, lambda quota: quota.burst))
    if len(rates) == 1 and len(bursts) > 1:
        return Along(lambda quota: float(quota.burst), count, [*map(float, sorted(bursts))])
    unit = _unit(rates)
    return Along(
        lambda quota: float(rate(quota) * UNITS[unit]),
        lambda value: f"{count(value)}/{unit}",
        [float(one * UNITS[unit]) for one in sorted(rates)],
    )


def _unit(rates: set[Fraction]) -> str:
    """Return the least unit in which all rates are whole numbers, else the least in which none is below 1."""
    units = ("s", "min", "h", "day")
    whole = (unit for unit in units if all((one * UNITS[unit]).denominator == 1 for one in rates))
    return next(whole, next((unit for unit in units if min(rates) * UNITS[unit] >= 1), units[-1]))
