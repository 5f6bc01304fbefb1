"""Text for charts: its font, its width, and how it is cut and broken to fit.

Charts are lettered in the font that comes with matplotlib, so that they look the same everywhere. Letters that it does
not have are taken from the first installed font, by name, that has them; where none has, their code points are written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

FONT = "DejaVu Sans"
LINE = 1.35 / 72
"""The height in inches of a line of text of size 1."""

_DPI = 200


class Pen(NamedTuple):
    """How text is written."""

    size: float
    bold: bool = False

    @property
    def line(self) -> float:
        """The height of a line, in inches."""
        return self.size * LINE

    def font(self, text: str) -> FontProperties:
        """Return the font in which `text` is written."""
        others = dict.fromkeys(filter(None, map(_font_with, _missing(text))))
        return FontProperties(family=[FONT, *others], size=self.size, weight="bold" if self.bold else "normal")

    def width(self, text: str) -> float:
        """Return the width of a line in inches."""
        width, _, _ = _renderer().get_text_width_height_descent(text, self.font(text), ismath=False)  # type: ignore[no-untyped-call]
        return float(width) / _DPI

    def cut(self, text: str, width: float) -> str:
        """Return a line, its end left out where it is wider than `width` inches."""
        if self.width(text) <= width:
            return text
        most = _largest(len(text), lambda count: self.width(f"{text[:count]}…") <= width)
        return f"{text[:most].rstrip()}…"

    def around(self, before: str, name: str, after: str, width: float) -> str:
        """Return the three as one line; where it is wider than `width` inches, the end of `name` is left out."""
        return f"{before}{self.cut(name, max(0, width - self.width(before + after)))}{after}"

    def broken(self, text: str, width: float, most: int) -> list[str]:
        """Break a text into at most so many lines of `width` inches, between words where that is possible.

        A number and its percent sign are one word.
        """
        lines: list[str] = []
        text = text.replace(" %", "\N{NO-BREAK SPACE}%")
        while text and len(lines) < most - 1 and self.width(text) > width:
            fits = _largest(len(text), lambda count, rest=text: self.width(rest[:count].rstrip()) <= width)  # type: ignore[misc]
            end = text.rfind(" ", 1, fits + 1)
            end = end if end > 0 else max(1, fits)
            lines.append(text[:end].rstrip())
            text = text[end:].lstrip()
        last = [self.cut(text, width)] if text else []
        return [line.replace("\N{NO-BREAK SPACE}%", " %") for line in [*lines, *last]]


def legible(text: str) -> str:
    """Return `text` on one line, the letters that no installed font has written as code points."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    lost = {letter for letter in _missing(text) if _font_with(letter) is None}
    return "".join(letter.encode("unicode_escape").decode() if letter in lost else letter for letter in text)


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `most` that fits, given that 0 does and that smaller ones do if it does."""
    low = 0
    while low < most:
        middle = (low + most + 1) // 2
        low, most = (middle, most) if fits(middle) else (low, middle - 1)
    return low


@cache
def _renderer() -> RendererAgg:
    return RendererAgg(1, 1, _DPI)  # type: ignore[no-untyped-call]


@cache
def _letters(path: str) -> frozenset[int]:
    return frozenset(get_font(path).get_charmap())


def _missing(text: str) -> list[str]:
    """Return the letters that the charts' own font does not have, in the order of the text."""
    if text.isascii():
        return []
    own = _letters(findfont(FontProperties(family=[FONT])))
    return [letter for letter in dict.fromkeys(text) if ord(letter) not in own]


@cache
def _font_with(letter: str) -> str | None:
    """Return the first installed font that has a letter; None if there is none."""
    return next((name for name, path in _installed() if ord(letter) in _letters(path)), None)


@cache
def _installed() -> list[tuple[str, str]]:
    """Return each font's name and file, but for the one that has a box for every letter there is."""
    fonts = sorted((font.name, font.fname) for font in fontManager.ttflist)
    return [(name, path) for name, path in fonts if not name.startswith("Last Resort")]
