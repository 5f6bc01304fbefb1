"""Colours: one for each algorithm, whatever it is compared with, and those of the two themes.

The built-in ones keep apart under each kind of colour blindness and stand out on white and on black; the exact
reference has the colour of the text. Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of
color vision deficiency" (2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple
from zlib import crc32

from ratelab.quota import UNITS


class Theme(NamedTuple):
    """The colours that are not an algorithm's."""

    paper: str
    ink: str
    """Titles, and the exact reference."""
    quiet: str
    """Captions and axes."""
    grid: str
    denied: str


THEMES = {
    "light": Theme("#ffffff", "#2c3640", "#5c6670", "#e3e7ea", "#c3c9cf"),
    "dark": Theme("#14181d", "#dfe4e9", "#98a2ad", "#2b323a", "#5f6b78"),
}

_BUILT_IN = {
    "token-bucket": "#1b69e8",
    "leaky-bucket": "#12a268",
    "fixed-window": "#dd5f08",
    "sliding-counter": "#b04cb0",
    "gcra": "#3a9ad6",
}
_OTHERS = ("#b07d00", "#7b62d0", "#16879c", "#d0436f", "#9a6244", "#74860a")

CONTRAST = 4.5
"""Of small letters with the paper. W3C, "Web Content Accessibility Guidelines" 2.1 (2018), criterion 1.4.3."""


@cache
def lettered(colour: str, theme: Theme) -> str:
    """Return `colour` as letters have it: as much nearer to the ink as it takes to stand out from the paper."""
    shades = (_mixed(colour, theme.ink, share / 20) for share in range(21))
    return next(shade for shade in shades if contrast(shade, theme.paper) >= CONTRAST)


def contrast(one: str, other: str) -> float:
    """Return how much two colours stand out from each other, from 1 to 21, as the guidelines define it."""
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    shares = [part / 255 for part in bytes.fromhex(colour[1:])]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _mixed(colour: str, other: str, share: float) -> str:
    parts = zip(bytes.fromhex(colour[1:]), bytes.fromhex(other[1:]), strict=True)
    return f"#{bytes(round(one + share * (two - one)) for one, two in parts).hex()}"


def colours(algorithms: Sequence[str], theme: str) -> dict[str, str]:
    """Return each algorithm's colour; one that is not ours has the colour of its name, or the next if that is taken."""
    known = {**_BUILT_IN, "sliding-log": THEMES[theme].ink}
    found: dict[str, str] = {}
    for name in algorithms:
        place = crc32(name.encode("utf-8", "replace")) % len(_OTHERS)
        turn = (*_OTHERS[place:], *_OTHERS[:place])
        found[name] = known.get(name) or next((one for one in turn if one not in found.values()), turn[0])
    return found


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
