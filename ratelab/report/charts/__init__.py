"""Comparisons as pictures. Each chart is the module of its name, imported with matplotlib when it is drawn.

`draw` makes the picture, `render_figure` makes a file's bytes of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ratelab.lab import CHARTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ratelab.lab.comparison import Comparison
    from ratelab.lab.sweep import SweepResult

THEMES = ("light", "dark")

IMAGE_FORMATS = ("png", "svg", "pdf")

__all__ = ["CHARTS", "FORMATS", "THEMES", "draw", "draw_sweep", "render_figure"]


def draw(comparison: Comparison, chart: str = "comparison", theme: str = "light", caption: str = "") -> Figure:
    """Draw the chart of `CHARTS` under a title that tells what it shows; `caption` says what was compared.

    The comparison must have kept its decisions. The picture is 8 inches wide and as high as it needs.
    """
    from ratelab.report.charts.canvas import Sheet, styled
    from ratelab.report.charts.view import ComparisonView
    from ratelab.report.summary import describe_run, summarize

    view = ComparisonView(comparison, theme)
    module = import_module(f"{__name__}.{chart}")
    title = module.finding(view) if len(comparison.traffic) else summarize(comparison)[0]
    about = describe_run(comparison.traffic, comparison.quota).replace("\n", "; ")
    with styled():
        sheet = Sheet(title, f"{caption}\n{about}".strip(), module.height(view), theme)
        module.paint(sheet, sheet.body, view)
    return sheet.figure


def draw_sweep(result: SweepResult, theme: str = "light", caption: str = "") -> Figure:
    """Draw what each quota would deny, under a title that tells which is enough; `caption` says what was swept."""
    from ratelab.report.charts.canvas import Sheet, styled
    from ratelab.report.charts.sweep import height, paint
    from ratelab.report.sweep import describe_sweep

    with styled():
        sheet = Sheet(describe_sweep(result), caption, height(result), theme)
        paint(sheet, sheet.body, result, theme)
    return sheet.figure


def render_figure(figure: Figure, file_format: str) -> bytes:
    """Return the picture as a file of `IMAGE_FORMATS`, or of webp for a page; the same picture gives the same bytes."""
    from ratelab.report.charts.canvas import render_figure

    return render_figure(figure, file_format)
