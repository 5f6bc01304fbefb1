"""Charts of timelines: the requests on which a submission fails, or that refute a theorem, and their decisions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.patches import Rectangle

from ratelab.learn.verdict import Verdict, decision_lines, format_signed_time
from ratelab.limiter import Decision
from ratelab.prove import Finding, Proof
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


class _RequestColumn(NamedTuple):
    """A request, and its decisions by lane; one that was not decided because of an error is None."""

    at: int
    cost: int
    decisions: dict[str, Decision | None]


def draw_verdict(verdict: Verdict, theme: str = "light") -> Figure:
    """Draw the shortest failing timeline of a verdict; without one, only its message."""
    lanes = (verdict.algorithm, "yours")
    columns = [
        _RequestColumn(one.at, one.cost, dict(zip(lanes, (one.exact, one.yours), strict=True)))
        for one in verdict.requests
    ]
    caption = f"the shortest failing timeline found, at {verdict.quota}" if columns else ""
    return _draw_timeline(_title(verdict), caption, columns, lanes, theme)


def draw_refutation(proof: Proof, finding: Finding, theme: str = "light") -> Figure:
    """Draw the timeline that refutes a theorem; a second lane shows the decisions that it is compared with."""
    columns = list[_RequestColumn]()
    for event in finding.timeline:
        lane, last = event.by or proof.algorithm, columns[-1] if columns else None
        if last and (last.at, last.cost) == (event.at, event.cost) and lane not in last.decisions:
            last.decisions[lane] = event.decision
        else:
            columns.append(_RequestColumn(event.at, event.cost, {lane: event.decision}))
    lanes = [*dict.fromkeys([proof.algorithm, *(event.by for event in finding.timeline if event.by)])]
    title = f"Refuted for {proof.algorithm}: {finding.meaning}"
    return _draw_timeline(title, f"the shortest timeline found, at {finding.quota}", columns, lanes, theme)


def _draw_timeline(
    title: str, caption: str, columns: Sequence[_RequestColumn], lanes: Sequence[str], theme: str
) -> Figure:
    """Draw the last columns of a timeline, with a lane for each of the names; without columns, only the title."""
    left_out, columns = len(columns) - MAX_DRAWN_REQUESTS, columns[-MAX_DRAWN_REQUESTS:]
    caption += f", without its first {pluralize(left_out, 'request')}" if left_out > 0 else ""
    lane_height = _lane_height(columns) if columns else 0
    height = TIME_AXIS_HEIGHT_IN + REQUEST_HEIGHT_IN + len(lanes) * lane_height if columns else 0
    with use_chart_style():
        sheet = Sheet(title, caption, height, theme)
        if columns:
            axes = sheet.add_axes(sheet.body, sheet.body.width, 0, sheet.body.height)  # in inches from the upper left
            axes.set_axis_off()
            drawing = _Drawing(sheet, axes, columns, assign_colors([lanes[0]], theme)[lanes[0]])
            drawing.draw_axis()
            for number, name in enumerate(lanes):
                top = TIME_AXIS_HEIGHT_IN + REQUEST_HEIGHT_IN + number * lane_height
                drawing.draw_lane(top, name, drawing.color if number == 0 else sheet.theme.ink)
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


def _column_width(columns: Sequence[_RequestColumn]) -> float:
    return (FIGURE_WIDTH_IN - 2 * MARGIN_IN - LANE_NAME_WIDTH_IN) / len(columns)


def _list_lines(columns: Sequence[_RequestColumn], column: _RequestColumn, lane: str) -> list[str]:
    """Return the lines of a decision, broken to the width of a column."""
    width, lines = _column_width(columns) - 0.2, decision_lines(column.decisions[lane], _find_other(column, lane))
    return [part for line in lines for part in DECISION_PEN.wrap(line, width, 2)]


def _find_other(column: _RequestColumn, lane: str) -> Decision | None:
    """Return the decision of a request in another lane, if there is one."""
    return next((decision for name, decision in column.decisions.items() if name != lane), None)


def _lane_height(columns: Sequence[_RequestColumn]) -> float:
    lines = max(len(_list_lines(columns, one, lane)) for one in columns for lane in one.decisions)
    return BLOCKS_HEIGHT_IN + lines * DECISION_PEN.line + LANE_PADDING_IN


@dataclass(frozen=True)
class _Drawing:
    """Axes in inches, with a column of equal width for each request, however close together they come."""

    sheet: Sheet
    axes: Axes
    requests: Sequence[_RequestColumn]
    color: str

    def columns(self) -> Iterable[tuple[_RequestColumn, float]]:
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

    def draw_lane(self, top: float, name: str, color: str) -> None:
        """Draw each decision as a block as high as its cost: up if admitted, lighter if delayed, down if denied."""
        theme, zero, max_cost = self.sheet.theme, top + BLOCKS_HEIGHT_IN / 2, max(one.cost for one in self.requests)
        self._text(0, zero, name, color, align="left")
        self.axes.plot([LANE_NAME_WIDTH_IN, self.sheet.body.width], [zero, zero], color=theme.quiet, linewidth=0.6)
        for one, x in self.columns():
            if name not in one.decisions:
                continue
            decision = one.decisions[name]
            if decision is not None:
                size = max(0.03, (BLOCKS_HEIGHT_IN / 2 - 0.05) * one.cost / (max_cost or 1))
                corner = (x - BLOCK_WIDTH_IN / 2, zero - size if decision.allowed else zero)
                fill = self.color if decision.allowed else theme.denied
                opacity = DELAYED_OPACITY if decision.delay_ns else 1
                block = Rectangle(corner, BLOCK_WIDTH_IN, size, color=fill, alpha=opacity, linewidth=0, label=name)
                self.axes.add_patch(block)
            ink = theme.ink if decision != _find_other(one, name) else theme.quiet
            for number, line in enumerate(_list_lines(self.requests, one, name)):
                y = top + BLOCKS_HEIGHT_IN + (number + 0.5) * DECISION_PEN.line
                self._text(x, y, line, ink, DECISION_PEN)

    def _time_label(self, request: _RequestColumn) -> str:
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
