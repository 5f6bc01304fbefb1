"""Sweep chart: the fraction of requests and clients denied, with a row for each burst and the rate as the axis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log, log10
from typing import TYPE_CHECKING, Literal, NamedTuple

from matplotlib.ticker import NullLocator

from ratelab.lab.sweep import SweepResult, SweepRow
from ratelab.quota import UNITS, Quota
from ratelab.report.charts.canvas import (
    LABEL_PEN,
    NARROW_WIDTH_IN,
    TICK_PEN,
    Box,
    Sheet,
    format_number,
    measure_heading,
    separate,
)
from ratelab.report.charts.style import DASHED, assign_colors
from ratelab.report.numbers import format_percent, format_rate
from ratelab.report.sweep import MAX_DENIED_RATIO, choose_rate_unit, compute_rate, find_sufficient_quota

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_BURST_ROWS = 6
"""Bursts that have a row; of more, this many are selected, evenly and with that of the quota in the title."""

MIN_LOG_RATIO = 8
"""Ratio of the largest to the smallest value from which on the axis is logarithmic."""

MAX_DOTS = 30
"""Quotas of a line up to which each has a dot."""

MAX_EXACT_TICKS = 5
"""Values that were tried up to which these are labeled; for more, round numbers are."""

MIN_RATIO = 1e-7
"""Lowest end of the logarithmic scale for ratios; below it is only 0."""

COLUMN_HEADING_IN = 0.25
MIN_ROW_HEIGHT_IN = 1.5
QUOTA_AXIS_IN = 0.25
"""Height for the labels below the last row."""
PANEL_GAP_IN = 0.12
LINE_LABELS_IN, RATIO_SCALE_IN, LEADER_IN = 1.4, 0.72, 0.2
"""Widths next to the lines: for names, for the scale, and for the lines that lead to the names."""
AXIS_PADDING = 0.03
"""Padding at both ends of the axis, as a fraction of its length."""


Side = Literal["left", "right"]


class SweepColumn(NamedTuple):
    """A column of the chart: a ratio to show, and its heading."""

    heading: str
    ratio: Callable[[SweepRow], float]
    goal: float | None
    """The ratio that a sufficient quota does not exceed."""


class QuotaRow(NamedTuple):
    """A row of the chart: its name, and its quotas in the order of the axis."""

    name: str
    quotas: tuple[Quota, ...]


def compute_height(result: SweepResult, width: float) -> float:
    """Return the height of the chart in inches."""
    rows = len(_build_rows(result))
    row_height = max(MIN_ROW_HEIGHT_IN, (len(result.algorithms) + 2) * LABEL_PEN.line)
    column = COLUMN_HEADING_IN + rows * (row_height + PANEL_GAP_IN) - PANEL_GAP_IN + QUOTA_AXIS_IN
    stacked = 1 if width > NARROW_WIDTH_IN or result.clients < 2 else 2
    return measure_heading(_compose_heading(result), width) + stacked * column + (stacked - 1) * PANEL_GAP_IN


def paint(sheet: Sheet, box: Box, result: SweepResult, theme: str) -> None:
    """Draw the ratio of requests denied and, if there are several clients, that of clients denied."""
    rows, rest = _build_rows(result), sheet.write_heading(box, _compose_heading(result))
    columns = _build_columns(result)
    ratios = [{(row.quota, row.algorithm): column.ratio(row) for row in result.rows} for column in columns]
    drawing = _SweepDrawing(
        sheet, result, rows, assign_colors(result.algorithms, theme), _find_label_side(rows, ratios)
    )
    if not sheet.is_wide:
        boxes = rest.split_rows(len(columns), PANEL_GAP_IN)
        for column, column_box, values in zip(columns, boxes, ratios, strict=True):
            drawing.draw_column(column, column_box, values, with_names=True)
        return
    boxes = rest.inset(**{drawing.side: LINE_LABELS_IN}).split_columns(len(columns), PANEL_GAP_IN)
    for number, (column, column_box, values) in enumerate(zip(columns, boxes, ratios, strict=True)):
        named = number == (0 if drawing.side == "left" else len(columns) - 1)
        outer = column_box.inset(**{drawing.side: -LINE_LABELS_IN}) if named else column_box
        drawing.draw_column(column, outer, values, with_names=named)


def _compose_heading(result: SweepResult) -> str:
    tried, shown = ({quota.burst for quota in quotas} for quotas in (result.quotas, _list_quotas(_build_rows(result))))
    selection = f" {len(shown)} of {len(tried):,} bursts are shown." if len(shown) < len(tried) else ""
    return (
        "The share that each quota denies, on a scale on which each step is ten times the one below. "
        f"The dashed line is the goal: at most {format_percent(MAX_DENIED_RATIO)} of requests.{selection}"
    )


def _build_columns(result: SweepResult) -> list[SweepColumn]:
    requests = SweepColumn("Requests denied", lambda row: row.denied / max(1, result.offered), MAX_DENIED_RATIO)
    clients = SweepColumn("Clients denied at least once", lambda row: row.clients_denied / max(1, result.clients), None)
    return [requests, clients] if result.clients > 1 else [requests]


Ratios = dict[tuple[Quota, str], float]


def _find_label_side(rows: Sequence[QuotaRow], ratios: Sequence[Ratios]) -> Side:
    """Return the end at which the lines are farther apart, where their names are written."""

    def measure_spread(end: int) -> float:
        spread = 0.0
        for values in ratios:
            for row in rows:
                quota = row.quotas[end]
                logs = [log(max(value, MIN_RATIO)) for (other, _), value in values.items() if other == quota]
                spread += max(logs) - min(logs)
        return spread

    return "left" if measure_spread(0) >= measure_spread(-1) else "right"


@dataclass(frozen=True)
class _SweepDrawing:
    """The chart of a sweep on a sheet."""

    sheet: Sheet
    result: SweepResult
    rows: Sequence[QuotaRow]
    colors: dict[str, str]
    side: Side
    """Where the names of the lines are; the scale is on the other side."""

    def draw_column(self, column: SweepColumn, box: Box, ratios: Ratios, with_names: bool) -> None:
        """Draw a panel for each burst."""
        names = LINE_LABELS_IN if with_names else 0
        scale_side: Side = "right" if self.side == "left" else "left"
        axis, limits = build_axis(_list_quotas(self.rows)), find_limits(ratios.values())
        inner = box.inset(**{self.side: names, scale_side: RATIO_SCALE_IN})
        self.sheet.write(inner.left, box.top + 0.06, column.heading, width=box.right - inner.left)
        panels = inner.inset(top=COLUMN_HEADING_IN, bottom=QUOTA_AXIS_IN).split_rows(len(self.rows), PANEL_GAP_IN)
        for row, panel in zip(self.rows, panels, strict=True):
            middle, plot = panel.top + LABEL_PEN.line / 2, panel.inset(top=LABEL_PEN.line + 0.05)
            self.sheet.write(plot.left, middle, row.name, LABEL_PEN, self.sheet.theme.ink, width=box.right - plot.left)
            axes = self._add_axes(plot, axis, limits, column.goal, labeled=row is self.rows[-1])
            ends = self._draw_lines(axes, axis, row, ratios)
            if with_names:
                self._write_names(axes, plot, ends)

    def _add_axes(self, box: Box, axis: Axis, limits: tuple[float, float], goal: float | None, labeled: bool) -> Axes:
        """Return axes with a logarithmic scale of ratios above 0."""
        low, top = limits
        axes = self.sheet.add_axes(box, 1, top)
        axes.set_yscale("symlog", linthresh=low, linscale=0.6)
        axes.set_ylim(0, 1.25 * top)
        axes.set_xlim(-AXIS_PADDING, 1 + AXIS_PADDING)
        widest = max(TICK_PEN.measure(axis.format(value)) for value in axis.values) + 0.15
        ticks = axis.select_ticks(widest / box.width * (1 + 2 * AXIS_PADDING))
        axes.set_xticks([axis.place(value) for value in ticks], [axis.format(value) for value in ticks])
        powers = [10.0**power for power in range(round(log10(low)), round(log10(top)) + 1)]
        marks = {0.0: "0", **{ratio: format_percent(ratio) for ratio in powers}}
        if goal is not None and 0 < goal <= 1.25 * top:
            marks[goal] = f"goal {format_percent(goal)}"
            axes.axhline(goal, color=self.sheet.theme.ink, linewidth=1, linestyle=DASHED, zorder=1)
        axes.set_yticks([*marks], [*marks.values()])
        axes.yaxis.set_minor_locator(NullLocator())
        if self.side == "left":
            axes.yaxis.tick_right()
            axes.spines["right"].set_visible(True)
            axes.spines["left"].set_visible(False)
        axes.tick_params(labelbottom=labeled)
        axes.grid(axis="both", color=self.sheet.theme.grid, linewidth=0.6)
        return axes

    def _draw_lines(self, axes: Axes, axis: Axis, row: QuotaRow, ratios: Ratios) -> dict[str, float]:
        """Draw a line for each algorithm, each thinner than the one before, so that lines that coincide are visible.

        Return the ratio at the end at which the names are.
        """
        ends, places = {}, [axis.place(axis.read(quota)) for quota in row.quotas]
        for rank, (name, color) in enumerate(self.colors.items()):
            width = 3.4 - 2.2 * rank / max(1, len(self.colors) - 1)
            dots = 2 + 1.1 * width if len(places) <= MAX_DOTS else 0
            values = [ratios[quota, name] for quota in row.quotas]
            axes.plot(
                places, values, "o-", color=color, linewidth=width, markersize=dots, markeredgewidth=0, clip_on=False
            )
            ends[name] = values[0 if self.side == "left" else -1]
        return ends

    def _write_names(self, axes: Axes, box: Box, ends: dict[str, float]) -> None:
        """Write the names next to the ends of their lines, each with a line that leads to it."""
        heights = {name: float(self._place_in_axes(axes, ratio)) for name, ratio in ends.items()}
        ordered = sorted(heights, key=lambda name: heights[name])
        places = separate([box.bottom - heights[name] * box.height for name in ordered], box.top, LABEL_PEN.line)
        edge = box.left if self.side == "left" else box.right
        outward = -1 if self.side == "left" else 1
        for name, place in zip(ordered, places, strict=True):
            end = box.bottom - heights[name] * box.height
            inside = -outward * box.width * AXIS_PADDING / (1 + 2 * AXIS_PADDING)
            self.sheet.draw_line((edge + inside, end), (edge + outward * LEADER_IN, place), self.colors[name])
            align, width = ("right" if self.side == "left" else "left"), LINE_LABELS_IN - LEADER_IN - 0.05
            x = edge + outward * (LEADER_IN + 0.05)
            self.sheet.write(x, place, name, LABEL_PEN, self.colors[name], align, width)

    @staticmethod
    def _place_in_axes(axes: Axes, ratio: float) -> float:
        """Return the height of a ratio as a part of the height of the axes."""
        return float(axes.transAxes.inverted().transform(axes.transData.transform((0, ratio)))[1])


def find_limits(ratios: Iterable[float]) -> tuple[float, float]:
    """Return the powers of ten at the ends of the logarithmic scale for these ratios."""
    above = [ratio for ratio in ratios if ratio > 0] or [1.0]
    low, top = floor(log10(max(MIN_RATIO, min(above)))), ceil(log10(max(above)))
    return 10.0 ** min(low, -3), 10.0 ** max(top, low + 1, -1)


# --- rows


def _build_rows(result: SweepResult) -> list[QuotaRow]:
    """Return the rows, with the quota that the title names among them."""
    return build_rows(result.quotas, find_sufficient_quota(result))


def build_rows(quotas: Iterable[Quota], named: Quota | None) -> list[QuotaRow]:
    """Return a row for each burst, or a single row if there is one rate only, or one burst for each rate."""
    ordered = sorted(set(quotas), key=lambda quota: (compute_rate(quota), quota.burst))
    rates, bursts = {compute_rate(quota) for quota in ordered}, sorted({quota.burst for quota in ordered})
    if len(bursts) > 1 and len(rates) == 1:
        return [QuotaRow(f"rate {format_rate(ordered[0])}, by burst", tuple(ordered))]
    if len(bursts) > 1 and len(rates) == len(ordered):
        return [QuotaRow(f"bursts of {bursts[0]:,} to {bursts[-1]:,}, by rate", tuple(ordered))]
    shown = _select_bursts(bursts, named.burst if named else bursts[0])
    return [QuotaRow(f"burst {burst:,}", tuple(quota for quota in ordered if quota.burst == burst)) for burst in shown]


def _select_bursts(bursts: Sequence[int], required: int) -> list[int]:
    """Return at most `MAX_BURST_ROWS` bursts at even steps; the inner one nearest to `required` gives way to it."""
    count = min(len(bursts), MAX_BURST_ROWS)
    places = [step * (len(bursts) - 1) // max(1, count - 1) for step in range(count)]
    place = bursts.index(required)
    if place not in places:
        nearest = min(range(1, count - 1), key=lambda step: abs(places[step] - place))
        places[nearest] = place
    return [bursts[place] for place in places]


def _list_quotas(rows: Sequence[QuotaRow]) -> list[Quota]:
    return [quota for row in rows for quota in row.quotas]


# --- the axis


class Axis(NamedTuple):
    """The axis for rates or bursts, from 0 to 1; logarithmic if the values span a large range."""

    read: Callable[[Quota], float]
    """Returns the value of a quota on the axis."""
    format: Callable[[float], str]
    values: Sequence[float]
    """The values that were tried, in ascending order."""

    def place(self, value: float) -> float:
        """Return the place of a value on the axis: the middle, if it is the only one."""
        low, high = self.values[0], self.values[-1]
        if high == low:
            return 0.5
        return log(value / low) / log(high / low) if high >= MIN_LOG_RATIO * low else (value - low) / (high - low)

    def select_ticks(self, gap: float) -> list[float]:
        """Return the values to label, `gap` of the axis or more apart: round numbers, or a few values that were tried.

        Without room for two round numbers, these are the ends.
        """
        low, high = self.values[0], self.values[-1]
        if len(self.values) > MAX_EXACT_TICKS and high > low:
            powers = range(floor(log10(low)), ceil(log10(high)) + 1)
            for digits in ((1, 2, 5), (1, 3), (1,)):
                ticks = [digit * 10.0**power for power in powers for digit in digits]
                ticks = [tick for tick in ticks if low <= tick <= high]
                gaps = [self.place(after) - self.place(before) for before, after in pairwise(ticks)]
                if gaps and min(gaps) >= gap:
                    return ticks
        *others, last = self.values
        selected: list[float] = []
        for value in others:
            is_apart = not selected or self.place(value) - self.place(selected[-1]) >= gap
            if is_apart and self.place(last) - self.place(value) >= gap:
                selected.append(value)
        return [*selected, last]


def build_axis(quotas: Iterable[Quota], unit: str | None = None) -> Axis:
    """Return an axis of rates, in `unit` or one in which they are whole numbers; of bursts, if the rate is one."""
    quotas = list(quotas)
    rates, bursts = {compute_rate(quota) for quota in quotas}, {quota.burst for quota in quotas}
    if len(rates) == 1 and len(bursts) > 1:
        return Axis(lambda quota: float(quota.burst), format_number, [float(burst) for burst in sorted(bursts)])
    unit = unit or choose_rate_unit(quotas)
    return Axis(
        lambda quota: float(compute_rate(quota) * UNITS[unit]),
        lambda value: f"{format_number(value)}/{unit}",
        [float(rate * UNITS[unit]) for rate in sorted(rates)],
    )
