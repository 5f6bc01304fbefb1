"""Charts as they stand in a page: drawn for a light and for a dark one, and held in it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import NamedTuple

from ratelab.report.charts import draw, rendered
from ratelab.report.summary import Run


class Picture(NamedTuple):
    """One chart, as the two images that a page chooses from."""

    alt: str
    """What it shows, for who cannot see it."""
    light: str
    dark: str
    width: int
    height: int


def pictures(run: Run) -> Iterator[Picture]:
    """Yield the charts that a page shows of `run`: that of its lesson first, then the others that tell more."""
    lesson = [run.scenario.chart] if run.scenario else []
    many = ["fairness"] if len(run.comparison.traffic.names) > 1 else []
    for chart in dict.fromkeys([*lesson, "comparison", "level", *many]):
        yield picture(run, chart)


def picture(run: Run, chart: str) -> Picture:
    """Draw one chart of `run`."""
    light, dark = (draw(run.comparison, chart, theme) for theme in ("light", "dark"))
    width, height = (round(100 * inches) for inches in light.get_size_inches())
    alt = f"Chart of the {chart}: {light.get_label()}"
    return Picture(alt, _inline(rendered(light, "webp")), _inline(rendered(dark, "webp")), width, height)


def _inline(data: bytes) -> str:
    return f"data:image/webp;base64,{b64encode(data).decode()}"
