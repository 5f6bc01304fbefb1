"""Fairness chart: the fraction of its requests that each client was granted, by algorithm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.metrics import Result
from ratelab.report.charts.canvas import LABEL_PEN, Box, Sheet
from ratelab.report.charts.text import Pen
from ratelab.report.charts.view import HEADING_IN, ComparisonView
from ratelab.report.numbers import join_names

MAX_NAMED_CLIENTS = 16
"""Clients that each get a bar with a name; for more, the bars are ranked and have no names."""

MAX_RANKED_BARS = 200
"""Bars of ranked clients; for more clients, each bar shows the worst served of a group."""

MIN_SHARE_DENIED = 1 / 4
"""Fraction of clients denied below which the other clients are left out, so that these are visible."""

MAX_COLUMNS = 5
"""Algorithms side by side."""

CLIENT_NAME_WIDTH_IN = 1.3
COLUMN_HEADER_IN = 0.55
COLUMN_SCALE_IN = 0.3
"""Height for the scale below the bars."""
NAMED_BAR_HEIGHT_IN, RANKED_BARS_HEIGHT_IN = 0.2, 2.2
COLUMN_GAP_IN = 0.15

SMALL_PEN = Pen(8)


def compose_title(view: ComparisonView) -> str:
    """State how many clients were denied, and the fairness of the algorithms."""
    clients = len(_rank_clients(view))
    if clients < 2:
        return "There is at most one client, so there is no fairness to compare."
    denied = {result.algorithm: result.clients_denied for result in view.results}
    low, high = min(denied.values()), max(denied.values())
    if not high:
        return f"No algorithm denied any of {clients:,} clients."
    strict, lenient = ([name for name, count in denied.items() if count == extreme] for extreme in (high, low))
    subject = join_names(strict) if low < high else "Every algorithm"
    others = f", {join_names(lenient)} {f'{low:,}' if low else 'none'}" if low < high else ""
    fairness = sorted({f"{result.fairness:.2f}" for result in view.results})
    extremes = " to ".join(fairness[:: max(1, len(fairness) - 1)])
    return f"{subject} denied {high:,} of {clients:,} clients at least once{others}; fairness is {extremes}."


def compute_height(view: ComparisonView) -> float:
    """Return the height of the chart in inches."""
    groups = -(-len(view.results) // MAX_COLUMNS)
    clients = len(_rank_clients(view))
    bars = RANKED_BARS_HEIGHT_IN if clients > MAX_NAMED_CLIENTS else NAMED_BAR_HEIGHT_IN * max(1, clients)
    return HEADING_IN + groups * (COLUMN_HEADER_IN + bars + COLUMN_SCALE_IN) + (groups - 1) * COLUMN_GAP_IN


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a column of bars for each algorithm, with the clients that are denied most at the top."""
    clients = _rank_clients(view)
    shown = _count_shown(view, len(clients))
    sheet.write(box.left, box.top + 0.08, "admitted fraction of each client's requests; clients denied at least once")
    groups = [view.results[start : start + MAX_COLUMNS] for start in range(0, len(view.results), MAX_COLUMNS)]
    for results, group in zip(groups, box.inset(top=HEADING_IN).split_rows(len(groups), COLUMN_GAP_IN), strict=True):
        if len(clients) > MAX_NAMED_CLIENTS:
            last = "best served" if shown == len(clients) else f"rank {shown:,} of {len(clients):,}"
            names = ["worst served", *[""] * 10, last]
        else:
            names = [view.comparison.traffic.names[client] for client in clients.tolist()] or ["no client"]
        _write_names(sheet, group, names)
        columns = group.inset(left=CLIENT_NAME_WIDTH_IN).split_columns(
            min(MAX_COLUMNS, len(view.results)), COLUMN_GAP_IN
        )
        for result, column in zip(results, columns[: len(results)], strict=True):
            color = view.colors[result.algorithm]
            _draw_bars(sheet, column, _compute_shares(result, clients, shown), color, len(clients))
            _write_header(sheet, column, result, color)


def _rank_clients(view: ComparisonView) -> NDArray[np.int64]:
    """Return the clients that sent requests, those with the most denials first."""
    offered = view.comparison.traffic.client_requests
    denied = np.max([result.client_offered - result.client_admitted for result in view.results], axis=0)
    ranked = np.argsort(-denied, kind="stable")
    return ranked[offered[ranked] > 0]


def _count_shown(view: ComparisonView, clients: int) -> int:
    """Return the number of clients to show, the worst served first."""
    denied = max(result.clients_denied for result in view.results)
    return max(MAX_NAMED_CLIENTS, denied) if 0 < denied < clients * MIN_SHARE_DENIED else clients


def _compute_shares(result: Result, clients: NDArray[np.int64], shown: int) -> NDArray[np.float64]:
    """Return the admitted fraction for each bar: those of the clients in order, or if there are many, ranked."""
    shares: NDArray[np.float64] = result.client_admitted[clients] / result.client_offered[clients]
    if len(clients) <= MAX_NAMED_CLIENTS:
        return shares
    bars = min(shown, MAX_RANKED_BARS)
    return np.sort(shares)[np.arange(bars) * shown // bars]


def _write_names(sheet: Sheet, group: Box, names: list[str]) -> None:
    rows = group.inset(top=COLUMN_HEADER_IN, bottom=COLUMN_SCALE_IN).split_rows(len(names))
    for name, row in zip(names, rows, strict=True):
        sheet.write(
            row.left, row.top + row.height / 2, name, SMALL_PEN, sheet.theme.ink, width=CLIENT_NAME_WIDTH_IN - 0.1
        )


def _write_header(sheet: Sheet, column: Box, result: Result, color: str) -> None:
    fairness = "-" if result.fairness is None else f"{result.fairness:.2f}"
    denied = f"{result.clients_denied:,} denied" if result.clients_denied else "none denied"
    line = LABEL_PEN.line
    sheet.write(column.left, column.top + line / 2, result.algorithm, LABEL_PEN, color, width=column.width)
    sheet.write(column.left, column.top + line * 1.5, f"fairness {fairness}", SMALL_PEN, width=column.width)
    sheet.write(column.left, column.top + line * 2.4, denied, SMALL_PEN, width=column.width)


def _draw_bars(sheet: Sheet, column: Box, shares: NDArray[np.float64], color: str, clients: int) -> None:
    inner = column.inset(top=COLUMN_HEADER_IN, bottom=COLUMN_SCALE_IN)
    axes = sheet.add_axes(inner, 1, 0, max(1, len(shares)))
    axes.set_axis_off()
    if clients > MAX_NAMED_CLIENTS:
        axes.stairs(np.ones(len(shares)), orientation="horizontal", fill=True, color=sheet.theme.denied, linewidth=0)
        axes.stairs(shares, orientation="horizontal", fill=True, color=color, linewidth=0)
    else:
        rows = np.arange(len(shares)) + 0.5
        axes.barh(rows, 1, 0.7, color=sheet.theme.denied)
        axes.barh(rows, shares, 0.7, color=color)
    sheet.write(inner.left, inner.bottom + SMALL_PEN.line, "0", SMALL_PEN)
    sheet.write(inner.right, inner.bottom + SMALL_PEN.line, "100 %", SMALL_PEN, align="right")
