"""Charts: agreement with the figures, titles that state the findings, and legibility for any traffic."""

from __future__ import annotations

import re
from importlib import import_module
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from chart_inspection import (
    LONG_NAME,
    compare_scenario,
    compare_unusual,
    draw_scenario,
    find_overlaps,
    get_axes,
    measure_area,
    measure_extents,
    read_texts,
)
from matplotlib.colors import to_hex

from ratelab import Decision, create
from ratelab.algorithms import COMPARED
from ratelab.lab.comparison import Comparison, compare
from ratelab.lab.decisions import Outcome
from ratelab.lab.metrics import measure
from ratelab.lab.traffic import Traffic
from ratelab.report.charts import CHARTS, draw
from ratelab.report.charts.style import assign_colors, format_time
from ratelab.report.charts.view import ComparisonView

TITLES = {
    "comparison": "fixed-window let 120 through in a window of 1 min and token-bucket 61, above the quota of 60; ",
    "window": "fixed-window let 120 through in a window of 1 min and token-bucket 61, above the quota of 60; ",
    "cumulative": "Of 120 requests, sliding-log and sliding-counter denied 60 (50 %), token-bucket ",
    "timeline": "Of 120 requests, sliding-log and sliding-counter denied 60 (50 %), token-bucket ",
    "outcome": "Of 120 requests, sliding-log and sliding-counter denied 60 (50 %), token-bucket ",
    "level": "fixed-window and sliding-log had nothing left to grant for 33 % of the time, ",
    "fairness": "There is at most one client, so there is no fairness to compare.",
}


def test_the_title_of_every_chart_states_its_finding() -> None:
    assert sorted(TITLES) == sorted(CHARTS)
    view = ComparisonView(compare_scenario("boundary-burst"), "light")
    for chart, title in TITLES.items():
        assert import_module(f"ratelab.report.charts.{chart}").compose_title(view).startswith(title), chart
    assert draw_scenario("cumulative", "boundary-burst").get_label().startswith(TITLES["cumulative"])


@pytest.mark.parametrize("chart", ["outcome", "level"])
def test_a_title_counts_requests_that_cost_more_than_the_burst(chart: str) -> None:
    title = str(draw(compare_unusual("denied"), chart).get_label())
    assert title.endswith("50 requests cost more than the burst of 5 and can never be admitted.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chart", "traffic"),
    [
        ("comparison", "none"),
        ("comparison", "names"),
        ("level", "names"),
        ("fairness", "names"),
        ("cumulative", "one"),
        ("timeline", "denied"),
    ],
)
def test_no_texts_overlap_or_leave_the_sheet_for_any_traffic(chart: str, traffic: str) -> None:
    figure = draw(compare_unusual(traffic), chart, caption=LONG_NAME)
    assert find_overlaps(figure) == []
    assert not any(text.get_parse_math() for text in figure.texts)
    assert traffic != "none" or figure.get_label() == "There were no requests, so there is nothing to compare."


@pytest.mark.slow
@pytest.mark.parametrize("chart", ["comparison", "fairness"])
def test_no_texts_overlap_with_several_clients(chart: str) -> None:
    assert find_overlaps(draw_scenario(chart, "noisy-neighbour")) == []


def test_the_window_chart_reaches_each_peak_in_two_areas() -> None:
    figure, comparison = draw_scenario("window", "overload"), compare_scenario("overload")
    for number, result in enumerate(comparison.results):
        below, above = measure_extents(get_axes(figure, number))
        assert below == (0, min(5, result.peak_in_window))
        assert above == (5, max(5, result.peak_in_window)), result.algorithm
    assert "peak 10, 2x the quota" in read_texts(figure)


def test_the_cumulative_chart_ends_at_admissions_and_has_the_quota() -> None:
    (axes,), comparison = draw_scenario("cumulative").axes, compare_scenario("burst")
    quota, *lines = axes.lines
    assert quota.get_xydata().tolist() == [[0, 5], [10, 25]]
    assert [line.get_ydata()[-1] for line in lines] == [result.admitted for result in comparison.results]
    assert measure_extents(axes) == [(0, 30)]
    assert [to_hex(line.get_color()) for line in lines] == list(assign_colors(COMPARED, "light").values())
    assert {"30 arrived", "quota: 5 + 2/s", "14 token-bucket", "11 sliding-counter"} <= {*read_texts(axes.figure)}


def test_arrivals_far_above_admissions_are_cut_off_with_an_arrow() -> None:
    figure = draw_scenario("cumulative", "noisy-neighbour")
    assert get_axes(figure, 0).get_ylim()[1] < 200
    assert "1,500 arrived ↑" in read_texts(figure)


def test_the_timeline_has_arrows_from_arrivals_to_departures() -> None:
    figure, delays = draw_scenario("timeline"), compare_scenario("burst").outcome("leaky-bucket").rows["delay_ns"]
    arrows = [path.vertices for path in get_axes(figure, 1).collections[-1].get_paths()]
    arrivals = compare_scenario("burst").traffic.times[delays > 0] / 1e9
    departures = arrivals + delays[delays > 0] / 1e9
    assert [start[0] for start, _ in arrows] == pytest.approx(arrivals)
    assert [end[0] for _, end in arrows] == pytest.approx(departures)
    for (start, end), (other_start, other_end) in combinations(arrows, 2):
        assert start[1] != other_start[1] or end[0] <= other_start[0] or other_end[0] <= start[0]
    assert "7 at once, 7 delayed, 16 denied" in read_texts(figure)


@pytest.mark.parametrize("scenario", ["slow-trickle", "boundary-burst"])
def test_the_timeline_has_admissions_above_and_denials_below(scenario: str) -> None:
    figure, intervals = draw_scenario("timeline", scenario), 220 if scenario == "slow-trickle" else 110
    for number, result in enumerate(compare_scenario(scenario).results):
        axes = get_axes(figure, number)
        interval = axes.get_xlim()[1] / intervals
        immediate, delayed, denied = (measure_area(area) / interval for area in axes.collections[:3])
        expected = (result.admitted - result.delayed, result.delayed, result.denied)
        assert (immediate, delayed, denied) == pytest.approx(expected, abs=1e-6), result.algorithm
        assert (measure_extents(axes)[2][1], measure_extents(axes)[0][0]) == (0, 0)


def replay_one(algorithm: str, rate: str, burst: int | None, traffic: Traffic) -> Comparison:
    """Replay traffic through one algorithm, with all fields of its decisions."""
    return compare([create(algorithm, rate, burst)], traffic, fields=Decision._fields)


def draw_queue(count: int) -> Any:
    """Draw the timeline of `count` simultaneous requests, all admitted, and all but one delayed."""
    times = np.full(count, 10**9)
    ones = np.ones(count, np.int64)
    traffic = Traffic(times, ones - 1, ones, ("alice",), np.zeros(1, np.int64), 30 * 10**9)
    return draw(replay_one("leaky-bucket", "2/s", 50, traffic), "timeline")


def test_delays_are_arrows_unless_there_are_too_many() -> None:
    assert len(get_axes(draw_queue(15), 0).collections[-1].get_paths()) == 14
    assert len(get_axes(draw_queue(41), 0).lines) == 2  # departures in each interval, and the axis


@pytest.mark.slow
def test_a_long_name_leaves_room_for_the_burst() -> None:
    for chart, end in (("window", "in the last 2.5 s; dashed: burst"), ("level", "over time; dashed: the burst of 5")):
        texts = read_texts(draw(compare_unusual("names"), chart))
        assert any("a-name-that-goes-on" in text and text.endswith(end) for text in texts)


def test_headings_name_the_client_or_all_clients() -> None:
    texts = read_texts(draw_scenario("comparison", "noisy-neighbour"))
    assert "all clients; up: admitted (faint: delayed), down: denied" in texts
    assert "departures of noisy in the last 2.5 s; dashed: burst" in texts


def test_an_axis_in_milliseconds_has_ticks_in_seconds() -> None:
    assert [format_time(time, "ms") for time in (0, 500, 1000, 1500)] == ["0", "500ms", "1s", "1.5s"]


def test_days_are_numbered_along_a_long_axis() -> None:
    times, ones = np.arange(3) * 1000 * 86400 * 10**9, np.ones(3, np.int64)
    traffic = Traffic(times, ones - 1, ones, ("alice",), np.zeros(1, np.int64), int(times[-1]) + 1)
    figure = draw(replay_one("gcra", "1/s", None, traffic), "cumulative")
    assert {"day 0", "1,000", "2,000"} <= {*read_texts(figure)}
    assert find_overlaps(figure) == []


def test_the_outcome_chart_has_a_number_for_each_bar() -> None:
    figure = draw_scenario("outcome")
    bars = [[round(bar.get_width()) for bar in axes.patches] for axes in figure.axes]
    assert bars == [[14, 0, 16], [7, 7, 16], [13, 0, 17], [12, 0, 18], [11, 0, 19]]
    assert [text for text in read_texts(figure) if text.isdigit()] == [str(width) for row in bars for width in row]


def test_the_title_of_the_level_chart_truncates_a_name_not_the_figure() -> None:
    times = np.arange(100) * 10**8
    names, clients = ("bob", LONG_NAME), np.minimum(np.arange(100) % 10, 1)
    traffic = Traffic(times, clients, np.ones(100, np.int64), names, np.arange(2), 10**10)
    title = str(draw(replay_one("token-bucket", "2/s", 5, traffic), "level").get_label())
    assert re.fullmatch(
        r"token-bucket had nothing left to grant a-name-that-goes-[a-z-]*… for \d+ % of the time\.", title
    )


def test_a_level_that_turns_too_often_is_drawn_as_a_band() -> None:
    times = np.arange(2000) * 10**9
    traffic = Traffic(times, times * 0, np.ones(2000, np.int64), ("a",), np.arange(1), 2000 * 10**9)
    figure = draw(replay_one("token-bucket", "2/s", 5, traffic), "level")
    assert "tokens in the bucket (range and approximate mean)" in read_texts(figure)
    mean = get_axes(figure, 0).lines[0].get_ydata()
    assert mean.tolist() == pytest.approx([4.5] * len(mean), abs=0.1)  # halfway between 4 and 5
    assert "tokens in the bucket" in read_texts(draw_scenario("level"))


def test_the_level_chart_labels_each_level() -> None:
    figure = draw_scenario("level")
    assert {"tokens in the bucket", "cost in the queue", "used in this window", "in the log"} <= {*read_texts(figure)}
    tokens = get_axes(figure, 0).lines[0].get_ydata()
    assert (tokens[0], min(tokens), max(tokens)) == (5, pytest.approx(0.06, abs=0.01), 5)


def test_the_fairness_chart_has_a_bar_per_client_most_denied_first() -> None:
    figure, results = draw_scenario("fairness", "noisy-neighbour"), compare_scenario("noisy-neighbour").results
    widths = [bar.get_width() for bar in get_axes(figure, 0).patches][11:]
    assert widths == pytest.approx([results[0].client_admitted[0] / 1500, *[1.0] * 10])
    assert "noisy" in read_texts(figure)
    assert {"worst served", "best served"} <= {*read_texts(draw_scenario("fairness", "thundering-herd"))}


def test_a_few_denied_of_many_clients_are_visible_and_counted() -> None:
    base, count = compare_unusual("one"), 10_000
    clients, ones = np.arange(count), np.ones(count, np.int64)
    traffic = Traffic(clients, clients, ones, tuple(map(str, clients)), clients, count)
    columns = {**dict.fromkeys(Decision._fields, np.zeros(count, np.int64)), "allowed": clients % 4000 != 0}
    outcomes = tuple(Outcome(outcome.policy, traffic, columns) for outcome in base.outcomes)
    results = tuple(measure(outcome, None) for outcome in outcomes)
    figure = draw(Comparison(traffic, outcomes, None, results), "fairness")
    full, shares = get_axes(figure, 0).patches
    assert (shares.get_data().values < full.get_data().values).tolist() == [True] * 3 + [False] * 13
    assert {"3 denied", "rank 16 of 10,000"} <= {*read_texts(figure)}
