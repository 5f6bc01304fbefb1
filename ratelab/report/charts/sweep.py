"""What the quotas of a sweep would deny: a row for each burst, a line for each algorithm, against the rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from math import log
from typing import TYPE_CHECKING, NamedTuple

from ratelab.lab.sweep import SweepResult, SweepRow
from ratelab.quota import UNITS, Quota
from ratelab.report.charts.canvas import LABEL, Box, Label, Sheet, label
from ratelab.report.charts.style import colours, count
from ratelab.report.charts.text import Pen
from ratelab.report.sweep import find_sufficient_quota

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ratelab.quota import Quota

MOST_ROWS = 6
"""Bursts that have a row; of more, as many from the least to the largest, the one that matters among them."""
SPAN = 8
"""How many times the least the largest value is from which on the axis is logarithmic."""


class QuotaAxis(NamedTuple):
    """Some quotas in their order along the axis."""

    name: str
    quotas: tuple[Quota, ...]


class Along(NamedTuple):
    """The axis, from 0 to 1; logarithmic where the values go far."""

    value: Callable[[Quota], float]
    text: Callable[[float], str]
    values: Sequence[float]
    """Those that were tried, the least first."""

    def place(self, value: float) -> float:
        """Return where on the axis a value stands: in its middle, if there is no other."""
        low, high = self.values[0], self.values[-1]
        if high == low:
            return 0.5
        return log(value / low) / log(high / low) if high >= SPAN * low else (value - low) / (high - low)

    def named(self, gap: float) -> list[float]:
        """Return values to name, no two nearer to each other than `gap` of the axis: both ends, and others between."""
        *others, last = self.values
        found: list[float] = []
        for value in others:
            apart = not found or self.place(value) - self.place(found[-1]) >= gap
            if apart and self.place(last) - self.place(value) >= gap:
                found.append(value)
        return [*found, last]


def rows_of(quotas: Iterable[Quota], matters: Quota | None) -> list[QuotaAxis]:
    """Return a row for each burst, or a single one where there is one rate alone or each has a burst of its own."""
    ordered = sorted(set(quotas), key=lambda quota: (rate(quota), quota.burst))
    rates, bursts = {rate(quota) for quota in ordered}, sorted({quota.burst for quota in ordered})
    if len(bursts) > 1 and len(rates) == 1:
        return [QuotaAxis(f"rate {ordered[0].rate}, against the burst", tuple(ordered))]
    if len(bursts) > 1 and len(rates) == len(ordered):
        return [QuotaAxis(f"bursts of {bursts[0]:,} to {bursts[-1]:,}, one for each rate", tuple(ordered))]
    shown = _some(bursts, matters.burst if matters else bursts[0])
    return [QuotaAxis(f"burst {burst:,}", tuple(quota for quota in ordered if quota.burst == burst)) for burst in shown]


def _some(bursts: Sequence[int], matters: int) -> list[int]:
    """Return as many bursts as have a row, `matters` in the place of the nearest of those between the ends."""
    steps = min(len(bursts), MOST_ROWS)
    places = [step * (len(bursts) - 1) // max(1, steps - 1) for step in range(steps)]
    wanted = bursts.index(matters)
    if wanted not in places:
        nearest = min(range(1, steps - 1), key=lambda step: abs(places[step] - wanted))
        places[nearest] = wanted
    return [bursts[place] for place in places]


def rate(quota: Quota) -> Fraction:
    """Return a rate that can be compared, in units of cost for each nanosecond."""
    return Fraction(quota.limit, quota.period)


def along(quotas: Iterable[Quota]) -> Along:
    """Return the rate as the axis, in whole numbers if a unit has them; the burst, where there is one rate alone."""
    rates, bursts = ({of(quota) for quota in quotas} for of in (rate, lambda quota: quota.burst))
    if len(rates) == 1 and len(bursts) > 1:
        return Along(lambda quota: float(quota.burst), count, [*map(float, sorted(bursts))])
    unit = _unit(rates)
    return Along(
        lambda quota: float(rate(quota) * UNITS[unit]),
        lambda value: f"{count(value)}/{unit}",
        [float(one * UNITS[unit]) for one in sorted(rates)],
    )


def _unit(rates: set[Fraction]) -> str:
    """Return the least unit in which all rates are whole numbers, else the least in which none is below 1."""
    units = ("s", "min", "h", "day")
    whole = (unit for unit in units if all((one * UNITS[unit]).denominator == 1 for one in rates))
    return next(whole, next((unit for unit in units if min(rates) * UNITS[unit] >= 1), units[-1]))


HEADING, EACH, FOOT, GAP, NAMES, SCALE = 0.25, 1.3, 0.25, 0.12, 1.25, 0.5
MOST_DOTS = 30
"""Quotas of a line up to which each gets a dot."""
TOPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Where the scale of the shares may end."""
TICK, MARGIN = Pen(8.5), 0.03


class Panel(NamedTuple):
    """What one column shows."""

    heading: str
    share: Callable[[SweepRow], float]


def height(result: SweepResult) -> float:
    """Return the height of the chart in inches."""
    rows, names = len(_rows(result)), len(result.algorithms)
    return HEADING + rows * max(EACH, (names + 2) * LABEL.line) + (rows - 1) * GAP + FOOT


def paint(sheet: Sheet, box: Box, result: SweepResult, theme: str) -> None:
    """Draw the share of requests denied, and where there are several clients that of them beside it."""
    looks = colours(result.algorithms, theme)
    rows = _rows(result)
    axis, panels = along(_of(rows)), _panels(result, rows)
    for panel, column in zip(panels, box.inset(right=NAMES).columns(len(panels), GAP), strict=True):
        sheet.text(column.left, column.top + 0.06, panel.heading, width=column.width)
        most = max(map(panel.share, result.rows))
        top = next(top for top in TOPS if most <= top) if most else 1.0
        shares = {(row.quota, row.algorithm): panel.share(row) for row in result.rows}
        for row, place in zip(rows, column.inset(top=HEADING, bottom=FOOT).rows(len(rows), GAP), strict=True):
            inner = place.inset(left=SCALE, top=LABEL.line + 0.05)
            sheet.text(inner.left, place.top + LABEL.line / 2, row.name, LABEL, sheet.theme.ink, width=inner.width)
            axes = _axes(sheet, inner, axis, top, labelled=row is rows[-1])
            labels = _lines(axes, axis, row, looks, shares)
            if panel is panels[-1]:
                label(sheet, Box(inner.right, inner.top, NAMES, inner.height), labels, 1.05 * top)


def _panels(result: SweepResult, rows: Sequence[QuotaAxis]) -> list[Panel]:
    shown, tried = ({quota.burst for quota in many} for many in (_of(rows), result.quotas))
    some = f", {len(shown)} of {len(tried):,} bursts" if len(shown) < len(tried) else ""
    requests = Panel(f"share of requests denied{some}", lambda one: one.denied_ratio)
    clients = Panel("share of clients denied at least once", lambda one: one.clients_denied_ratio)
    return [requests, clients] if result.clients > 1 else [requests]


def _rows(result: SweepResult) -> list[QuotaAxis]:
    """Return the rows, the quota that the title names among them."""
    return rows_of(result.quotas, find_sufficient_quota(result))


def _of(rows: Sequence[QuotaAxis]) -> list[Quota]:
    return [quota for row in rows for quota in row.quotas]


def _lines(
    axes: Axes, axis: Along, row: QuotaAxis, looks: dict[str, str], shares: dict[tuple[Quota, str], float]
) -> list[Label]:
    """Draw a line for each algorithm, the thinner the later, so that lines which are one are all seen."""
    labels, at = [], [axis.place(axis.value(quota)) for quota in row.quotas]
    for rank, (name, colour) in enumerate(looks.items()):
        width = 3.4 - 2.2 * rank / max(1, len(looks) - 1)
        dots = 2 + 1.1 * width if len(at) <= MOST_DOTS else 0
        drawn = [shares[quota, name] for quota in row.quotas]
        axes.plot(at, drawn, "o-", color=colour, linewidth=width, markersize=dots, markeredgewidth=0, clip_on=False)
        labels.append(Label(drawn[-1], name, colour))
    return labels


def _axes(sheet: Sheet, box: Box, axis: Along, top: float, labelled: bool) -> Axes:
    """Return axes whose marks are at quotas that were tried, as many as there is room to name."""
    axes = sheet.axes(box, 1, 1.05 * top)
    axes.set_xlim(-MARGIN, 1 + MARGIN)
    widest = max(TICK.width(axis.text(value)) for value in axis.values) + 0.15
    named = axis.named(widest / box.width * (1 + 2 * MARGIN))
    axes.set_xticks([axis.place(value) for value in named], [axis.text(value) for value in named])
    axes.set_yticks([0, top / 2, top], [f"{100 * share:g} %" for share in (0, top / 2, top)])
    axes.tick_params(labelbottom=labelled)
    axes.grid(axis="both", color=sheet.theme.grid, linewidth=0.6)
    return axes
