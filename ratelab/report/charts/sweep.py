"""Sweep chart: the fraction of requests and clients denied, with a row for each burst and the rate as the axis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from math import log
from typing import TYPE_CHECKING, NamedTuple

from ratelab.lab.sweep import SweepResult, SweepRow
from ratelab.quota import UNITS, Quota
from ratelab.report.charts.canvas import LABEL_PEN, Box, LineLabel, Sheet, write_line_labels
from ratelab.report.charts.style import assign_colors, format_count
from ratelab.report.charts.text import Pen
from ratelab.report.sweep import find_sufficient_quota

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_BURST_ROWS = 6
"""Bursts that have a row; of more, this many are selected, evenly and with that of the quota in the title."""

MIN_LOG_RATIO = 8
"""Ratio of the largest to the smallest value from which on the axis is logarithmic."""

MAX_DOTS = 30
"""Quotas of a line up to which each has a dot."""

RATIO_LIMITS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Ends of the scale for ratios, of which the first that is large enough is used."""

COLUMN_HEADING_IN = 0.25
MIN_ROW_HEIGHT_IN = 1.3
QUOTA_AXIS_IN = 0.25
"""Height for the labels below the last row."""
PANEL_GAP_IN = 0.12
LINE_LABELS_IN, RATIO_SCALE_IN = 1.25, 0.5
"""Widths to the right and to the left of the lines."""
TICK_PEN = Pen(8.5)
AXIS_PADDING = 0.03
"""Padding at both ends of the axis, as a fraction of its length."""


class SweepColumn(NamedTuple):
    """A column of the chart: a ratio to show, and its heading."""

    heading: str
    ratio: Callable[[SweepRow], float]


class QuotaRow(NamedTuple):
    """A row of the chart: its name, and its quotas in the order of the axis."""

    name: str
    quotas: tuple[Quota, ...]


def compute_height(result: SweepResult) -> float:
    """Return the height of the chart in inches."""
    rows = len(_build_rows(result))
    row_height = max(MIN_ROW_HEIGHT_IN, (len(result.algorithms) + 2) * LABEL_PEN.line)
    return COLUMN_HEADING_IN + rows * (row_height + PANEL_GAP_IN) - PANEL_GAP_IN + QUOTA_AXIS_IN


def paint(sheet: Sheet, box: Box, result: SweepResult, theme: str) -> None:
    """Draw the ratio of requests denied and, if there are several clients, next to it that of clients denied."""
    colors = assign_colors(result.algorithms, theme)
    rows = _build_rows(result)
    axis, columns = build_axis(_list_quotas(rows)), _build_columns(result, rows)
    boxes = box.inset(right=LINE_LABELS_IN).split_columns(len(columns), PANEL_GAP_IN)
    for column, column_box in zip(columns, boxes, strict=True):
        sheet.write(column_box.left, column_box.top + 0.06, column.heading, width=column_box.width)
        ratios = {(row.quota, row.algorithm): column.ratio(row) for row in result.rows}
        largest = max(ratios.values())
        top = next(limit for limit in RATIO_LIMITS if largest <= limit) if largest else 1.0
        panels = column_box.inset(top=COLUMN_HEADING_IN, bottom=QUOTA_AXIS_IN).split_rows(len(rows), PANEL_GAP_IN)
        for row, panel in zip(rows, panels, strict=True):
            inner = panel.inset(left=RATIO_SCALE_IN, top=LABEL_PEN.line + 0.05)
            middle = panel.top + LABEL_PEN.line / 2
            sheet.write(inner.left, middle, row.name, LABEL_PEN, sheet.theme.ink, width=inner.width)
            axes = _add_axes(sheet, inner, axis, top, labeled=row is rows[-1])
            labels = _draw_lines(axes, axis, row, colors, ratios)
            if column is columns[-1]:
                names = Box(inner.right, inner.top, LINE_LABELS_IN, inner.height)
                write_line_labels(sheet, names, labels, 1.05 * top)


def _build_columns(result: SweepResult, rows: Sequence[QuotaRow]) -> list[SweepColumn]:
    shown, tried = ({quota.burst for quota in quotas} for quotas in (_list_quotas(rows), result.quotas))
    selection = f", {len(shown)} of {len(tried):,} bursts" if len(shown) < len(tried) else ""
    requests = SweepColumn(f"requests denied{selection}", lambda row: row.denied_ratio)
    clients = SweepColumn("clients denied at least once", lambda row: row.clients_denied_ratio)
    return [requests, clients] if result.clients > 1 else [requests]


def _draw_lines(
    axes: Axes, axis: Axis, row: QuotaRow, colors: dict[str, str], ratios: dict[tuple[Quota, str], float]
) -> list[LineLabel]:
    """Draw a line for each algorithm, each thinner than the one before, so that lines that coincide are visible."""
    labels, places = [], [axis.place(axis.read(quota)) for quota in row.quotas]
    for rank, (name, color) in enumerate(colors.items()):
        width = 3.4 - 2.2 * rank / max(1, len(colors) - 1)
        dots = 2 + 1.1 * width if len(places) <= MAX_DOTS else 0
        values = [ratios[quota, name] for quota in row.quotas]
        axes.plot(places, values, "o-", color=color, linewidth=width, markersize=dots, markeredgewidth=0, clip_on=False)
        labels.append(LineLabel(values[-1], name, color))
    return labels


def _add_axes(sheet: Sheet, box: Box, axis: Axis, top: float, labeled: bool) -> Axes:
    """Return axes with ticks at quotas that were tried, as many as there is room to label."""
    axes = sheet.add_axes(box, 1, 1.05 * top)
    axes.set_xlim(-AXIS_PADDING, 1 + AXIS_PADDING)
    widest = max(TICK_PEN.measure(axis.format(value)) for value in axis.values) + 0.15
    ticks = axis.select_ticks(widest / box.width * (1 + 2 * AXIS_PADDING))
    axes.set_xticks([axis.place(value) for value in ticks], [axis.format(value) for value in ticks])
    axes.set_yticks([0, top / 2, top], [f"{100 * ratio:g} %" for ratio in (0, top / 2, top)])
    axes.tick_params(labelbottom=labeled)
    axes.grid(axis="both", color=sheet.theme.grid, linewidth=0.6)
    return axes


# --- rows


def _build_rows(result: SweepResult) -> list[QuotaRow]:
    """Return the rows, with the quota that the title names among them."""
    return build_rows(result.quotas, find_sufficient_quota(result))


def build_rows(quotas: Iterable[Quota], named: Quota | None) -> list[QuotaRow]:
    """Return a row for each burst, or a single row if there is one rate only, or one burst for each rate."""
    ordered = sorted(set(quotas), key=lambda quota: (compute_rate(quota), quota.burst))
    rates, bursts = {compute_rate(quota) for quota in ordered}, sorted({quota.burst for quota in ordered})
    if len(bursts) > 1 and len(rates) == 1:
        return [QuotaRow(f"rate {ordered[0].rate}, by burst", tuple(ordered))]
    if len(bursts) > 1 and len(rates) == len(ordered):
        return [QuotaRow(f"bursts of {bursts[0]:,} to {bursts[-1]:,}, one for each rate", tuple(ordered))]
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
        """Return the values to label: both ends, and those between that are `gap` of the axis or more apart."""
        *others, last = self.values
        selected: list[float] = []
        for value in others:
            is_apart = not selected or self.place(value) - self.place(selected[-1]) >= gap
            if is_apart and self.place(last) - self.place(value) >= gap:
                selected.append(value)
        return [*selected, last]


def build_axis(quotas: Iterable[Quota]) -> Axis:
    """Return an axis of rates, in a unit in which they are whole numbers if possible; of bursts, if the rate is one."""
    quotas = list(quotas)
    rates, bursts = {compute_rate(quota) for quota in quotas}, {quota.burst for quota in quotas}
    if len(rates) == 1 and len(bursts) > 1:
        return Axis(lambda quota: float(quota.burst), format_count, [float(burst) for burst in sorted(bursts)])
    unit = _choose_unit(rates)
    return Axis(
        lambda quota: float(compute_rate(quota) * UNITS[unit]),
        lambda value: f"{format_count(value)}/{unit}",
        [float(rate * UNITS[unit]) for rate in sorted(rates)],
    )


def compute_rate(quota: Quota) -> Fraction:
    """Return the rate of a quota, in units of cost per nanosecond."""
    return Fraction(quota.limit, quota.period)


def _choose_unit(rates: set[Fraction]) -> str:
    """Return the smallest unit in which all rates are whole numbers, else the smallest in which none is below 1."""
    units = ("s", "min", "h", "day")
    whole = (unit for unit in units if all((rate * UNITS[unit]).denominator == 1 for rate in rates))
    return next(whole, next((unit for unit in units if min(rates) * UNITS[unit] >= 1), units[-1]))
