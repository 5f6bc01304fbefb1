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
    compare_dated,
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
from slow_parameters import mark_slow

from ratelab import create
from ratelab.algorithms import COMPARED
from ratelab.lab import LOOP_CHARTS, POLICY_CHARTS
from ratelab.lab.comparison import Comparison, compare
from ratelab.lab.traffic import Traffic
from ratelab.limiter import ROW_FIELDS
from ratelab.report.charts import CHARTS, SUBJECTS, draw
from ratelab.report.charts.canvas import NARROW_WIDTH_IN
from ratelab.report.charts.style import assign_colors
from ratelab.report.charts.view import ComparisonView

TITLES = {
    "comparison": "fixed-window let 120 through in a window of 1 min and token-bucket 61, above the quota of 60; ",
    "window": "fixed-window let 120 through in a window of 1 min and token-bucket 61, above the quota of 60; ",
    "cumulative": "Of 120 requests, sliding-log and sliding-counter denied 60 (50 %), token-bucket ",
    "timeline": "Of 120 requests, sliding-log and sliding-counter denied 60 (50 %), token-bucket ",
    "outcome": "Of 120 requests, sliding-log and sliding-counter denied 60 (50 %), token-bucket ",
    "level": "fixed-window had nothing left to grant for 33.2 % of the time, sliding-log for 33 %, ",
    "fairness": "There is at most one client, so there is nothing to compare between clients.",
    "denials": "mallory was denied most: sliding-log and sliding-counter denied 60 of 120 requests (50 %), ",
}


def test_the_title_of_every_chart_states_its_finding() -> None:
    assert sorted(TITLES) == sorted(CHARTS)
    assert {*CHARTS, *POLICY_CHARTS, *LOOP_CHARTS} == SUBJECTS.keys()
    view = ComparisonView(compare_scenario("boundary-burst"), "light")
    for chart, title in TITLES.items():
        assert import_module(f"ratelab.report.charts.{chart}").compose_title(view).startswith(title), chart
    assert draw_scenario("cumulative", "boundary-burst").get_label().startswith(TITLES["cumulative"])


@pytest.mark.parametrize("chart", mark_slow(["outcome", "level"], ["outcome"]))
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


@pytest.mark.parametrize("scenario", mark_slow(["burst", "overload"], ["burst"]))  # the second in detail
def test_the_window_chart_reaches_each_peak_in_two_areas(scenario: str) -> None:
    figure, comparison = draw_scenario("window", scenario), compare_scenario(scenario)
    for number, result in enumerate(comparison.results):
        below, above = measure_extents(get_axes(figure, number))
        assert below == (0, min(5, result.peak_in_window))
        assert above == (5, max(5, result.peak_in_window)), result.algorithm
        note = f"{result.peak_in_window:,} (at " if scenario == "overload" else f"at most {result.peak_in_window:,}"
        assert any(text.startswith(note) for text in read_texts(figure))


@pytest.mark.slow
def test_every_number_of_the_title_is_in_the_window_chart() -> None:
    figure = draw(compare_dated(), "window")
    title, *texts = str(figure.get_label()), *read_texts(figure)
    body = " ".join(texts[len(title.split(";")) :])
    for number in re.findall(r"(\d+) through|-\w+ (\d+)", title):
        assert f"{number[0] or number[1]} (" in body
    assert "(client-1, 17 May 11:05)" in body
    assert find_overlaps(figure) == []


def test_the_cumulative_chart_ends_at_admissions_and_has_the_quota() -> None:
    (axes,), comparison = draw_scenario("cumulative").axes, compare_scenario("burst")
    quota, *lines = axes.lines
    assert quota.get_xydata().tolist() == [[0, 5], [10, 25]]
    assert [line.get_ydata()[-1] for line in lines] == [result.admitted for result in comparison.results]
    assert measure_extents(axes) == [(0, 30)]
    assert [to_hex(line.get_color()) for line in lines] == list(assign_colors(COMPARED, "light").values())
    assert {"30 arrived", "5 + 2/s", "14 token-bucket", "11 sliding-counter"} <= {*read_texts(axes.figure)}


@pytest.mark.slow
def test_arrivals_far_above_admissions_are_cut_off_with_an_arrow() -> None:
    figure = draw_scenario("cumulative", "noisy-neighbour")
    assert get_axes(figure, 0).get_ylim()[1] < 200
    assert "1,500 arrived ↑" in read_texts(figure)


@pytest.mark.slow
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


@pytest.mark.parametrize("scenario", mark_slow(["slow-trickle", "boundary-burst"], ["boundary-burst"]))
def test_the_timeline_has_admissions_above_and_denials_below(scenario: str) -> None:
    figure = draw_scenario("timeline", scenario)
    for number, result in enumerate(compare_scenario(scenario).results):
        axes = get_axes(figure, number)
        interval = axes.get_xlim()[1] / 220 if scenario == "slow-trickle" else 2 / 60  # 2 s
        immediate, delayed, denied = (measure_area(area) / interval for area in axes.collections[:3])
        expected = (result.admitted - result.delayed, result.delayed, result.denied)
        assert (immediate, delayed, denied) == pytest.approx(expected, abs=1e-6), result.algorithm
        assert (measure_extents(axes)[2][1], measure_extents(axes)[0][0]) == (0, 0)


def replay_one(algorithm: str, rate: str, burst: int | None, traffic: Traffic) -> Comparison:
    """Replay traffic through one algorithm, with all fields of its decisions."""
    return compare([create(algorithm, rate, burst)], traffic, fields=ROW_FIELDS)


def draw_queue(count: int) -> Any:
    """Draw the timeline of `count` simultaneous requests, all admitted, and all but one delayed."""
    times = np.full(count, 10**9)
    ones = np.ones(count, np.int64)
    traffic = Traffic(times, ones - 1, ones, ("alice",), np.zeros(1, np.int64), 30 * 10**9)
    return draw(replay_one("leaky-bucket", "2/s", 50, traffic), "timeline")


@pytest.mark.slow
def test_delays_are_arrows_unless_there_are_too_many() -> None:
    assert len(get_axes(draw_queue(15), 0).collections[-1].get_paths()) == 14
    assert len(get_axes(draw_queue(41), 0).lines) == 2  # departures in each interval, and the axis


@pytest.mark.slow
def test_a_long_name_leaves_room_for_the_burst() -> None:
    for chart, end in (("window", "The dashed line is the quota of 5."), ("level", "is the full burst of 5.")):
        text = " ".join(read_texts(draw(compare_unusual("names"), chart)))
        assert "a-name-that-goes-on" in text
        assert end in text


@pytest.mark.slow
def test_headings_name_the_client_or_all_clients() -> None:
    text = " ".join(read_texts(draw_scenario("comparison", "noisy-neighbour")))
    assert "Requests of all clients in parts of 500 ms: admitted ones point up, denied ones (gray) point down." in text
    assert "Requests of noisy let through in the last 2.5 s, at each moment." in text
    assert "The lines of fixed-window and sliding-log are the same." in text


@pytest.mark.slow
@pytest.mark.parametrize("chart", CHARTS)
def test_a_chart_describes_its_colors_for_either_theme(chart: str) -> None:
    words = {word for text in read_texts(draw_scenario(chart, "noisy-neighbour", "dark")) for word in text.split()}
    assert not words & {"dark", "darker", "light", "lighter", "black", "white"}


def test_the_two_directions_of_the_timeline_have_signs() -> None:
    texts = read_texts(draw_scenario("timeline"))
    assert {"5", "0", "\N{MINUS SIGN}10"} <= {*texts}


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


@pytest.mark.slow
def test_a_level_that_turns_too_often_is_drawn_as_a_band() -> None:
    times = np.arange(1000) * 10**8
    traffic = Traffic(times, times * 0, np.ones(1000, np.int64), ("a",), np.arange(1), 100 * 10**9)
    figure = draw(replay_one("token-bucket", "20/s", 50, traffic), "level")
    assert "range and approximate mean" in read_texts(figure)
    mean = get_axes(figure, 0).lines[0].get_ydata()
    assert mean.tolist() == pytest.approx([49.5] * len(mean), abs=0.25)  # halfway between 49 and 50
    assert "range and approximate mean" not in read_texts(draw_scenario("level"))


@pytest.mark.slow
def test_up_means_quota_left_for_every_algorithm() -> None:
    figure, comparison = draw_scenario("level"), compare_scenario("burst")
    for number, outcome in enumerate(comparison.outcomes):
        axes = get_axes(figure, number)
        left, places = axes.lines[0].get_ydata(), axes.lines[0].get_xdata()
        assert (left[0], left.max()) == (5, 5), outcome.policy.name
        exhausted = left[(places > 3.2) & (places < 3.4)]  # all are exhausted by the burst at 3 s
        assert exhausted.max() < 1.2, outcome.policy.name
    tokens = get_axes(figure, 0).lines[0].get_ydata()
    assert min(tokens) == pytest.approx(0.06, abs=0.01)


@pytest.mark.slow
def test_waits_beyond_the_client_timeout_are_a_part_of_their_own() -> None:
    texts = read_texts(draw_scenario("outcome", "boundary-burst"))
    assert {"too late", "50", "59"} <= {*texts}
    assert "Too late: delayed beyond the client timeout of 10 s." in " ".join(texts)


NARROW = [(chart, "noisy-neighbour") for chart in CHARTS]
NARROW += [("comparison", scenario) for scenario in ("burst", "thundering-herd", "diurnal")]  # it contains four others


@pytest.mark.slow
@pytest.mark.parametrize(("chart", "scenario"), [*NARROW, ("level", "diurnal"), ("denials", "thundering-herd")])
def test_a_narrow_chart_has_no_overlapping_texts(chart: str, scenario: str) -> None:
    figure = draw(compare_scenario(scenario), chart, layout="narrow", caption=scenario)
    assert figure.get_size_inches()[0] == NARROW_WIDTH_IN
    assert find_overlaps(figure) == []


@pytest.mark.slow
def test_a_bare_chart_has_its_title_in_the_metadata_alone() -> None:
    figure = draw(compare_scenario("burst"), "outcome", bare=True)
    assert str(figure.get_label()).startswith("Of 30 requests, ")
    assert not any(text.startswith("Of 30 requests") for text in read_texts(figure))
