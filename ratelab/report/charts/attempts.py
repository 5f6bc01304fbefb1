"""Attempts chart: the requests of each run, by what became of them after how many tries."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ratelab.lab.closed_loop.figures import LoopResult
from ratelab.lab.closed_loop.outcome import GAVE_UP, PENDING, SUCCESS
from ratelab.report.charts.canvas import LABEL_PEN, Box, Sheet, measure_heading
from ratelab.report.charts.loop_view import LoopView
from ratelab.report.charts.outcome import BAR_HEIGHT_IN
from ratelab.report.loop_findings import describe_served, describe_tries
from ratelab.report.numbers import format_factor, format_percent

OPACITIES = (1.0, 0.68, 0.46, 0.32, 0.22)
"""Opacities of the color for requests served after one try, two and so on; the last for all further tries."""

NAME_WIDTH_IN, MAX_NAME_WIDTH_IN, COUNT_WIDTH_IN, MIN_BAR_WIDTH_IN = 1.45, 2.2, 0.85, 1.5
BAR_FIGURES = ("tries each", "at first", "served", "gave up")


def compose_title(view: LoopView) -> str:
    """State how many tries a request took, and how many requests clients gave up."""
    return " ".join(describe_tries(view.comparison)) or f"One try each: {describe_served(view.comparison)}"


def compute_height(view: LoopView, width: float) -> float:
    """Return the height of the chart in inches."""
    rows = len(view.results) * (1 if _fits_beside(view, width) else 2)
    return measure_heading(_compose_heading(view), width) + LABEL_PEN.line + 0.1 + BAR_HEIGHT_IN * rows


def paint(sheet: Sheet, box: Box, view: LoopView) -> None:
    """Draw a bar for each run, and its figures to the right or, if the sheet is narrow, above it."""
    inner = sheet.write_heading(box, _compose_heading(view))
    beside = _fits_beside(view, box.width)
    name_width = _measure_names(view) if beside else NAME_WIDTH_IN
    width = COUNT_WIDTH_IN if beside else (box.width - 1.1) / len(BAR_FIGURES)
    rights = [box.right - columns * width for columns in reversed(range(len(BAR_FIGURES)))]
    for right, label in zip(rights, BAR_FIGURES, strict=True):
        sheet.write(right, inner.top + LABEL_PEN.line / 2, label, align="right", width=width)
    rows = inner.inset(top=LABEL_PEN.line + 0.1).split_rows(len(view.results))
    for result, (name, color), row in zip(view.results, view.names, rows, strict=True):
        line = row if beside else row.split_rows(2)[0]
        bar = row.inset(name_width, 0.03, len(BAR_FIGURES) * width, 0.03) if beside else row.split_rows(2)[1]
        middle = line.top + line.height / 2
        sheet.write(row.left, middle, name, LABEL_PEN, color, width=name_width - 0.1)
        for right, text in zip(rights, _list_figures(result), strict=True):
            sheet.write(right, middle, text, LABEL_PEN, sheet.theme.ink, "right", width)
        axes = sheet.add_axes(bar if beside else bar.inset(bottom=0.08), max(1, result.first_tries), 1)
        axes.set_axis_off()
        left = 0
        for count, opacity in _list_parts(result):
            axes.barh(0.5, count, 1, left, color=color, alpha=opacity, linewidth=0)
            left += count
        for kind, fill in ((GAVE_UP, sheet.theme.denied), (PENDING, sheet.theme.grid)):
            count = int(result.requests_by_tries[kind].sum())
            axes.barh(0.5, count, 1, left, color=fill, linewidth=0)
            left += count


def _list_parts(result: LoopResult) -> Iterator[tuple[int, float]]:
    """Yield the requests served after one try, two and so on, and the opacities of their color."""
    served = result.requests_by_tries[SUCCESS][1:].tolist()
    for number, opacity in enumerate(OPACITIES):
        is_last = number == len(OPACITIES) - 1
        yield sum(served[number:] if is_last else served[number : number + 1]), opacity


def _list_figures(result: LoopResult) -> list[str]:
    at_first = int(np.append(result.requests_by_tries[SUCCESS], [0, 0])[1])
    whole = max(1, result.first_tries)
    shares = (at_first, result.successes, result.gave_up)
    return [format_factor(result.amplification), *(format_percent(count / whole) for count in shares)]


def _measure_names(view: LoopView) -> float:
    """Return the width of the names next to the bars."""
    longest = max(LABEL_PEN.measure(name) for name, _ in view.names)
    return min(max(NAME_WIDTH_IN, longest + 0.15), MAX_NAME_WIDTH_IN)


def _fits_beside(view: LoopView, width: float) -> bool:
    """Return whether the figures fit next to the bars."""
    return width - _measure_names(view) - len(BAR_FIGURES) * COUNT_WIDTH_IN >= MIN_BAR_WIDTH_IN


def _compose_heading(view: LoopView) -> str:
    others = [("given up (gray)", "gave_up"), ("pending (light gray)", "pending")]
    rest = [text for text, name in others if any(getattr(result, name) for result in view.results)]
    return (
        ", ".join(["Requests served at the first try (full color) or later (the paler, the more tries)", *rest]) + "."
    )
