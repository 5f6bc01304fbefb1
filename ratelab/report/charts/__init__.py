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

    from ratelab.lab.comparison import Comparison
    from ratelab.lab.sweep import SweepResult

THEME_NAMES = ("light", "dark")

IMAGE_FORMATS = ("png", "svg", "pdf")

__all__ = ["CHARTS", "IMAGE_FORMATS", "THEME_NAMES", "draw", "draw_sweep", "render_figure"]


def draw(comparison: Comparison, chart: str = "comparison", theme: str = "light", caption: str = "") -> Figure:
    """Draw a chart of `CHARTS`: its title states the finding, `caption` describes the traffic.

    All five fields of each decision must be in memory. The figure is 8 inches wide and as high as the chart needs.
    """
    from ratelab.report.charts.canvas import Sheet, use_chart_style
    from ratelab.report.charts.view import ComparisonView
    from ratelab.report.summary import describe_run, summarize

    view = ComparisonView(comparison, theme)
    module = import_module(f"{__name__}.{chart}")
    title = module.compose_title(view) if len(comparison.traffic) else summarize(comparison)[0]
    conditions = describe_run(comparison.traffic, comparison.quota).replace("\n", "; ")
    with use_chart_style():
        sheet = Sheet(title, f"{caption}\n{conditions}".strip(), module.compute_height(view), theme)
        module.paint(sheet, sheet.body, view)
    return sheet.figure


def draw_sweep(result: SweepResult, theme: str = "light", caption: str = "") -> Figure:
    """Draw the denials under each quota: the title states the lowest sufficient one, `caption` describes the sweep."""
    from ratelab.report.charts.canvas import Sheet, use_chart_style
    from ratelab.report.charts.sweep import compute_height, paint
    from ratelab.report.sweep import describe_sweep

    with use_chart_style():
        sheet = Sheet(describe_sweep(result), caption, compute_height(result), theme)
        paint(sheet, sheet.body, result, theme)
    return sheet.figure


def render_figure(figure: Figure, file_format: str) -> bytes:
    """Return a file of `IMAGE_FORMATS`, or webp; the same figure gives the same bytes."""
    from ratelab.report.charts.canvas import render_figure

    return render_figure(figure, file_format)
