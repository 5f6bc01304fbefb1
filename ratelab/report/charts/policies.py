"""Policies chart: the bound chart, and the requests that each policy bound and the quota that it lost."""

from __future__ import annotations

from ratelab.report.charts import bound
from ratelab.report.charts.canvas import LABEL_PEN, Box, Sheet, measure_heading
from ratelab.report.charts.comparison import PART_GAP_IN
from ratelab.report.charts.outcome import BAR_HEIGHT_IN
from ratelab.report.charts.policy_view import PolicyView, name_way

NAME_WIDTH_IN, COUNT_WIDTH_IN, MIN_BAR_WIDTH_IN = 1.2, 0.85, 1.5
COUNTS = ("admitted", "denied", "burned")

compose_title = bound.compose_title


def compute_height(view: PolicyView, width: float) -> float:
    """Return the height of the picture in inches."""
    rows = len(view.results) * (1 if _fits_beside(width) else 2)
    bars = measure_heading(_compose_heading(view), width) + LABEL_PEN.line + BAR_HEIGHT_IN * rows
    return bound.compute_height(view, width) + PART_GAP_IN + bars


def _fits_beside(width: float) -> bool:
    """Return whether the counts fit next to the bars."""
    return width - NAME_WIDTH_IN - len(COUNTS) * COUNT_WIDTH_IN >= MIN_BAR_WIDTH_IN


def paint(sheet: Sheet, box: Box, view: PolicyView) -> None:
    """Draw the bound chart, and below it a bar for each way to enforce the policies."""
    top = bound.compute_height(view, box.width)
    bound.paint(sheet, box._replace(height=top), view)
    rest = sheet.write_heading(box.inset(top=top + PART_GAP_IN), _compose_heading(view))
    rights = [rest.right - n * COUNT_WIDTH_IN for n in reversed(range(len(COUNTS)))]
    for right, label in zip(rights, COUNTS, strict=True):
        sheet.write(right, rest.top + LABEL_PEN.line / 2, label, align="right", width=COUNT_WIDTH_IN)
    offered = max(1, len(view.traffic))
    rows = rest.inset(top=LABEL_PEN.line).split_rows(len(view.results))
    for result, row in zip(view.policies.results, rows, strict=True):
        beside = _fits_beside(box.width)
        line = row if beside else row.split_rows(2)[0]
        whole, middle = result.whole, line.top + line.height / 2
        name = name_way(result, view.policies)
        sheet.write(row.left, middle, name, LABEL_PEN, sheet.theme.ink, width=NAME_WIDTH_IN - 0.1)
        for right, count in zip(rights, (whole.result.admitted, whole.result.denied, whole.burned), strict=True):
            sheet.write(
                right, middle, f"{count:,}", LABEL_PEN, sheet.theme.ink if count else "", "right", COUNT_WIDTH_IN
            )
        bar = row.inset(NAME_WIDTH_IN, 0.03, len(COUNTS) * COUNT_WIDTH_IN, 0.03) if beside else row.split_rows(2)[1]
        axes = sheet.add_axes(bar if beside else bar.inset(bottom=0.08), offered, 1)
        axes.set_axis_off()
        axes.barh(0.5, whole.result.admitted, 1, color=sheet.theme.quiet)
        left = whole.result.admitted
        for _, policy in view.list_enforcing(result):
            axes.barh(0.5, policy.bound, 1, left, color=view.colors[policy.label])
            left += policy.bound


def _compose_heading(view: PolicyView) -> str:
    burned = " Burned: the cost charged for requests that another policy denied."
    return f"What became of the requests.{burned if any(r.whole.burned for r in view.policies.results) else ''}"
