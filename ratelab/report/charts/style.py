"""Style of charts: colors of themes and algorithms.

The colors of the built-in algorithms remain distinct under each kind of color blindness, and stand out on white and on
black. The exact sliding log has the color of the text. Machado, Oliveira and Fernandes, "A physiologically-based model
for simulation of color vision deficiency" (2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple
from zlib import crc32


class Theme(NamedTuple):
    """The colors that do not belong to an algorithm."""

    paper: str
    ink: str
    """Titles, and the exact sliding log."""
    quiet: str
    """Captions and axes."""
    grid: str
    denied: str


THEMES = {
    "light": Theme("#ffffff", "#2c3640", "#5c6670", "#e3e7ea", "#c3c9cf"),
    "dark": Theme("#14181d", "#dfe4e9", "#98a2ad", "#2b323a", "#5f6b78"),
}

DELAYED_OPACITY = 0.4
"""Opacity of the color for delayed requests."""

DASHED = (0, (4, 3))
"""Style of the line of a quota: dashes of 4 points, 3 points apart."""

_BUILT_IN_COLORS = {
    "token-bucket": "#1b69e8",
    "leaky-bucket": "#12a268",
    "fixed-window": "#dd5f08",
    "sliding-counter": "#b04cb0",
    "gcra": "#3a9ad6",
}
_OTHER_COLORS = ("#b07d00", "#7b62d0", "#16879c", "#d0436f", "#9a6244", "#74860a")

MIN_CONTRAST = 4.5
"""Contrast of small text with the paper. W3C, "Web Content Accessibility Guidelines" 2.1 (2018), criterion 1.4.3."""


def assign_colors(algorithms: Sequence[str], theme: str) -> dict[str, str]:
    """Return the color of each algorithm.

    The name of an algorithm that is not built in selects its color; if that color is taken, the next free one.
    """
    known = {**_BUILT_IN_COLORS, "sliding-log": THEMES[theme].ink}
    assigned: dict[str, str] = {}
    for name in algorithms:
        place = crc32(name.encode("utf-8", "replace")) % len(_OTHER_COLORS)
        candidates = (*_OTHER_COLORS[place:], *_OTHER_COLORS[:place])
        free = (color for color in candidates if color not in assigned.values())
        assigned[name] = known.get(name) or next(free, candidates[0])
    return assigned


def assign_variant_colors(variants: Sequence[str]) -> dict[str, str]:
    """Return the color of each variant, in their order; beyond eleven, colors are repeated."""
    colors = (*_BUILT_IN_COLORS.values(), *_OTHER_COLORS)
    return {name: colors[place % len(colors)] for place, name in enumerate(variants)}


@cache
def make_readable(color: str, theme: Theme) -> str:
    """Return the color of text: `color`, mixed with as much ink as the contrast with the paper requires."""
    mixtures = (_mix(color, theme.ink, share / 20) for share in range(21))
    return next(mixture for mixture in mixtures if compute_contrast(mixture, theme.paper) >= MIN_CONTRAST)


def compute_contrast(color: str, other: str) -> float:
    """Return the contrast of two colors, from 1 to 21, as the guidelines define it."""
    dark, light = sorted(map(_compute_luminance, (color, other)))
    return (light + 0.05) / (dark + 0.05)


def _compute_luminance(color: str) -> float:
    shares = [part / 255 for part in bytes.fromhex(color[1:])]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _mix(color: str, other: str, share: float) -> str:
    pairs = zip(bytes.fromhex(color[1:]), bytes.fromhex(other[1:]), strict=True)
    return f"#{bytes(round(first + share * (second - first)) for first, second in pairs).hex()}"
