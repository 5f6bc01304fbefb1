"""Comparisons as pictures. Each chart is the module of its name, imported with matplotlib when it is drawn.

`draw` makes the picture, `render_figure` makes a file's bytes of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ratelab.lab import CHARTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from ratelab.lab.comparison import Comparison
    from ratelab.lab.sweep import Swept

THEMES = ("light", "dark")

IMAGE_FORMATS = ("png", "svg", "pdf")

__all__ = ["CHARTS", "FORMATS", "THEMES", "draw", "draw_sweep", "render_figure"]


def draw(comparison: Comparison, chart: str = "comparison", theme: str = "light", caption: str = "") -> Figure:
    """Draw the chart of `CHARTS` under a title that tells what it shows; `caption` says what was compared.

    The comparison must have kept its decisions. The picture is 8 inches wide and as high as it needs.
    """
    from ratelab.report.charts.canvas import Sheet, styled
    from ratelab.report.charts.view import ComparisonView
    from ratelab.report.summary import findings
    from ratelab.report.tables import heading

    view = ComparisonView(comparison, theme)
    module = import_module(f"{__name__}.{chart}")
    title = module.finding(view) if len(comparison.traffic) else findings(comparison)[0]
    about = heading(comparison.traffic, comparison.quota).replace("\n", "; ")
    with styled():
        sheet = Sheet(title, f"{caption}\n{about}".strip(), module.height(view), theme)
        module.paint(sheet, sheet.body, view)
    return sheet.figure


def draw_sweep(results: Sequence[Swept], theme: str = "light", caption: str = "") -> Figure:
    """Draw what each quota would deny, under a title that tells which is enough; `caption` says what was swept."""
    from ratelab.report.charts.canvas import Sheet, styled
    from ratelab.report.charts.sweep import height, paint
    from ratelab.report.sweep import finding

    with styled():
        sheet = Sheet(finding(results), caption, height(results), theme)
        paint(sheet, sheet.body, results, theme)
    return sheet.figure


def render_figure(figure: Figure, file_format: str) -> bytes:
    """Return the picture as a file of `IMAGE_FORMATS`, or of webp for a page; the same picture gives the same bytes."""
    from ratelab.report.charts.canvas import render_figure

    return render_figure(figure, file_format)
