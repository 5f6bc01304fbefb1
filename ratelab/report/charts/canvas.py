"""Canvas of charts: boxes measured in inches, and a sheet with a title, a caption and a body to draw on."""

from __future__ import annotations

from contextlib import AbstractContextManager
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from ratelab.report.charts.style import THEMES, choose_time_ticks, format_count, format_time, make_readable
from ratelab.report.charts.text import DPI, Pen, make_legible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

FIGURE_WIDTH_IN = 8.0
MARGIN_IN = 0.25
TITLE_PEN, CAPTION_PEN, LABEL_PEN = Pen(12, bold=True), Pen(9), Pen(9)
MAX_TITLE_LINES, MAX_CAPTION_LINES = 3, 2

_STYLE: list[Any] = [
    "default",  # not the user's matplotlibrc
    {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "hatch.linewidth": 0.6,
        "figure.dpi": DPI,
        "savefig.dpi": "figure",
        "svg.hashsalt": "ratelab",
        "text.parse_math": False,
    },
]
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""Metadata that matplotlib must not add, so that the bytes do not depend on the time and the version."""


def use_chart_style() -> AbstractContextManager[None]:
    """Use the style of charts for all drawing and writing inside the block."""
    return matplotlib.style.context(_STYLE)


def render_figure(figure: Figure, file_format: str) -> bytes:
    """Return the figure as a file; the same figure gives the same bytes."""
    file = BytesIO()
    with use_chart_style():
        figure.savefig(file, format=file_format, **_select_options(figure, file_format))
    return file.getvalue()


def _select_options(figure: Figure, file_format: str) -> dict[str, Any]:
    if file_format == "webp":
        return {"pil_kwargs": {"lossless": True}}
    return {"metadata": {**_METADATA[file_format], "Title": figure.get_label()}}


class Box(NamedTuple):
    """A rectangle on the sheet, in inches from its upper left corner."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """The bottom edge."""
        return self.top + self.height

    def inset(self, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0) -> Self:
        """Return the box without these margins."""
        return self._replace(
            left=self.left + left,
            top=self.top + top,
            width=self.width - left - right,
            height=self.height - top - bottom,
        )

    def split_rows(self, count: int, gap: float = 0) -> list[Self]:
        """Split the box into rows of equal height."""
        height = (self.height - gap * (count - 1)) / count
        return [self._replace(top=self.top + row * (height + gap), height=height) for row in range(count)]

    def split_columns(self, count: int, gap: float = 0) -> list[Self]:
        """Split the box into columns of equal width."""
        width = (self.width - gap * (count - 1)) / count
        return [self._replace(left=self.left + column * (width + gap), width=width) for column in range(count)]


class Sheet:
    """A figure with a title and a caption, and below them a body of the given height to draw on."""

    def __init__(self, title: str, caption: str, height: float, theme: str) -> None:
        self.theme = THEMES[theme]
        width = FIGURE_WIDTH_IN - 2 * MARGIN_IN
        titles = TITLE_PEN.wrap(make_legible(title), width, MAX_TITLE_LINES)
        captions = [
            line
            for paragraph in caption.splitlines()
            for line in CAPTION_PEN.wrap(make_legible(paragraph), width, MAX_CAPTION_LINES)
        ]
        top = MARGIN_IN + len(titles) * TITLE_PEN.line + 0.05
        self.body = Box(MARGIN_IN, top + len(captions) * CAPTION_PEN.line + 0.15, width, height)
        self._height = self.body.bottom + MARGIN_IN
        self.figure = Figure((FIGURE_WIDTH_IN, self._height), facecolor=self.theme.paper)
        self.figure.set_label(title)  # also the title in the metadata of a file
        FigureCanvasAgg(self.figure)
        for number, line in enumerate(titles):
            self.write(MARGIN_IN, MARGIN_IN + (number + 0.5) * TITLE_PEN.line, line, TITLE_PEN, self.theme.ink)
        for number, line in enumerate(captions):
            self.write(MARGIN_IN, top + (number + 0.5) * CAPTION_PEN.line, line, CAPTION_PEN, self.theme.quiet)

    def write(
        self, x: float, y: float, text: str, pen: Pen = LABEL_PEN, color: str = "", align: str = "left",
        width: float = FIGURE_WIDTH_IN,
    ) -> None:  # fmt: skip
        """Write a line that is vertically centered at `y`, truncated to `width`."""
        line = pen.truncate(make_legible(text), width)
        self.figure.text(
            x / FIGURE_WIDTH_IN, 1 - y / self._height, line, color=make_readable(color or self.theme.quiet, self.theme),
            ha=align, va="center_baseline", fontproperties=pen.select_font(line),
        )  # fmt: skip

    def add_axes(self, box: Box, right: float, top: float, bottom: float = 0) -> Axes:
        """Return axes that fill the box, from 0 to `right` and from `bottom` to `top`."""
        place = (
            box.left / FIGURE_WIDTH_IN,
            1 - box.bottom / self._height,
            box.width / FIGURE_WIDTH_IN,
            box.height / self._height,
        )
        axes = self.figure.add_axes(place, xlim=(0, right), ylim=(bottom, top), facecolor="none")
        axes.set_axisbelow(True)
        axes.tick_params(color=self.theme.quiet, labelcolor=self.theme.quiet)
        axes.spines[:].set_color(self.theme.quiet)
        return axes

    def fill_steps(
        self,
        axes: Axes,
        edges: NDArray[Any],
        heights: NDArray[Any],
        color: str,
        floor: NDArray[Any] | float = 0,
        opacity: float = 1,
    ) -> None:
        """Fill the area between `floor` and `heights`, which have a value for each part between two edges."""
        upper, lower = (np.append(values, values[-1]) for values in np.broadcast_arrays(heights, floor))
        changes = np.concatenate([[True], (np.diff(upper) != 0) | (np.diff(lower) != 0)])
        changes[-1] = True
        axes.fill_between(
            edges[changes], lower[changes], upper[changes], step="post", color=color, alpha=opacity, linewidth=0
        )

    def set_time_ticks(self, axes: Axes, unit: str, labeled: bool = True) -> None:
        """Set ticks at round times; label them on the lowest of several axes."""
        width = float(axes.get_position().width) * FIGURE_WIDTH_IN
        axes.xaxis.set_major_locator(
            FixedLocator(choose_time_ticks(unit, axes.get_xlim()[1], max(2, int(width / 0.65))))
        )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_time(value, unit)))
        axes.tick_params(labelbottom=labeled)
        axes.grid(axis="x", color=self.theme.grid, linewidth=0.6)

    def set_count_ticks(self, axes: Axes, at: Sequence[float] = ()) -> None:
        """Set ticks at the counts of `at`, by default at a few round ones; counts below 0 have no sign."""
        locator = FixedLocator(at) if at else MaxNLocator(4, integer=True, steps=[1, 2, 5, 10])
        axes.yaxis.set_major_locator(locator)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(abs(value))))


class LineLabel(NamedTuple):
    """The label at the end of a line."""

    value: float
    """Height of the end of the line, on the scale of the axes."""
    text: str
    color: str


def write_line_labels(sheet: Sheet, box: Box, labels: Sequence[LineLabel], top: float) -> None:
    """Write labels next to the ends of their lines, moved apart so that they do not overlap.

    The box is as high as the axes, which end at `top`; the label of a line that ends above them has an arrow.
    """
    gap, lowest = LABEL_PEN.line, box.bottom
    ordered = sorted(labels, key=lambda label: label.value)
    places = [box.bottom - min(label.value, top) / top * box.height for label in ordered]
    for index, place in enumerate(places):  # upwards: each at least a line above the one below
        lowest = min(place, lowest - gap if index else lowest)
        places[index] = lowest
    highest = box.top
    for index in reversed(range(len(places))):  # downwards: none above the box
        places[index] = highest = max(places[index], highest)
        highest += gap
    for label, place in zip(ordered, places, strict=True):
        arrow = " ↑" if label.value > top else ""
        sheet.write(box.left + 0.1, place, f"{label.text}{arrow}", LABEL_PEN, label.color, width=box.width - 0.1)
