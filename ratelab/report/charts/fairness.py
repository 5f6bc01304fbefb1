"""Fairness chart: the part of its requests that each client was denied, by algorithm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.metrics import Result
from ratelab.report.charts.canvas import LABEL_PEN, SMALL_PEN, Box, Sheet, measure_heading
from ratelab.report.charts.view import ComparisonView
from ratelab.report.numbers import format_percent, format_share, join_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NAMED_CLIENTS = 16
"""Clients that each get a bar with a name; for more, the chart shows the spread of their denied shares."""

MAX_CLIENT_DOTS = 200
"""Denied clients that are drawn as dots; of more, the quantiles are drawn."""

SHARE_LIMITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Ends of the axis for denied shares, of which the first that is large enough is used."""

COLUMN_WIDTH_IN = 1.05
"""Least width of the bars of an algorithm."""

CLIENT_NAME_WIDTH_IN = 1.3
COLUMN_HEADER_IN = 0.42
AXIS_IN = 0.3
"""Height for the scale below the bars."""
NAMED_BAR_HEIGHT_IN, SPREAD_HEIGHT_IN = 0.2, 0.66
COLUMN_GAP_IN = 0.15


def compose_title(view: ComparisonView) -> str:
    """State how much of its requests the worst served client was denied by each algorithm."""
    clients = len(_rank_clients(view))
    if clients < 2:
        return "There is at most one client, so there is nothing to compare between clients."
    if not any(result.denied for result in view.results):
        return f"No algorithm denied any of {clients:,} clients."
    losses: dict[tuple[float, int, int], list[str]] = {}
    for result in view.results:
        denied = _compute_denied(result)
        worst = int(denied.argmax())
        offered = int(result.client_offered[worst])
        lost = offered - int(result.client_admitted[worst])
        losses.setdefault((float(denied[worst]), lost, offered), []).append(result.algorithm)
    (most, *others) = (
        f"{f'{lost:,} of {offered:,} requests ({format_percent(share)})' if lost else 'none'} with {join_names(names)}"
        for (share, lost, offered), names in sorted(losses.items(), reverse=True)
    )
    rest = "".join(f", {other.replace(' requests', '')}" for other in others)
    return f"The worst served client lost {most}{rest}."


def compute_height(view: ComparisonView, width: float) -> float:
    """Return the height of the chart in inches."""
    clients, heading = len(_rank_clients(view)), measure_heading(_compose_heading(view), width)
    if clients > MAX_NAMED_CLIENTS and not any(result.denied for result in view.results):
        return heading
    if clients > MAX_NAMED_CLIENTS:
        return heading + SPREAD_HEIGHT_IN * len(view.results) + AXIS_IN
    groups = len(_group_results(view, width))
    bars = NAMED_BAR_HEIGHT_IN * max(1, clients)
    return heading + groups * (COLUMN_HEADER_IN + bars + AXIS_IN) + (groups - 1) * COLUMN_GAP_IN


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a bar for each client and algorithm; for many clients, the spread of the denied shares."""
    clients = _rank_clients(view)
    rest = sheet.write_heading(box, _compose_heading(view))
    if len(clients) > MAX_NAMED_CLIENTS:
        if any(result.denied for result in view.results):
            _draw_spreads(sheet, rest, view)
        return
    names = [view.traffic.names[client] for client in clients.tolist()] or ["no client"]
    groups = _group_results(view, box.width)
    for results, group in zip(groups, rest.split_rows(len(groups), COLUMN_GAP_IN), strict=True):
        _write_names(sheet, group, names)
        columns = group.inset(left=CLIENT_NAME_WIDTH_IN).split_columns(len(groups[0]), COLUMN_GAP_IN)
        for result, column in zip(results, columns[: len(results)], strict=True):
            _draw_bars(sheet, column, 1 - _compute_denied(result, clients), view.colors[result.algorithm])
            _write_header(sheet, column, result, view.colors[result.algorithm])


def _compose_heading(view: ComparisonView) -> str:
    clients = len(_rank_clients(view))
    if clients <= MAX_NAMED_CLIENTS:
        return "The part of each client's requests that was admitted (left) and denied (right)."
    if not any(result.denied for result in view.results):
        return f"There is nothing to show: all requests of {clients:,} clients were admitted."
    denied = "clients that were denied at least once, by the part of their requests that was denied"
    if max(result.clients_denied for result in view.results) <= MAX_CLIENT_DOTS:
        return f"The {denied}: a dot for each client, and a line at the median of these clients."
    return (
        f"The {denied}: the thin line holds all of these clients, the thick one half of them, and the upright one "
        "is their median."
    )


def _group_results(view: ComparisonView, width: float) -> list[tuple[Result, ...]]:
    """Return the results that are drawn side by side."""
    count = max(1, int((width - CLIENT_NAME_WIDTH_IN + COLUMN_GAP_IN) / (COLUMN_WIDTH_IN + COLUMN_GAP_IN)))
    return [view.results[start : start + count] for start in range(0, len(view.results), count)]


def _rank_clients(view: ComparisonView) -> NDArray[np.int64]:
    """Return the clients that sent requests, those with the most denials first."""
    offered = view.comparison.traffic.client_requests
    denied = np.max([result.client_offered - result.client_admitted for result in view.results], axis=0)
    ranked = np.argsort(-denied, kind="stable")
    return ranked[offered[ranked] > 0]


def _compute_denied(result: Result, clients: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.float64]:
    """Return the denied part of the requests of each of these clients; 0 for one without requests."""
    offered, admitted = result.client_offered[clients], result.client_admitted[clients]
    return np.asarray((offered - admitted) / np.maximum(1, offered))


# --- few clients: bars


def _write_names(sheet: Sheet, group: Box, names: list[str]) -> None:
    rows = group.inset(top=COLUMN_HEADER_IN, bottom=AXIS_IN).split_rows(len(names))
    for name, row in zip(names, rows, strict=True):
        sheet.write(
            row.left, row.top + row.height / 2, name, SMALL_PEN, sheet.theme.ink, width=CLIENT_NAME_WIDTH_IN - 0.1
        )


def _write_header(sheet: Sheet, column: Box, result: Result, color: str) -> None:
    denied = f"{result.clients_denied:,} denied" if result.clients_denied else "none denied"
    line = LABEL_PEN.line
    sheet.write(column.left, column.top + line / 2, result.algorithm, LABEL_PEN, color, width=column.width)
    sheet.write(column.left, column.top + line * 1.5, denied, SMALL_PEN, width=column.width)


def _draw_bars(sheet: Sheet, column: Box, shares: NDArray[np.float64], color: str) -> None:
    inner = column.inset(top=COLUMN_HEADER_IN, bottom=AXIS_IN)
    axes = sheet.add_axes(inner, 1, 0, max(1, len(shares)))
    axes.set_axis_off()
    rows = np.arange(len(shares)) + 0.5
    axes.barh(rows, 1, 0.7, color=sheet.theme.denied)
    axes.barh(rows, shares, 0.7, color=color)
    sheet.write(inner.left, inner.bottom + SMALL_PEN.line, "0", SMALL_PEN)
    sheet.write(inner.right, inner.bottom + SMALL_PEN.line, "100 %", SMALL_PEN, align="right")


# --- many clients: quantiles


def _draw_spreads(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a row for each algorithm, on a common axis of denied shares."""
    denied = {result.algorithm: _compute_denied(result) for result in view.results}
    largest = max(float(shares.max()) for shares in denied.values())
    limit = next(limit for limit in SHARE_LIMITS if largest <= limit)
    rows = box.inset(bottom=AXIS_IN).split_rows(len(view.results))
    as_dots = max(result.clients_denied for result in view.results) <= MAX_CLIENT_DOTS
    for result, row in zip(view.results, rows, strict=True):
        shares, color = denied[result.algorithm], view.colors[result.algorithm]
        shares, middle = shares[shares > 0], row.top + LABEL_PEN.line / 2
        median = f"; half of them lost at least {format_percent(float(np.median(shares)))}" if len(shares) else ""
        denied_clients = format_share(result.clients_denied, result.clients)
        note = f"{denied_clients} denied{median if sheet.is_wide else ''}"
        sheet.write(row.left, middle, result.algorithm, LABEL_PEN, color, width=row.width / 2)
        sheet.write(row.right, middle, note, align="right", width=row.width)
        axes = sheet.add_axes(row.inset(left=0.1, top=LABEL_PEN.line + 0.04, right=0.2, bottom=0.08), limit, 1)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        ticks = [limit * part / 5 for part in range(6)] if sheet.is_wide else [0, limit / 2, limit]
        axes.set_xticks(ticks, [format_percent(tick) for tick in ticks])
        axes.tick_params(labelbottom=row is rows[-1])
        axes.grid(axis="x", color=sheet.theme.grid, linewidth=0.6)
        if len(shares):
            _draw_spread(axes, shares, color, sheet.theme.ink, as_dots)


def _draw_spread(axes: Axes, shares: NDArray[np.float64], color: str, ink: str, as_dots: bool) -> None:
    low, first, median, third, high = np.quantile(shares, [0, 0.25, 0.5, 0.75, 1]).tolist()
    if as_dots:
        axes.plot(shares, np.full(len(shares), 0.5), "o", color=color, alpha=0.55, markersize=6, markeredgewidth=0,
                  clip_on=False)  # fmt: skip
    else:
        axes.plot([low, high], [0.5, 0.5], color=color, linewidth=1.5, clip_on=False)
        axes.plot([first, third], [0.5, 0.5], color=color, linewidth=8, solid_capstyle="butt", alpha=0.6)
    axes.plot([median, median], [0.1, 0.9], color=ink, linewidth=2)
