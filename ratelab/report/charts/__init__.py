"""Charts of comparisons and sweeps.

Each name in `CHARTS` is a module of this package. It defines `compose_title`, `compute_height` and `paint`, and is
imported, with matplotlib, when its chart is drawn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ratelab.lab import CHARTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ratelab.lab.closed_loop.figures import LoopComparison
    from ratelab.lab.comparison import Comparison
    from ratelab.lab.policies.figures import PolicyComparison
    from ratelab.lab.sweep import SweepResult
    from ratelab.lab.tune import Tuning
    from ratelab.report.charts.loop_view import LoopView
    from ratelab.report.charts.view import ComparisonView

THEME_NAMES = ("light", "dark")

SUBJECTS = {
    "comparison": "The algorithms compared",
    "cumulative": "Requests that arrived and were let through, added up",
    "timeline": "Requests admitted, delayed and denied, over time",
    "window": "Requests let through in the window that ends at each moment",
    "outcome": "Requests admitted, delayed and denied",
    "level": "The quota left to grant, over time",
    "fairness": "How much of its requests each client was denied",
    "denials": "Denials by client and time",
    "policies": "The policies together",
    "bound": "Requests admitted and denied over time, by the policy that bound them",
    "left": "The quota left in each policy, over time",
    "loop": "Clients that react to their answers",
    "goodput": "Tries that arrive and successes, over time",
    "attempts": "What became of the requests, by their number of tries",
    "time-to-success": "Time from the first try of a request to its success",
}
"""The subject of each chart, as a heading that is true of every comparison."""

LAYOUTS = ("wide", "narrow")
"""Layouts of charts: for a page, and for a phone."""

IMAGE_FORMATS = ("png", "svg", "pdf")

__all__ = [
    "CHARTS",
    "IMAGE_FORMATS",
    "LAYOUTS",
    "SUBJECTS",
    "THEME_NAMES",
    "draw",
    "draw_sweep",
    "draw_tuning",
    "render_figure",
]


def draw(
    comparison: Comparison | PolicyComparison | LoopComparison, chart: str = "comparison", theme: str = "light",
    caption: str = "", layout: str = "wide", bare: bool = False,
) -> Figure:  # fmt: skip
    """Draw a chart of `CHARTS`, of `POLICY_CHARTS` for several policies, or of `LOOP_CHARTS` for a closed loop.

    Its title states the finding, `caption` describes the traffic.

    All five fields of each decision must be in memory. The figure is 8 inches wide, or 4.2 with the layout `narrow`,
    and as high as the chart needs. A `bare` one has neither a title nor a caption.
    """
    from ratelab.report.charts.canvas import MARGIN_IN, Sheet, use_chart_style

    width = get_width(layout)
    module = import_module(f"{__name__}.{chart.replace('-', '_')}")
    view, conditions, empty = _open_view(comparison, theme)
    title = empty or module.compose_title(view)
    with use_chart_style():
        height = module.compute_height(view, width - 2 * MARGIN_IN)
        lines = "" if bare else f"{caption}\n{conditions}".strip()
        sheet = Sheet(title, lines, height, theme, width, bare)
        module.paint(sheet, sheet.body, view)
    return sheet.figure


def _open_view(
    comparison: Comparison | PolicyComparison | LoopComparison, theme: str
) -> tuple[ComparisonView | LoopView, str, str]:
    """Return the view of a comparison, its conditions and, if there is nothing to compare, a title that states it."""
    from ratelab.lab.comparison import Comparison
    from ratelab.report.numbers import is_dated

    if isinstance(comparison, Comparison):
        from ratelab.report.charts.view import ComparisonView
        from ratelab.report.summary import describe_run, summarize

        zone = "; UTC" if is_dated(comparison.traffic) else ""
        conditions = describe_run(comparison.traffic, comparison.quota).replace("\n", "; ")
        empty = "" if len(comparison.traffic) else summarize(comparison)[0]
        return ComparisonView(comparison, theme), conditions + zone, empty
    from ratelab.lab.policies.figures import PolicyComparison  # only for several policies

    if isinstance(comparison, PolicyComparison):
        from ratelab.report.charts.policy_view import PolicyView
        from ratelab.report.policies import list_conditions, summarize_policies

        zone = "; UTC" if is_dated(comparison.traffic) else ""
        policies = PolicyView.of(comparison, theme)
        has_denials = any(result.denied for result in policies.results)
        empty = "" if len(comparison.traffic) and has_denials else summarize_policies(comparison)[0]
        return policies, "; ".join(list_conditions(comparison)) + zone, empty
    from ratelab.report.charts.loop_view import LoopView, list_loop_conditions
    from ratelab.report.loop_findings import summarize_loops

    empty = "" if any(result.first_tries for result in comparison.results) else summarize_loops(comparison)[0]
    return LoopView(comparison, theme), "; ".join(list_loop_conditions(comparison)), empty


def draw_sweep(result: SweepResult, theme: str = "light", caption: str = "", layout: str = "wide") -> Figure:
    """Draw the denials under each quota: the title states the lowest sufficient one, `caption` describes the sweep."""
    from ratelab.report.charts.canvas import MARGIN_IN, Sheet, use_chart_style
    from ratelab.report.charts.sweep import compute_height, paint
    from ratelab.report.sweep import describe_sweep

    width = get_width(layout)
    with use_chart_style():
        height = compute_height(result, width - 2 * MARGIN_IN)
        sheet = Sheet(describe_sweep(result), caption, height, theme, width)
        paint(sheet, sheet.body, result, theme)
    return sheet.figure


def draw_tuning(
    tuning: Tuning, theme: str = "light", caption: str = "", layout: str = "wide", bare: bool = False
) -> Figure:
    """Draw the bursts that rates need: the title states the recommended quota, `caption` describes the traffic.

    A `bare` one has neither a title nor a caption.
    """
    from ratelab.report.charts.canvas import MARGIN_IN, Sheet, use_chart_style
    from ratelab.report.charts.tune import compute_height, paint
    from ratelab.report.tune import describe_recommendation

    width = get_width(layout)
    with use_chart_style():
        title = " ".join(describe_recommendation(tuning)[:2])
        sheet = Sheet(title, "" if bare else caption, compute_height(width - 2 * MARGIN_IN), theme, width, bare)
        paint(sheet, sheet.body, tuning)
    return sheet.figure


def get_width(layout: str) -> float:
    """Return the width of a figure of a layout of `LAYOUTS`, in inches."""
    from ratelab.report.charts.canvas import FIGURE_WIDTH_IN, NARROW_WIDTH_IN

    return NARROW_WIDTH_IN if layout == "narrow" else FIGURE_WIDTH_IN


def render_figure(figure: Figure, file_format: str) -> bytes:
    """Return a file of `IMAGE_FORMATS`, or webp; the same figure gives the same bytes."""
    from ratelab.report.charts.canvas import render_figure

    return render_figure(figure, file_format)
