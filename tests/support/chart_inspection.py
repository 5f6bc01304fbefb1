"""Comparisons to draw, and inspection of figures: their texts, curves and areas."""

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
from ratelab.limiter import ROW_FIELDS, Algorithm
from ratelab.report.charts import draw

LONG_NAME = "a-name-that-goes-on-" * 12
ODD_NAMES = ("用户一", "Ирина", "$x_1^2$", "[b]<svg>&amp;", "tab\there\nline", "מבקר", "🙂")
NAMES = (LONG_NAME, *ODD_NAMES, *map(str, range(30)))

MAY_17 = 1_431_857_100 * 10**9
"""10:05 UTC on 17 May 2015, in nanoseconds since 1970."""


@cache
def compare_scenario(name: str) -> Comparison:
    """Replay a scenario of the repository through the default algorithms."""
    scenario = load_scenario(str(SCENARIOS / f"{name}.yaml"))
    policies = [create(algorithm, scenario.open_loop_quota) for algorithm in COMPARED]
    return compare(policies, scenario.traffic, fields=ROW_FIELDS)


@cache
def draw_scenario(chart: str, scenario: str = "burst", theme: str = "light") -> Any:
    """Draw a chart of a scenario of the repository."""
    return draw(compare_scenario(scenario), chart, theme, f"{scenario}: as written")


@cache
def compare_unusual(case: str) -> Comparison:
    """Replay unusual traffic: `none`, `one`, `denied`, or `names` of clients and algorithms that are hard to draw."""
    sizes = {"none": 0, "one": 1, "denied": 50, "names": 400}
    clients = np.arange(sizes[case]) % (len(NAMES) if case == "names" else 1)
    times = np.arange(sizes[case]) * 10**6
    costs = np.full(sizes[case], 10 if case == "denied" else 1)
    names = NAMES if case == "names" else ("alice",)
    traffic = Traffic(times, clients, costs, names, np.arange(len(names)), 1 + int(times.max(initial=0)))
    others = [_define_algorithm(f"{LONG_NAME}{number}") for number in range(3)] if case == "names" else []
    quota = Quota.parse("2/s", burst=5)
    policies = [build_policy(kind, quota) for kind in (*ALGORITHMS.values(), *others)]
    return compare(policies, traffic, fields=ROW_FIELDS)


@cache
def compare_dated() -> Comparison:
    """Replay three days of requests with dates: two clients in bursts an hour after each other, others at rest."""
    start = MAY_17 - MAY_17 % 10**9
    bursts = [(1, 3_600, 90), (2, 7_200, 60), (2, 7_300, 60), (3, 100_000, 1), (4, 250_000, 1)]
    pairs = sorted(
        ((begin * 10 + place * 4) * 10**8, client) for client, begin, size in bursts for place in range(size)
    )
    times, clients = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    names = tuple(f"client-{number}" for number in range(5))
    traffic = Traffic(times, clients, np.ones(len(times), np.int64), names, np.arange(5), 3 * 86400 * 10**9, start)
    return compare([create(name, "20/30s") for name in COMPARED], traffic, fields=ROW_FIELDS)


def _define_algorithm(algorithm_name: str) -> type[Algorithm]:
    class Other(LeakyBucket):
        name = algorithm_name

    return Other


def get_axes(figure: Any, number: int) -> Any:
    """Return axes of a figure, numbered in the order of drawing."""
    return figure.axes[number]


def read_texts(figure: Any) -> list[str]:
    """Return the strings of all visible texts."""
    return [text.get_text() for text in _lay_out_texts(figure)]


def find_overlaps(figure: Any) -> list[tuple[str, str]]:
    """Return the pairs of texts that overlap, and each text that crosses the edge of the sheet."""
    boxes = [(text.get_text(), text.get_window_extent().padded(-0.5)) for text in _lay_out_texts(figure)]
    sheet = figure.bbox
    outside = [
        (text, "edge") for text, box in boxes if min(box.x0, box.y0) < 0 or box.x1 > sheet.x1 or box.y1 > sheet.y1
    ]
    return outside + [(first, second) for (first, a), (second, b) in combinations(boxes, 2) if a.overlaps(b)]


def _lay_out_texts(figure: Any) -> list[Any]:
    """Return all visible texts, laid out."""
    figure.draw_without_rendering()
    labels = [label for axes in figure.axes if axes.axison for label in _list_tick_labels(axes)]
    return [text for text in [*figure.texts, *labels] if text.get_text()]


def _list_tick_labels(axes: Any) -> list[Any]:
    """Return the labels within the axis limits; matplotlib also keeps others, which it does not draw."""
    limits = ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
    ticks = [
        tick for axis, ends in limits for tick in axis.get_major_ticks() if min(ends) <= tick.get_loc() <= max(ends)
    ]
    return [label for tick in ticks for label in (tick.label1, tick.label2) if label.get_visible()]


def measure_extents(axes: Any) -> list[tuple[float, float]]:
    """Return the lowest and the highest value of each filled area."""
    outlines = [[path.vertices[:, 1] for path in area.get_paths()] for area in axes.collections]
    heights = [np.concatenate(outline or [[0.0]]) for outline in outlines]
    return [(float(values.min()), float(values.max())) for values in heights]


def measure_area(collection: Any) -> float:
    """Return the size of a filled area, whose outline does not cross itself (Gauss's formula)."""
    size = 0.0
    for path in collection.get_paths():
        x, y = path.vertices.T
        size += abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
    return size
