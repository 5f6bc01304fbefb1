"""Denials chart: when each of the most denied clients was denied, by algorithm."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgba
from numpy.typing import NDArray

from ratelab.lab.spill import Integers
from ratelab.quota import about
from ratelab.report.charts.canvas import LABEL_PEN, SMALL_PEN, Box, Sheet, measure_heading
from ratelab.report.charts.view import ComparisonView, compute_axis_height
from ratelab.report.numbers import format_part, group_by_value, pluralize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_ROWS = 8
"""Clients that have a row; the others share one."""

MIN_OPACITY = 0.3
"""Opacity of the color for a single denial."""

ROW_HEIGHT_IN, PANEL_GAP_IN = 0.17, 0.12
NAME_WIDTH_IN, COUNT_WIDTH_IN = 1.5, 0.6


def compose_title(view: ComparisonView) -> str:
    """State which client was denied most, and how often by each algorithm."""
    denied = _count_denied(view)
    if not denied.any():
        return "No algorithm denied a request."
    client = int(denied.max(axis=0).argmax())
    counts = zip((result.algorithm for result in view.results), denied[:, client].tolist(), strict=True)
    (most, names), *others = group_by_value(counts)
    rest = "".join(f", {group} {count:,}" if count else f", {group} none" for count, group in others)
    part = format_part(most, int(view.traffic.client_requests[client]), "request")
    name = LABEL_PEN.truncate(view.traffic.names[client], 2.0)
    return f"{name} was denied most: {names} denied {part}{rest}."


def compute_height(view: ComparisonView, width: float) -> float:
    """Return the height of the chart in inches."""
    if not _list_rows(view):
        return measure_heading(_compose_heading(view), width)
    panel = LABEL_PEN.line + ROW_HEIGHT_IN * len(_list_rows(view)) + PANEL_GAP_IN
    heading = measure_heading(_compose_heading(view), width)
    return heading + panel * len(view.results) - PANEL_GAP_IN + compute_axis_height(view.whole)


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a panel for each algorithm, with a row for each client: the stronger a color, the more denials."""
    rows, edges = _list_rows(view), view.whole.split()
    if not rows:
        sheet.write_heading(box, _compose_heading(view))
        return
    counts = [_count_by_time(view, number, rows, edges) for number in range(len(view.results))]
    largest = max((int(count.max(initial=0)) for count in counts), default=0)
    rest = sheet.write_heading(box, _compose_heading(view)).inset(bottom=compute_axis_height(view.whole))
    panels = rest.split_rows(len(view.results), PANEL_GAP_IN)
    name_width = min(NAME_WIDTH_IN, box.width / 4)
    for result, panel, count in zip(view.results, panels, counts, strict=True):
        color, middle = view.colors[result.algorithm], panel.top + LABEL_PEN.line / 2
        sheet.write(panel.left, middle, result.algorithm, LABEL_PEN, color, width=panel.width * 0.3)
        clients = f" of {pluralize(result.clients_denied, 'client')}" if result.denied else ""
        note = f"{pluralize(result.denied, 'request')}{clients} denied"
        sheet.write(panel.right, middle, note, align="right", width=panel.width * 0.7)
        inner = panel.inset(left=name_width, top=LABEL_PEN.line, right=COUNT_WIDTH_IN)
        axes = sheet.add_axes(inner, view.whole.length, 0, len(rows))
        axes.set_yticks([])
        sheet.set_time_ticks(axes, view.whole, labeled=panel is panels[-1])
        _draw_cells(axes, view.whole.scale(edges), count, color, largest)
        for (name, _), line, row in zip(rows, inner.split_rows(len(rows)), count, strict=True):
            middle = line.top + line.height / 2
            sheet.write(panel.left, middle, name, SMALL_PEN, sheet.theme.ink, width=name_width - 0.1)
            sheet.write(panel.right, middle, f"{int(row.sum()):,}", SMALL_PEN, align="right", width=COUNT_WIDTH_IN)


def _draw_cells(axes: Axes, edges: NDArray[np.float64], counts: Integers, color: str, largest: int) -> None:
    """Draw a rectangle for each time and client with denials."""
    widths = np.diff(edges)
    for number, row in enumerate(counts):
        places = np.flatnonzero(row)
        shades = [MIN_OPACITY + (1 - MIN_OPACITY) * log(count) / log(max(2, largest)) for count in row[places].tolist()]
        spans = list(zip(edges[places].tolist(), widths[places].tolist(), strict=True))
        axes.broken_barh(
            spans, (number + 0.08, 0.84), facecolors=[to_rgba(color, min(1, shade)) for shade in shades], linewidth=0
        )


def _count_denied(view: ComparisonView) -> Integers:
    """Return the denied requests, by algorithm and client."""
    return np.array([result.client_offered - result.client_admitted for result in view.results])


def _list_rows(view: ComparisonView) -> list[tuple[str, Integers]]:
    """Return the name and the clients of each row: the most denied clients, and all the others that were denied."""
    denied = _count_denied(view).max(axis=0)
    ranked = np.argsort(-denied, kind="stable")[: np.count_nonzero(denied)]
    rows = [(view.traffic.names[client], np.array([client])) for client in ranked[:MAX_ROWS].tolist()]
    others = ranked[MAX_ROWS:]
    return [*rows, *([(f"{len(others):,} others", others)] if len(others) else [])]


def _count_by_time(view: ComparisonView, number: int, rows: list[tuple[str, Integers]], edges: Integers) -> Integers:
    """Return the denied requests by row and time."""
    row_of_client = np.full(len(view.traffic.names), -1)
    for row, (_, clients) in enumerate(rows):
        row_of_client[clients] = row
    denied = ~view.comparison.outcomes[number].decisions["allowed"]
    places = np.searchsorted(edges, view.traffic.times[denied], side="right") - 1
    counts = np.zeros((len(rows), len(edges) - 1), np.int64)
    np.add.at(counts, (row_of_client[view.traffic.clients[denied]], np.minimum(places, len(edges) - 2)), 1)
    return counts


def _compose_heading(view: ComparisonView) -> str:
    if not _list_rows(view):
        return "There is nothing to show: every request was admitted."
    length = about(view.whole.part_length)
    return (
        f"Requests denied to the clients that were denied most, in parts of {length}: the stronger a color, the more. "
        "The numbers at the right are totals."
    )
