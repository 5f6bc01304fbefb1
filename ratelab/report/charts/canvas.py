"""Canvas of charts: boxes measured in inches, and a sheet with a title, a caption and a body to draw on."""

from __future__ import annotations

from contextlib import AbstractContextManager
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from ratelab.report.charts.style import THEMES, make_readable
from ratelab.report.charts.text import DPI, Pen, make_legible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from ratelab.report.charts.time_axis import TimeAxis

FIGURE_WIDTH_IN, NARROW_WIDTH_IN = 8.0, 4.2
"""Widths of figures; the narrow one is legible on a phone."""
MARGIN_IN = 0.25
TITLE_PEN, CAPTION_PEN, LABEL_PEN, TICK_PEN, SMALL_PEN = Pen(12, bold=True), Pen(9), Pen(9), Pen(8.5), Pen(8)
MAX_TITLE_LINES = 4
MAX_HEADING_LINES = 6
HEADING_GAP_IN = 0.12
"""Height between a heading and the drawing below it."""

_STYLE: list[Any] = [
    "default",  # not the user's matplotlibrc
    {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.labelsize": TICK_PEN.size,
        "ytick.labelsize": TICK_PEN.size,
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


def measure_heading(text: str, width: float) -> float:
    """Return the height of a heading and of the gap below it."""
    return len(_wrap_heading(text, width)) * LABEL_PEN.line + HEADING_GAP_IN


def _wrap_heading(text: str, width: float) -> list[str]:
    return LABEL_PEN.wrap(make_legible(text), width, MAX_HEADING_LINES)


class Sheet:
    """A figure with a title and a caption, and below them a body of the given height to draw on.

    A `bare` one has the title only in its metadata.
    """

    def __init__(
        self, title: str, caption: str, height: float, theme: str, width: float = FIGURE_WIDTH_IN, bare: bool = False
    ) -> None:
        self.theme, self.width = THEMES[theme], width
        width -= 2 * MARGIN_IN
        max_lines = MAX_TITLE_LINES if self.is_wide else 2 * MAX_TITLE_LINES
        titles = [] if bare else TITLE_PEN.wrap(make_legible(title), width, max_lines)
        captions = [
            line
            for paragraph in caption.splitlines()
            for line in CAPTION_PEN.wrap(make_legible(paragraph), width, max_lines // 2)
        ]
        top = MARGIN_IN + len(titles) * TITLE_PEN.line + 0.05
        body = top + len(captions) * CAPTION_PEN.line + 0.15 if titles or captions else 0.1
        self.body = Box(MARGIN_IN, body, width, height)
        self._height = self.body.bottom + MARGIN_IN
        self.figure = Figure((self.width, self._height), facecolor=self.theme.paper)
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
        line = pen.truncate(make_legible(text), min(width, self.width))
        self.figure.text(
            x / self.width, 1 - y / self._height, line, color=make_readable(color or self.theme.quiet, self.theme),
            ha=align, va="center_baseline", fontproperties=pen.select_font(line),
        )  # fmt: skip

    @property
    def is_wide(self) -> bool:
        """Whether parts of the chart fit side by side."""
        return self.width > NARROW_WIDTH_IN

    def write_heading(self, box: Box, text: str) -> Box:
        """Write a heading at the top of the box; return the rest of the box, below it."""
        for number, line in enumerate(_wrap_heading(text, box.width)):
            self.write(box.left, box.top + (number + 0.5) * LABEL_PEN.line, line, width=box.width)
        return box.inset(top=measure_heading(text, box.width))

    def add_axes(self, box: Box, right: float, top: float, bottom: float = 0) -> Axes:
        """Return axes that fill the box, from 0 to `right` and from `bottom` to `top`."""
        place = (
            box.left / self.width,
            1 - box.bottom / self._height,
            box.width / self.width,
            box.height / self._height,
        )
        axes = self.figure.add_axes(place, xlim=(0, right), ylim=(bottom, top), facecolor="none")
        axes.set_axisbelow(True)
        axes.tick_params(color=self.theme.quiet, labelcolor=self.theme.quiet)
        axes.spines[:].set_color(self.theme.quiet)
        return axes

    def draw_line(self, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
        """Draw a thin line between two points of the sheet, in inches from its upper left corner."""
        x, y = ([point[axis] for point in (start, end)] for axis in (0, 1))
        line = Line2D([at / self.width for at in x], [1 - at / self._height for at in y], color=color, linewidth=0.8)
        self.figure.add_artist(line)

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

    def set_time_ticks(self, axes: Axes, time: TimeAxis, labeled: bool = True) -> None:
        """Set ticks at round times; label them on the lowest of several axes."""
        ticks = time.choose_ticks(float(axes.get_position().width) * self.width)
        axes.set_xticks([tick.place for tick in ticks], [tick.label for tick in ticks])
        axes.tick_params(labelbottom=labeled)
        axes.grid(axis="x", color=self.theme.grid, linewidth=0.6)

    def set_count_ticks(self, axes: Axes, at: Sequence[float] = ()) -> None:
        """Set ticks at the counts of `at`, by default at a few round ones."""
        axes.yaxis.set_major_locator(FixedLocator(at) if at else choose_counts(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))


def choose_counts(parts: int) -> MaxNLocator:
    """Return a locator of round counts, in at most `parts` parts."""
    return MaxNLocator(parts, integer=True, steps=[1, 2, 5, 10])


def round_down(number: int) -> int:
    """Return the largest of 0, 1, 2, 5, 10, 20 and so on that is at most `number`."""
    if number < 1:
        return 0
    power: int = 10 ** (len(str(number)) - 1)
    return next(digit for digit in (5, 2, 1) if digit * power <= number) * power


def format_number(number: float) -> str:
    """Format a number on an axis: `1,500`, `-20`, `1.2e+11`."""
    sign = "\N{MINUS SIGN}" if number < 0 else ""
    return sign + (f"{abs(number):,.10g}" if abs(number) < 10**10 else f"{abs(number):.3g}")


def measure_scale(numbers: Sequence[float]) -> float:
    """Return the width that the labels of these numbers need to the left of axes."""
    return max(TICK_PEN.measure(format_number(number)) for number in numbers) + 0.12


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
    ordered = sorted(labels, key=lambda label: label.value)
    ends = [box.bottom - min(label.value, top) / top * box.height for label in ordered]
    for label, place in zip(ordered, separate(ends, box.top, LABEL_PEN.line), strict=True):
        arrow = " ↑" if label.value > top else ""
        sheet.write(box.left + 0.1, place, f"{label.text}{arrow}", LABEL_PEN, label.color, width=box.width - 0.1)


def separate(places: Sequence[float], top: float, gap: float) -> list[float]:
    """Return heights at least `gap` apart and none above `top`, as near as possible to `places`, the lowest first."""
    apart = list(places)
    for index in range(1, len(apart)):  # upwards: each at least a line above the one below
        apart[index] = min(apart[index], apart[index - 1] - gap)
    highest = top
    for index in reversed(range(len(apart))):  # downwards: none above the box
        apart[index] = highest = max(apart[index], highest)
        highest += gap
    return apart
