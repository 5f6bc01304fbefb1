"""Comparisons for charts, and inspection of drawn figures: their texts, curves and areas."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from cli_runner import SCENARIOS

from ratelab import ALGORITHMS, Quota, create
from ratelab.algorithms import COMPARED, build_policy
from ratelab.algorithms.leaky_bucket import LeakyBucket
from ratelab.lab.comparison import Comparison, compare
from ratelab.lab.scenarios import load_scenario
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Algorithm, Decision
from ratelab.report.charts import draw

LONG = "a-name-that-goes-on-" * 12
NAMES = (LONG, "用户一", "Ирина", "$x_1^2$", "[b]<svg>&amp;", "tab\there\nline", "מבקר", "🙂", *map(str, range(30)))


@cache
def compared(scenario: str) -> Comparison:
    """Replay a scenario of the repository through the default algorithms."""
    loaded = load_scenario(str(SCENARIOS / f"{scenario}.yaml"))
    policies = [create(name, loaded.quota) for name in COMPARED]
    return compare(policies, loaded.traffic, fields=Decision._fields)


@cache
def odd(kind: str) -> Comparison:
    """Replay unusual traffic: `none`, `one`, `denied`, or `names` of clients and algorithms that are hard to draw."""
    sizes = {"none": 0, "one": 1, "denied": 50, "names": 400}
    clients = np.arange(sizes[kind]) % (len(NAMES) if kind == "names" else 1)
    times = np.arange(sizes[kind]) * 10**6
    costs = np.full(sizes[kind], 10 if kind == "denied" else 1)
    names = NAMES if kind == "names" else ("alice",)
    traffic = Traffic(times, clients, costs, names, np.arange(len(names)), 1 + int(times.max(initial=0)))
    others = [_subclass(f"{LONG}{number}") for number in range(3)] if kind == "names" else []
    quota = Quota.parse("2/s", burst=5)
    policies = [build_policy(kind, quota) for kind in (*ALGORITHMS.values(), *others)]
    return compare(policies, traffic, fields=Decision._fields)


def _subclass(called: str) -> type[Algorithm]:
    class Other(LeakyBucket):
        name = called

    return Other


def panel(figure: Any, number: int) -> Any:
    """Return one of a figure's axes, in the order of drawing."""
    return figure.axes[number]


def texts(figure: Any) -> list[Any]:
    """Return every visible text, laid out."""
    figure.draw_without_rendering()
    labels = [label for axes in figure.axes if axes.axison for label in _tick_labels(axes)]
    return [text for text in [*figure.texts, *labels] if text.get_text()]


def _tick_labels(axes: Any) -> list[Any]:
    """Return the labels within the axis limits; matplotlib also keeps others, which it does not draw."""
    reaches = ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
    ticks = [
        tick for axis, ends in reaches for tick in axis.get_major_ticks() if min(ends) <= tick.get_loc() <= max(ends)
    ]
    return [tick.label1 for tick in ticks if tick.label1.get_visible()]


def overlapping(figure: Any) -> list[tuple[str, str]]:
    """Return the pairs of texts that overlap, and each text that crosses the edge of the sheet."""
    boxes = [(text.get_text(), text.get_window_extent().padded(-0.5)) for text in texts(figure)]
    sheet = figure.bbox
    outside = [
        (text, "edge") for text, box in boxes if min(box.x0, box.y0) < 0 or box.x1 > sheet.x1 or box.y1 > sheet.y1
    ]
    return outside + [(first, second) for (first, a), (second, b) in combinations(boxes, 2) if a.overlaps(b)]


def written(figure: Any) -> list[str]:
    """Return the strings of the visible texts."""
    return [text.get_text() for text in texts(figure)]


def reaches(axes: Any) -> list[tuple[float, float]]:
    """Return the lowest and the highest value of each filled area."""
    outlines = [[path.vertices[:, 1] for path in area.get_paths()] for area in axes.collections]
    heights = [np.concatenate(outline or [[0.0]]) for outline in outlines]
    return [(float(values.min()), float(values.max())) for values in heights]


def area(filled: Any) -> float:
    """Return the size of a filled area, whose outline does not cross itself (Gauss's formula)."""
    size = 0.0
    for path in filled.get_paths():
        x, y = path.vertices.T
        size += abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
    return size


@cache
def drawn(chart: str, scenario: str = "burst", theme: str = "light") -> Any:
    """Draw a chart of a scenario of the repository."""
    return draw(compared(scenario), chart, theme, f"{scenario}: as written")
