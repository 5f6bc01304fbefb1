"""Text of charts: fonts, widths, truncation and line breaks.

Charts use the font that comes with matplotlib, so that they look the same on every machine. A character that it lacks
is drawn in the first installed font, by name, that has it. If there is none, its code point is written instead.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

from ratelab.report.numbers import bind_units

FONT = "DejaVu Sans"

DPI = 200
"""Resolution of figures, at which text is also measured."""

LINE_HEIGHT_IN = 1.35 / 72
"""Height of a line of text of size 1."""


class Pen(NamedTuple):
    """Size and weight of text."""

    size: float
    bold: bool = False

    @property
    def line(self) -> float:
        """The height of a line in inches."""
        return self.size * LINE_HEIGHT_IN

    def select_font(self, text: str) -> FontProperties:
        """Return the font for `text`, with the fonts of the characters that it lacks."""
        fallbacks = dict.fromkeys(filter(None, map(_find_font, _list_missing(text))))
        return FontProperties(family=[FONT, *fallbacks], size=self.size, weight="bold" if self.bold else "normal")

    def measure(self, text: str) -> float:
        """Return the width of a line in inches."""
        font = self.select_font(text)
        width, _, _ = _load_renderer().get_text_width_height_descent(text, font, ismath=False)  # type: ignore[no-untyped-call]  # untyped in matplotlib
        return float(width) / DPI

    def truncate(self, text: str, width: float) -> str:
        """Return a line of at most `width` inches: the text, or its beginning and an ellipsis."""
        if self.measure(text) <= width:
            return text
        length = _find_largest(len(text), lambda length: self.measure(f"{text[:length]}…") <= width)
        return f"{text[:length].rstrip()}…"

    def join(self, before: str, name: str, after: str, width: float) -> str:
        """Return the three parts as one line, with `name` truncated so that the line is at most `width` inches wide."""
        return f"{before}{self.truncate(name, max(0, width - self.measure(before + after)))}{after}"

    def wrap(self, text: str, width: float, max_lines: int) -> list[str]:
        """Break a text into lines of at most `width` inches, between words if possible; truncate the last one.

        A number and its unit count as one word.
        """
        lines: list[str] = []
        text = bind_units(text)
        while text and len(lines) < max_lines - 1 and self.measure(text) > width:
            length = _find_largest(len(text), lambda length, rest=text: self.measure(rest[:length].rstrip()) <= width)  # type: ignore[misc]  # `rest` binds early
            end = text.rfind(" ", 1, length + 1)
            end = end if end > 0 else max(1, length)
            lines.append(text[:end].rstrip())
            text = text[end:].lstrip()
        if text:
            lines.append(self.truncate(text, width))
        return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def make_legible(text: str) -> str:
    """Return `text` on one line, with code points for the characters that no installed font has."""
    text = "".join(character if character.isprintable() else " " for character in text)
    lost = {character for character in _list_missing(text) if _find_font(character) is None}
    return "".join(
        character.encode("unicode_escape").decode() if character in lost else character for character in text
    )


def _find_largest(limit: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `limit` that fits; 0 does, and so does every number below one that does."""
    low = 0
    while low < limit:
        middle = (low + limit + 1) // 2
        low, limit = (middle, limit) if fits(middle) else (low, middle - 1)
    return low


@cache
def _load_renderer() -> RendererAgg:
    return RendererAgg(1, 1, DPI)  # type: ignore[no-untyped-call]  # untyped in matplotlib


def _list_missing(text: str) -> list[str]:
    """Return the characters that `FONT` lacks, in the order of the text."""
    if text.isascii():
        return []
    known = _load_characters(findfont(FontProperties(family=[FONT])))
    return [character for character in dict.fromkeys(text) if ord(character) not in known]


@cache
def _find_font(character: str) -> str | None:
    """Return the name of the first installed font that has a character; None if there is none."""
    return next((name for name, path in _list_fonts() if ord(character) in _load_characters(path)), None)


@cache
def _list_fonts() -> list[tuple[str, str]]:
    """Return the name and the file of each installed font, without the one that has a box for every character."""
    fonts = sorted((font.name, font.fname) for font in fontManager.ttflist)
    return [(name, path) for name, path in fonts if not name.startswith("Last Resort")]


@cache
def _load_characters(path: str) -> frozenset[int]:
    return frozenset(get_font(path).get_charmap())
