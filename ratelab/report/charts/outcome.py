"""Outcome chart: the numbers of requests that each algorithm admitted at once, delayed and denied."""

from __future__ import annotations

from ratelab.lab.metrics import Result
from ratelab.quota import about
from ratelab.report.charts.canvas import LABEL_PEN, Box, Sheet, measure_heading
from ratelab.report.charts.style import DELAYED_OPACITY
from ratelab.report.charts.view import ComparisonView
from ratelab.report.numbers import pluralize
from ratelab.report.summary import describe_denials

BAR_HEIGHT_IN = 0.26
BAR_NAME_WIDTH_IN, COUNT_WIDTH_IN, MIN_BAR_WIDTH_IN = 1.45, 0.85, 1.5
TOO_LATE_OPACITY = 0.15
"""Opacity of the color for requests that are delayed beyond the client timeout."""


def compose_title(view: ComparisonView) -> str:
    """State how many requests were denied and how many were delayed."""
    return describe_denials(view.comparison)


def compute_height(view: ComparisonView, width: float) -> float:
    """Return the height of the chart in inches."""
    rows = len(view.results) * (1 if _fits_beside(view, width) else 2)
    return measure_heading(_compose_heading(view), width) + LABEL_PEN.line + 0.1 + BAR_HEIGHT_IN * rows


def paint(sheet: Sheet, box: Box, view: ComparisonView) -> None:
    """Draw a bar for each algorithm, and its counts to the right or, if the sheet is narrow, above it."""
    offered, labels = len(view.traffic), _list_labels(view)
    inner = sheet.write_heading(box, _compose_heading(view))
    width = COUNT_WIDTH_IN if _fits_beside(view, box.width) else (box.width - 1.1) / len(labels)
    rights = [box.right - columns * width for columns in reversed(range(len(labels)))]
    for right, label in zip(rights, labels, strict=True):
        sheet.write(right, inner.top + LABEL_PEN.line / 2, label, align="right", width=width)
    rows = inner.inset(top=LABEL_PEN.line + 0.1).split_rows(len(view.results))
    for result, row in zip(view.results, rows, strict=True):
        beside = _fits_beside(view, box.width)
        line = row if beside else row.split_rows(2)[0]
        bar = row.inset(BAR_NAME_WIDTH_IN, 0.03, len(labels) * width, 0.03) if beside else row.split_rows(2)[1]
        middle, color, counts = line.top + line.height / 2, view.colors[result.algorithm], _list_counts(result, labels)
        sheet.write(row.left, middle, result.algorithm, LABEL_PEN, color, width=BAR_NAME_WIDTH_IN - 0.1)
        for right, count in zip(rights, counts, strict=True):
            sheet.write(right, middle, f"{count:,}", LABEL_PEN, sheet.theme.ink if count else "", "right", width)
        axes = sheet.add_axes(bar if beside else bar.inset(bottom=0.08), max(1, offered), 1)
        axes.set_axis_off()
        left, opacities = 0, {"delayed": DELAYED_OPACITY, "too late": TOO_LATE_OPACITY}
        for label, count in zip(labels, counts, strict=True):
            fill = sheet.theme.denied if label == "denied" else color
            axes.barh(0.5, count, 1, left, color=fill, alpha=opacities.get(label, 1))
            left += count


def _fits_beside(view: ComparisonView, width: float) -> bool:
    """Return whether the counts fit next to the bars."""
    return width - BAR_NAME_WIDTH_IN - len(_list_labels(view)) * COUNT_WIDTH_IN >= MIN_BAR_WIDTH_IN


def _list_labels(view: ComparisonView) -> list[str]:
    late = ["too late"] if any(result.timed_out for result in view.results) else []
    return ["at once", "delayed", *late, "denied"]


def _list_counts(result: Result, labels: list[str]) -> list[int]:
    counts = {
        "at once": result.admitted - result.delayed,
        "delayed": result.delayed - result.timed_out,
        "too late": result.timed_out,
        "denied": result.denied,
    }
    return [counts[label] for label in labels]


def _compose_heading(view: ComparisonView) -> str:
    sentence = f"What became of {pluralize(len(view.traffic), 'request')} under each algorithm."
    if not any(result.timed_out for result in view.results):
        return sentence
    return f"{sentence} Too late: delayed beyond the client timeout of {about(view.comparison.client_timeout)}."
