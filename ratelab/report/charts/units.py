"""Numbers as they stand along an axis."""

from __future__ import annotations

from ratelab.quota import UNITS

_DECIMAL = tuple(digit * 10.0**power for power in range(-1, 9) for digit in (1, 2, 5))
_STEPS = {
    "s": (0.5, 1, 2, 5, 10, 15, 30, 60),
    "min": (0.5, 1, 2, 5, 10, 15, 30, 60),
    "h": (0.5, 1, 2, 3, 6, 12, 24),
}
_LARGER = {"ns": "us", "us": "ms", "ms": "s"}


def unit_of(duration: int) -> str:
    """Return the unit in which so many nanoseconds are a handy number: the largest of which there are three."""
    return next((unit for unit in reversed(UNITS) if duration >= 3 * UNITS[unit]), "ns")


def marks(unit: str, end: float, most: int) -> list[float]:
    """Return round times from 0 to `end`, with at most so many steps: people count seconds by fives, hours by sixes."""
    steps = _STEPS.get(unit, _DECIMAL)
    step = next((step for step in steps if end / step <= most), steps[-1] * -(-end // (steps[-1] * most)))
    return [step * mark for mark in range(int(end / step * (1 + 1e-9)) + 1)]


def moment(time: float, unit: str) -> str:
    """Write a time along an axis: `0`, `2.5s`, `1s` for 1000 ms; of days, which may be many, only the first says so."""
    if unit == "day":
        return f"{time:,.10g}" if time else "day 0"
    if time >= 1000 and unit in _LARGER:
        return moment(time / 1000, _LARGER[unit])
    return f"{time:g}{unit}" if time else "0"


def count(number: float) -> str:
    """Write a count: `5`, `1,500`, `20k`, `1.5M`."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= max(size, 10**4):
            return f"{number / size:.3g}{letter}"
    return f"{number:,.4g}"
