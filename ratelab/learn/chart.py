"""The requests on which a written step fails, and what it decides of each beside what is right."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from matplotlib.patches import Rectangle

from ratelab.learn.verdict import Row, Verdict, moment, telling
from ratelab.limiter import Decision
from ratelab.report.charts.lettering import Pen
from ratelab.report.charts.palette import colours
from ratelab.report.charts.sheet import LABEL, MARGIN, WIDTH, Sheet, styled
from ratelab.report.findings import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 6
"""Requests that are drawn: the last ones, on the last of which it fails."""

NAMES = 1.15
AXIS, HEAD, BLOCKS, FOOT = 0.7, 0.45, 0.7, 0.15
"""Inches for the axis of time and the requests below it; for a lane's blocks, and below the words on them."""
WORDS = Pen(8)
BLOCK, LIGHT = 0.4, 0.4


def draw_verdict(verdict: Verdict, theme: str = "light") -> Figure:
    """Draw the shortest timeline on which an answer fails; of a verdict without one, only its words."""
    rows, left_out = verdict.rows[-MOST:], len(verdict.rows) - MOST
    caption = f"the shortest timeline found on which it fails, at {verdict.quota}" if rows else ""
    caption += f", without its first {counted(left_out, 'request')}" if left_out > 0 else ""
    with styled():
        sheet = Sheet(finding(verdict), caption, height(rows), theme)
        if rows:
            paint(sheet, rows, verdict.algorithm, theme)
    return sheet.figure


def finding(verdict: Verdict) -> str:
    """Say in a sentence what is wrong: what is decided otherwise, or else what the verdict says."""
    last = verdict.rows[-1] if verdict.rows else None
    if last is None or last.yours is None or last.yours.allowed == last.exact.allowed:
        return f"{verdict.algorithm}, as written: {verdict.words}"
    yours, right = ("admits", "denies") if last.yours.allowed else ("denies", "admits")
    fell = "Once time has fallen, your" if any(one.at > other.at for one, other in pairwise(verdict.rows)) else "Your"
    return f"{fell} {verdict.algorithm} {yours} a request of cost {last.cost} that the exact one {right}"


def height(rows: Sequence[Row]) -> float:
    """Return the height of the picture in inches."""
    return AXIS + HEAD + 2 * _lane(rows) if rows else 0


def paint(sheet: Sheet, rows: Sequence[Row], algorithm: str, theme: str) -> None:
    """Draw when the requests came, and below that a lane of what is right and one of what the answer decides."""
    axes = sheet.axes(sheet.body, sheet.body.width, 0, sheet.body.height)  # in inches from the upper left corner
    axes.set_axis_off()
    picture = _Picture(sheet, axes, rows, colours([algorithm], theme)[algorithm])
    picture.requests()
    top = AXIS + HEAD
    picture.lane(top, algorithm, picture.colour, [(row.exact, row.yours) for row in rows])
    picture.lane(top + _lane(rows), "yours", sheet.theme.ink, [(row.yours, row.exact) for row in rows])


def _column(rows: Sequence[Row]) -> float:
    return (WIDTH - 2 * MARGIN - NAMES) / len(rows)


def _words(rows: Sequence[Row], made: Decision | None, other: Decision | None) -> list[str]:
    return [part for line in telling(made, other) for part in WORDS.broken(line, _column(rows) - 0.2, 2)]


def _lane(rows: Sequence[Row]) -> float:
    told = [_words(rows, *pair) for row in rows for pair in ((row.exact, row.yours), (row.yours, row.exact))]
    return BLOCKS + max(map(len, told)) * WORDS.line + FOOT


@dataclass(frozen=True)
class _Picture:
    """Axes in inches, with a column for each request, however close together they came."""

    sheet: Sheet
    axes: Axes
    rows: Sequence[Row]
    colour: str

    def columns(self) -> Iterable[tuple[Row, float]]:
        """Yield each request and the middle of its column."""
        width = _column(self.rows)
        return [(row, NAMES + width * (place + 0.5)) for place, row in enumerate(self.rows)]

    def requests(self) -> None:
        """Draw an axis of time, and lead from where each request stands on it to its column; frame the last."""
        theme, first, last = self.sheet.theme, min(row.at for row in self.rows), max(row.at for row in self.rows)
        right, line, width = self.sheet.body.width, 0.25, _column(self.rows)
        arrow = {"arrowstyle": "->", "color": theme.quiet}
        self.axes.annotate("", (right, line), (NAMES, line), arrowprops=arrow)
        self._text(0, line, "time", align="left")
        for row, x in self.columns():
            part = (row.at - first) / (last - first) if last > first else 0.5
            at = NAMES + width / 2 + (right - NAMES - width) * part
            self.axes.plot([at, x], [line, AXIS - 0.06], color=theme.quiet, linewidth=0.8)
            self.axes.plot(at, line, "o", color=theme.ink, markersize=4)
            self._text(x, AXIS + LABEL.line * 0.6, self._moment(row), theme.ink)
            self._text(x, AXIS + LABEL.line * 1.6, f"cost {row.cost}" if row.cost else "cost 0, a look")
        framed = min(width, 2) - 0.1
        corner, size = (x - framed / 2, AXIS - 0.03), self.sheet.body.height - AXIS
        self.axes.add_patch(Rectangle(corner, framed, size, fill=False, edgecolor=theme.quiet, label="fails"))

    def lane(
        self, top: float, name: str, colour: str, decisions: Sequence[tuple[Decision | None, Decision | None]]
    ) -> None:
        """Draw decisions as blocks as high as the cost: admitted upwards, lighter if later, denied downwards."""
        theme, zero, most = self.sheet.theme, top + BLOCKS / 2, max(row.cost for row in self.rows) or 1
        self._text(0, zero, name, colour, align="left")
        self.axes.plot([NAMES, self.sheet.body.width], [zero, zero], color=theme.quiet, linewidth=0.6)
        for (row, x), (made, other) in zip(self.columns(), decisions, strict=True):
            if made is not None:
                size, look = max(0.03, (BLOCKS / 2 - 0.05) * row.cost / most), LIGHT if made.delay_ns else 1
                corner = (x - BLOCK / 2, zero - size if made.allowed else zero)
                fill = self.colour if made.allowed else theme.denied
                self.axes.add_patch(Rectangle(corner, BLOCK, size, color=fill, alpha=look, linewidth=0, label=name))
            ink = theme.ink if made != other else theme.quiet
            for number, line in enumerate(_words(self.rows, made, other)):
                self._text(x, top + BLOCKS + (number + 0.5) * WORDS.line, line, ink, WORDS)

    def _moment(self, row: Row) -> str:
        """Say when a request came, or how long after the first where that is too long to say."""
        texts, first = [moment(row.at) for row in self.rows], self.rows[0].at
        fits = max(map(LABEL.width, texts)) <= _column(self.rows) - 0.1
        return moment(row.at) if fits else f"+{moment(row.at - first)}".replace("+-", "-")

    def _text(self, x: float, y: float, text: str, colour: str = "", pen: Pen = LABEL, align: str = "center") -> None:
        box, width = self.sheet.body, NAMES if align == "left" else _column(self.rows)
        self.sheet.text(box.left + x, box.top + y, text, pen, colour, align, width - 0.1)
