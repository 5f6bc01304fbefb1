"""The sheet that a chart is drawn on: a title and a caption, and below them a body with places in inches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from ratelab.report.charts.style import THEMES, count, lettered, marks, moment
from ratelab.report.charts.text import Pen, legible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes


class Box(NamedTuple):
    """A place on the sheet, in inches from its upper left corner."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The end of its width."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """The end of its height."""
        return self.top + self.height

    def inset(self, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0) -> Self:
        """Return what is left of it without margins."""
        return self._replace(
            left=self.left + left,
            top=self.top + top,
            width=self.width - left - right,
            height=self.height - top - bottom,
        )

    def rows(self, count: int, gap: float = 0) -> list[Self]:
        """Cut it into rows of one height."""
        height = (self.height - gap * (count - 1)) / count
        return [self._replace(top=self.top + row * (height + gap), height=height) for row in range(count)]

    def columns(self, count: int, gap: float = 0) -> list[Self]:
        """Cut it into columns of one width."""
        width = (self.width - gap * (count - 1)) / count
        return [self._replace(left=self.left + column * (width + gap), width=width) for column in range(count)]


Values = NDArray[Any]

FIGURE_WIDTH_IN = 8.0
MARGIN = 0.25
TITLE, CAPTION, LABEL = Pen(12, bold=True), Pen(9), Pen(9)

_STYLE: list[Any] = [
    "default",  # whatever a person's own matplotlibrc says
    {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "hatch.linewidth": 0.6,
        "figure.dpi": 200,  # what text is measured at, too
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
"""What matplotlib would add by itself: when and with what a file was made."""

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it keeps its list of fonts is nothing to tell


def styled() -> AbstractContextManager[None]:
    """Have all that is drawn and written within look as charts do."""
    return matplotlib.style.context(_STYLE)


class Sheet:
    """A title, a caption, and a body of a given height to draw on."""

    def __init__(self, title: str, caption: str, height: float, theme: str) -> None:
        self.theme = THEMES[theme]
        width = FIGURE_WIDTH_IN - 2 * MARGIN
        titles = TITLE.broken(legible(title), width, 3)
        captions = [line for part in caption.splitlines() for line in CAPTION.broken(legible(part), width, 2)]
        top = MARGIN + len(titles) * TITLE.line + 0.05
        self.body = Box(MARGIN, top + len(captions) * CAPTION.line + 0.15, width, height)
        self._height = self.body.bottom + MARGIN
        self.figure = Figure((FIGURE_WIDTH_IN, self._height), facecolor=self.theme.paper)
        self.figure.set_label(title)  # which is also what a file says of itself
        FigureCanvasAgg(self.figure)
        for number, line in enumerate(titles):
            self.text(MARGIN, MARGIN + (number + 0.5) * TITLE.line, line, TITLE, self.theme.ink)
        for number, line in enumerate(captions):
            self.text(MARGIN, top + (number + 0.5) * CAPTION.line, line, CAPTION, self.theme.quiet)

    def text(
        self, x: float, y: float, text: str, pen: Pen = LABEL, colour: str = "", align: str = "left",
        width: float = FIGURE_WIDTH_IN,
    ) -> None:  # fmt: skip
        """Write a line whose middle is at the height of `y`, cut to `width`."""
        cut, seen = pen.cut(legible(text), width), lettered(colour or self.theme.quiet, self.theme)
        self.figure.text(
            x / FIGURE_WIDTH_IN, 1 - y / self._height, cut,
            color=seen, ha=align, va="center_baseline", fontproperties=pen.font(cut),
        )  # fmt: skip

    def axes(self, box: Box, right: float, top: float, bottom: float = 0) -> Axes:
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

    def bars(
        self, axes: Axes, edges: Values, heights: Values, colour: str, floor: Values | float = 0, opacity: float = 1
    ) -> None:
        """Fill the area from `floor` to `heights`, one for each part between two edges, without gaps."""
        upper, lower = (np.append(one, one[-1]) for one in np.broadcast_arrays(heights, floor))
        told = np.concatenate([[True], (np.diff(upper) != 0) | (np.diff(lower) != 0)])  # a level need be told once
        told[-1] = True
        axes.fill_between(edges[told], lower[told], upper[told], step="post", color=colour, alpha=opacity, linewidth=0)

    def time_ticks(self, axes: Axes, unit: str, labelled: bool = True) -> None:
        """Mark whole numbers of `unit` along the time axis; label them on the lowest of several axes."""
        axes.xaxis.set_major_locator(FixedLocator(marks(unit, axes.get_xlim()[1], max(2, int(_width(axes) / 0.65)))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: moment(value, unit)))
        axes.tick_params(labelbottom=labelled)
        axes.grid(axis="x", color=self.theme.grid, linewidth=0.6)

    def count_ticks(self, axes: Axes, at: Sequence[float] = ()) -> None:
        """Mark whole numbers up the axis, those of `at` or some that fit; what lies below 0 is counted downwards."""
        locator = FixedLocator(at) if at else MaxNLocator(4, integer=True, steps=[1, 2, 5, 10])
        axes.yaxis.set_major_locator(locator)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: count(abs(value))))


def _width(axes: Axes) -> float:
    return float(axes.get_position().width) * FIGURE_WIDTH_IN


def render_figure(figure: Figure, file_format: str) -> bytes:
    """Return the picture as a file; the same picture gives the same bytes."""
    file = BytesIO()
    with styled():
        figure.savefig(file, format=file_format, **_options(figure, file_format))
    return file.getvalue()


def _options(figure: Figure, file_format: str) -> dict[str, Any]:
    if file_format == "webp":
        return {"pil_kwargs": {"lossless": True}}
    return {"metadata": {**_METADATA[file_format], "Title": figure.get_label()}}


class Label(NamedTuple):
    """What a line is called."""

    value: float
    """Where it belongs, on the scale of the axes."""
    text: str
    colour: str


def label(sheet: Sheet, box: Box, labels: Sequence[Label], top: float) -> None:
    """Write the labels beside the ends of their lines, as near to them as they fit one above the other."""
    gap, lowest = LABEL.line, box.bottom
    ordered = sorted(labels, key=lambda label: label.value)
    places = [box.bottom - min(label.value, top) / top * box.height for label in ordered]
    for index, place in enumerate(places):  # from the bottom up, each at least a line above the last
        lowest = min(place, lowest - gap if index else lowest)
        places[index] = lowest
    highest = box.top
    for index in reversed(range(len(places))):  # and down again from the top
        places[index] = highest = max(places[index], highest)
        highest += gap
    for one, place in zip(ordered, places, strict=True):
        arrow = " ↑" if one.value > top else ""
        sheet.text(box.left + 0.1, place, f"{one.text}{arrow}", LABEL, one.colour, width=box.width - 0.1)
