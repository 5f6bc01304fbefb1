"""Charts of closed loops: agreement with the figures, titles that state the findings, and legibility."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from chart_inspection import find_overlaps, get_axes, measure_area, read_texts
from slow_parameters import mark_slow

from ratelab import create
from ratelab.algorithms import COMPARED
from ratelab.lab import LOOP_CHARTS
from ratelab.lab.closed_loop.behavior import Behavior, Fault, Population, Retry, Server
from ratelab.lab.closed_loop.figures import LoopCase, LoopComparison, compare_loops
from ratelab.lab.traffic import Traffic
from ratelab.report.charts import LAYOUTS, draw
from ratelab.report.charts.loop_view import LoopView
from ratelab.report.loop_findings import summarize_loops

S = 10**9
LONG_NAME = "a-variant-with-a-name-that-goes-on-and-on-and-on"


def make_population(count: int = 600, **keys: Any) -> Population:
    """Return one client that sends `count` requests in a minute, and tries again."""
    times = np.arange(count) * 60 * S // max(1, count)
    traffic = Traffic(times, np.zeros(count, np.int64), np.ones(count, np.int64), ("alice",), np.arange(1), 60 * S)
    behavior = Behavior(retry=Retry("full-jitter", base=S, attempts=4), timeout=5 * S)
    return Population(traffic, (behavior,), np.zeros(1, np.int64), 1, **keys)


@cache
def compare(kind: str) -> LoopComparison:
    """Return a comparison: `algorithms`, `outage`, `variants` with long names, or `none` without requests."""
    policies = tuple(create(name, "8/s", 10) for name in COMPARED)
    match kind:
        case "algorithms":
            return compare_loops([LoopCase(make_population(), policies)])
        case "outage":
            faults = (Fault("outage", 20 * S, 30 * S),)
            return compare_loops([LoopCase(make_population(server=Server(), faults=faults), ())])
        case "variants":
            names = [LONG_NAME, *(f"variant-{number}" for number in range(17))]
            return compare_loops([LoopCase(make_population(), policies[:1], name) for name in names])
    return compare_loops([LoopCase(make_population(0), policies[:2])])


@cache
def draw_loop(chart: str, kind: str = "algorithms", layout: str = "wide") -> Any:
    return draw(compare(kind), chart, layout=layout, caption="as written")


@pytest.mark.slow
def test_the_title_of_each_chart_is_a_finding() -> None:
    served, tries, times, *_ = summarize_loops(compare("algorithms"))
    titles = [str(draw_loop(chart).get_label()) for chart in LOOP_CHARTS]
    assert titles == [served, served, tries, times]
    assert str(draw_loop("goodput", "outage").get_label()).startswith("After the outage, goodput was back")
    assert str(draw_loop("loop", "none").get_label()) == "No client began a request, so there is nothing to compare."


@pytest.mark.parametrize("number", range(len(COMPARED)))
def test_the_goodput_chart_has_areas_for_all_tries_and_successes(number: int) -> None:
    axes, result = get_axes(draw_loop("goodput"), number), compare("algorithms").results[number]
    arrivals, successes = map(measure_area, axes.collections)
    assert (round(arrivals), round(successes)) == (result.attempts, result.successes)


def test_the_goodput_chart_shades_the_outage() -> None:
    axes = get_axes(draw_loop("goodput", "outage"), 0)
    (shade,) = axes.patches
    assert (shade.get_x(), shade.get_width()) == (20, 10)
    assert any("Shaded: outage." in text for text in read_texts(axes.figure))


def test_bars_of_the_attempts_chart_add_up_to_the_requests() -> None:
    figure = draw_loop("attempts")
    for number, result in enumerate(compare("algorithms").results):
        widths = [bar.get_width() for bar in get_axes(figure, number).patches]
        assert sum(widths) == result.first_tries
        assert sum(widths[:-2]) == result.successes
        assert widths[-2:] == [result.gave_up, result.pending]


def test_curves_of_times_end_at_the_part_of_the_requests_that_succeeded() -> None:
    (axes,) = draw_loop("time-to-success").axes
    for line, result in zip(axes.lines, compare("algorithms").results, strict=True):
        shares = line.get_ydata()
        assert shares[-1] == pytest.approx(result.goodput_ratio, abs=1e-6)
        assert (np.diff(shares) >= 0).all()


def test_the_time_ends_when_all_is_over() -> None:
    times = np.arange(10) * S // 5
    traffic = Traffic(times, np.zeros(10, np.int64), np.ones(10, np.int64), ("alice",), np.arange(1), 600 * S)
    population = Population(traffic, (Behavior(),), np.zeros(1, np.int64), 1)
    view = LoopView(compare_loops([LoopCase(population, (create("gcra", "1/s"),))]), "light")
    assert (view.whole.begin, view.whole.end) == (0, 2 * S)
    assert LoopView(compare("algorithms"), "light").whole.end == 60 * S


@pytest.mark.parametrize("case", mark_slow(["algorithms", "outage", "variants", "none"], ["outage"]))
def test_no_texts_overlap_or_leave_the_sheet(case: str) -> None:
    for layout in LAYOUTS:
        assert find_overlaps(draw_loop("loop", case, layout)) == []
