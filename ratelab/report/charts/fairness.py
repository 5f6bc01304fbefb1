"""How much of what it asked for each client was given, by each algorithm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.metrics import Result
from ratelab.report.charts.canvas import LABEL, Box, Sheet
from ratelab.report.charts.text import Pen
from ratelab.report.charts.view import ComparisonView
from ratelab.report.summary import join_names

MOST_NAMED = 16
"""Clients that get a bar and a name each; of more, their shares are drawn in order."""
MOST_DRAWN = 200
"""Of more than so many, as many parts are drawn, from the worst to the best served, each as its worst."""
MANY_MORE = 4
"""Times as many clients as were denied from which on the others are not drawn."""
ABREAST = 5
NAMES, HEAD, FOOT, EACH, MANY, GAP = 1.3, 0.55, 0.3, 0.2, 2.2, 0.15
SMALL = Pen(8)


def finding(view: ComparisonView) -> str:
    """Say how many clients were denied, and how evenly all were admitted."""
    clients = len(_asking(view))
    if clients < 2:
        return "There is one client at most, so nobody fares worse than another."
    denied = {result.algorithm: result.clients_denied for result in view.results}
    fairness = sorted({f"{result.fairness:.2f}" for result in view.results})
    least, most = min(denied.values()), max(denied.values())
    harsh, mild = ([name for name, count in denied.items() if count == end] for end in (most, least))
    if not most:
        return f"No algorithm denied any of {clients:,} clients."
    who = join_names(harsh) if least < most else "Each algorithm"
    rest = f", {join_names(mild)} {f'{least:,}' if least else 'none'}" if least < most else ""
    index = " to ".join(fairness[:: max(1, len(fairness) - 1)])
    return f"{who} denied {most:,} of {clients:,} clients at least once{rest}; fairness is {index}."


def height(view: ComparisonView) -> float:
    """Return the height of the chart in inches."""
    groups = -(-len(view.results) // ABREAST)
    return 0.3 + groups * (HEAD + _body(view) + FOOT) + (groups - 1) * GAP


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a column of bars for each algorithm, the clients that are denied most at the top."""
    clients = _asking(view)
    many, worst = len(clients) > MOST_NAMED, _worst(view, len(clients))
    sheet.text(
        box.left,
        box.top + 0.08,
        "what share of its requests each client was admitted, and how many clients were ever denied",
    )
    groups = [view.results[start : start + ABREAST] for start in range(0, len(view.results), ABREAST)]
    for results, group in zip(groups, box.inset(top=0.3).rows(len(groups), GAP), strict=True):
        if many:
            last = "best served" if worst == len(clients) else f"rank {worst:,} of {len(clients):,}"
            _name(sheet, group, ["worst served", *[""] * 10, last])
        else:
            _name(
                sheet, group, [view.comparison.traffic.names[client] for client in clients.tolist()] or ["nobody asked"]
            )
        columns = group.inset(left=NAMES).columns(min(ABREAST, len(view.results)), GAP)
        for result, column in zip(results, columns[: len(results)], strict=True):
            _column(sheet, column, _shares(result, clients, worst), many, view.colours[result.algorithm])
            _head(sheet, column, result, view.colours[result.algorithm])


def _asking(view: ComparisonView) -> NDArray[np.int64]:
    """Return the clients that asked for anything, the most often denied first."""
    offered = view.comparison.traffic.client_requests
    denied = np.max([result.client_offered - result.client_admitted for result in view.results], axis=0)
    ranked = np.argsort(-denied, kind="stable")
    return ranked[offered[ranked] > 0]


def _body(view: ComparisonView) -> float:
    clients = len(_asking(view))
    return MANY if clients > MOST_NAMED else EACH * max(1, clients)


def _name(sheet: Sheet, group: Box, names: list[str]) -> None:
    for name, row in zip(names, group.inset(top=HEAD, bottom=FOOT).rows(len(names)), strict=True):
        sheet.text(row.left, row.top + row.height / 2, name, SMALL, sheet.theme.ink, width=NAMES - 0.1)


def _worst(view: ComparisonView, clients: int) -> int:
    """Return how many clients are shown, the worst served first: all, unless so few were denied that they were lost."""
    denied = max(result.clients_denied for result in view.results)
    return max(MOST_NAMED, denied) if 0 < denied < clients / MANY_MORE else clients


def _shares(result: Result, clients: NDArray[np.int64], worst: int) -> NDArray[np.float64]:
    """Return the shares to draw: each client's in turn, or of many those of parts, from the worst on."""
    shares: NDArray[np.float64] = result.client_admitted[clients] / result.client_offered[clients]
    if len(clients) <= MOST_NAMED:
        return shares
    parts = min(worst, MOST_DRAWN)
    return np.sort(shares)[np.arange(parts) * worst // parts]


def _head(sheet: Sheet, box: Box, result: Result, colour: str) -> None:
    index = "-" if result.fairness is None else f"{result.fairness:.2f}"
    denied = f"{result.clients_denied:,} denied" if result.clients_denied else "nobody denied"
    sheet.text(box.left, box.top + LABEL.line / 2, result.algorithm, LABEL, colour, width=box.width)
    sheet.text(box.left, box.top + LABEL.line * 1.5, f"fairness {index}", SMALL, width=box.width)
    sheet.text(box.left, box.top + LABEL.line * 2.4, denied, SMALL, width=box.width)


def _column(sheet: Sheet, box: Box, shares: NDArray[np.float64], many: bool, colour: str) -> None:
    place = box.inset(top=HEAD, bottom=FOOT)
    axes = sheet.axes(place, 1, 0, max(1, len(shares)))
    axes.set_axis_off()
    if many:
        axes.stairs(np.ones(len(shares)), orientation="horizontal", fill=True, color=sheet.theme.denied, linewidth=0)
        axes.stairs(shares, orientation="horizontal", fill=True, color=colour, linewidth=0)
    else:
        rows = np.arange(len(shares)) + 0.5
        axes.barh(rows, 1, 0.7, color=sheet.theme.denied)
        axes.barh(rows, shares, 0.7, color=colour)
    sheet.text(place.left, place.bottom + SMALL.line, "0", SMALL)
    sheet.text(place.right, place.bottom + SMALL.line, "100 %", SMALL, align="right")
