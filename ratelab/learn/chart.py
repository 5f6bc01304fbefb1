"""Chart of a verdict: the requests on which a submission fails, with its decisions and the exact ones."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from matplotlib.patches import Rectangle

from ratelab.learn.verdict import GradedRequest, Verdict, decision_lines, format_signed_time
from ratelab.limiter import Decision
from ratelab.report.charts.canvas import FIGURE_WIDTH_IN, LABEL_PEN, MARGIN_IN, Sheet, use_chart_style
from ratelab.report.charts.style import DELAYED_OPACITY, assign_colors
from ratelab.report.charts.text import Pen
from ratelab.report.numbers import pluralize

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_DRAWN_REQUESTS = 6
"""Only the last requests of a timeline are drawn; the very last one fails."""

# inches
LANE_NAME_WIDTH_IN = 1.15
TIME_AXIS_HEIGHT_IN = 0.7
REQUEST_HEIGHT_IN = 0.45
BLOCKS_HEIGHT_IN = 0.7
LANE_PADDING_IN = 0.15
BLOCK_WIDTH_IN = 0.4

DECISION_PEN = Pen(8)


def draw_verdict(verdict: Verdict, theme: str = "light") -> Figure:
    """Draw the shortest failing timeline of a verdict; without one, only its message."""
    requests, left_out = verdict.requests[-MAX_DRAWN_REQUESTS:], len(verdict.requests) - MAX_DRAWN_REQUESTS
    caption = f"the shortest failing timeline found, at {verdict.quota}" if requests else ""
    caption += f", without its first {pluralize(left_out, 'request')}" if left_out > 0 else ""
    height = TIME_AXIS_HEIGHT_IN + REQUEST_HEIGHT_IN + 2 * _lane_height(requests) if requests else 0
    with use_chart_style():
        sheet = Sheet(_title(verdict), caption, height, theme)
        if requests:
            _draw_requests(sheet, requests, verdict.algorithm, theme)
    return sheet.figure


def _title(verdict: Verdict) -> str:
    """Return the finding as a sentence: the wrong admission or denial, or else the verdict's message."""
    last = verdict.requests[-1] if verdict.requests else None
    if last is None or last.yours is None or last.yours.allowed == last.exact.allowed:
        return f"Your {verdict.algorithm}: {verdict.message}"
    yours, exact = ("admits", "denies") if last.yours.allowed else ("denies", "admits")
    stepped_back = any(one.at > other.at for one, other in pairwise(verdict.requests))
    your = "After the clock steps back, your" if stepped_back else "Your"
    return f"{your} {verdict.algorithm} {yours} a request of cost {last.cost} that the exact one {exact}"


def _draw_requests(sheet: Sheet, requests: Sequence[GradedRequest], algorithm: str, theme: str) -> None:
    """Draw the requests on a time axis, and below it a lane of exact decisions and one of the submission's."""
    axes = sheet.add_axes(sheet.body, sheet.body.width, 0, sheet.body.height)  # in inches from the upper left corner
    axes.set_axis_off()
    drawing = _Drawing(sheet, axes, requests, assign_colors([algorithm], theme)[algorithm])
    drawing.draw_axis()
    top = TIME_AXIS_HEIGHT_IN + REQUEST_HEIGHT_IN
    drawing.draw_lane(top, algorithm, drawing.color, [(one.exact, one.yours) for one in requests])
    top += _lane_height(requests)
    drawing.draw_lane(top, "yours", sheet.theme.ink, [(one.yours, one.exact) for one in requests])


def _column_width(requests: Sequence[GradedRequest]) -> float:
    return (FIGURE_WIDTH_IN - 2 * MARGIN_IN - LANE_NAME_WIDTH_IN) / len(requests)


def _broken_lines(requests: Sequence[GradedRequest], decision: Decision | None, other: Decision | None) -> list[str]:
    """Return the lines of a decision, broken to the width of a column."""
    width = _column_width(requests) - 0.2
    return [part for line in decision_lines(decision, other) for part in DECISION_PEN.wrap(line, width, 2)]


def _lane_height(requests: Sequence[GradedRequest]) -> float:
    pairs = [pair for one in requests for pair in ((one.exact, one.yours), (one.yours, one.exact))]
    lines = max(len(_broken_lines(requests, *pair)) for pair in pairs)
    return BLOCKS_HEIGHT_IN + lines * DECISION_PEN.line + LANE_PADDING_IN


@dataclass(frozen=True)
class _Drawing:
    """Axes in inches, with a column of equal width for each request, however close together they come."""

    sheet: Sheet
    axes: Axes
    requests: Sequence[GradedRequest]
    color: str

    def columns(self) -> Iterable[tuple[GradedRequest, float]]:
        """Return each request with the middle of its column."""
        width = _column_width(self.requests)
        return [(one, LANE_NAME_WIDTH_IN + width * (place + 0.5)) for place, one in enumerate(self.requests)]

    def draw_axis(self) -> None:
        """Draw a time axis with a dot for each request and a line from it to the request's column; frame the last."""
        theme, times = self.sheet.theme, [one.at for one in self.requests]
        first, last = min(times), max(times)
        right, line, width = self.sheet.body.width, 0.25, _column_width(self.requests)
        arrow = {"arrowstyle": "->", "color": theme.quiet}
        self.axes.annotate("", (right, line), (LANE_NAME_WIDTH_IN, line), arrowprops=arrow)
        self._text(0, line, "time", align="left")
        for one, x in self.columns():
            part = (one.at - first) / (last - first) if last > first else 0.5
            at = LANE_NAME_WIDTH_IN + width / 2 + (right - LANE_NAME_WIDTH_IN - width) * part
            self.axes.plot([at, x], [line, TIME_AXIS_HEIGHT_IN - 0.06], color=theme.quiet, linewidth=0.8)
            self.axes.plot(at, line, "o", color=theme.ink, markersize=4)
            self._text(x, TIME_AXIS_HEIGHT_IN + LABEL_PEN.line * 0.6, self._time_label(one), theme.ink)
            cost = f"cost {one.cost}" if one.cost else "cost 0, a look"
            self._text(x, TIME_AXIS_HEIGHT_IN + LABEL_PEN.line * 1.6, cost)
        framed = min(width, 2) - 0.1
        corner, size = (x - framed / 2, TIME_AXIS_HEIGHT_IN - 0.03), self.sheet.body.height - TIME_AXIS_HEIGHT_IN
        self.axes.add_patch(Rectangle(corner, framed, size, fill=False, edgecolor=theme.quiet, label="fails"))

    def draw_lane(
        self, top: float, name: str, color: str, decisions: Sequence[tuple[Decision | None, Decision | None]]
    ) -> None:
        """Draw each decision as a block as high as its cost: up if admitted, lighter if delayed, down if denied."""
        theme, zero, max_cost = self.sheet.theme, top + BLOCKS_HEIGHT_IN / 2, max(one.cost for one in self.requests)
        self._text(0, zero, name, color, align="left")
        self.axes.plot([LANE_NAME_WIDTH_IN, self.sheet.body.width], [zero, zero], color=theme.quiet, linewidth=0.6)
        for (one, x), (decision, other) in zip(self.columns(), decisions, strict=True):
            if decision is not None:
                size = max(0.03, (BLOCKS_HEIGHT_IN / 2 - 0.05) * one.cost / (max_cost or 1))
                corner = (x - BLOCK_WIDTH_IN / 2, zero - size if decision.allowed else zero)
                fill = self.color if decision.allowed else theme.denied
                opacity = DELAYED_OPACITY if decision.delay_ns else 1
                block = Rectangle(corner, BLOCK_WIDTH_IN, size, color=fill, alpha=opacity, linewidth=0, label=name)
                self.axes.add_patch(block)
            ink = theme.ink if decision != other else theme.quiet
            for number, line in enumerate(_broken_lines(self.requests, decision, other)):
                y = top + BLOCKS_HEIGHT_IN + (number + 0.5) * DECISION_PEN.line
                self._text(x, y, line, ink, DECISION_PEN)

    def _time_label(self, request: GradedRequest) -> str:
        """Format the time of a request; if that is too long for a column, as the time since the first request."""
        labels, first = [format_signed_time(one.at) for one in self.requests], self.requests[0].at
        if max(map(LABEL_PEN.measure, labels)) <= _column_width(self.requests) - 0.1:
            return format_signed_time(request.at)
        return f"+{format_signed_time(request.at - first)}".replace("+-", "-")

    def _text(
        self, x: float, y: float, text: str, color: str = "", pen: Pen = LABEL_PEN, align: str = "center"
    ) -> None:
        box, width = self.sheet.body, LANE_NAME_WIDTH_IN if align == "left" else _column_width(self.requests)
        self.sheet.write(box.left + x, box.top + y, text, pen, color, align, width - 0.1)
