"""Source code for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.syntax import Syntax
from rich.text import Text

HANGING = 8
"""Letters by which what is left of a line stands further in than its beginning."""


@dataclass(frozen=True)
class Code:
    """Lines of Python, of which those too long are broken between words and go on further in, as Python still."""

    source: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        coloured = Syntax("", "python", theme="ansi_dark").highlight(self.source)
        coloured.rstrip()
        quoted = False
        for line in coloured.split("\n", allow_blank=True):
            quoted ^= line.plain.count('"""') % 2 == 1
            yield from _broken(line, options.max_width, quoted or '"""' in line.plain)


def _broken(line: Text, width: int, quoted: bool) -> Iterator[Text]:
    """Break a line; where neither brackets nor quotes hold its parts together, a backslash does."""
    start, opened = _goes_on(line.plain), 0
    while len(line) > width:
        first = len(start) + 1
        head, rest = line.divide([_end(line.plain[: width + 1], first)])
        if not (quoted or _opened(head.plain) + opened > 0 or "# " in head.plain or rest.plain.lstrip()[:1] == "#"):
            head, rest = line.divide([_end(line.plain[: width - 1], first)])
            head = head[: len(head.plain.rstrip())] + Text(" \\", style="dim")
        yield head
        opened += _opened(head.plain)
        line = Text(start, style="dim") + rest[len(rest) - len(rest.plain.lstrip()) :]
    yield line


def _opened(code: str) -> int:
    """Return how many brackets are opened and not closed."""
    return sum(map(code.count, "([{")) - sum(map(code.count, ")]}"))


def _end(line: str, first: int) -> int:
    """Return where to break a line that is one letter too long: in its second half at a part's end, or at a blank."""
    parts = max(line.rfind(mark) + mark.index(" ") for mark in (", ", " if ", " else ", "  # "))
    return parts if parts > len(line) // 2 else max(line.rfind(" ", first), 0) or len(line) - 1


def _goes_on(line: str) -> str:
    """Return what comes before the rest of a line that is broken: blanks, and the sign of a comment."""
    code, sign, _ = line.partition("  # ")
    if sign and len(code) < HANGING * 5:
        return f"{' ' * len(code)}{sign}"
    return " " * (len(line) - len(line.lstrip()) + HANGING)
