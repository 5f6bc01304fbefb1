"""Charts: they agree with the figures, have titles with their findings, and are legible for any traffic."""

from __future__ import annotations

import re
from importlib import import_module
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from chart_inspection import LONG, area, compared, drawn, odd, overlapping, panel, reaches, written
from matplotlib.colors import to_hex

from ratelab import Decision, create
from ratelab.algorithms import COMPARED
from ratelab.lab.comparison import Comparison, compare
from ratelab.lab.decisions import Outcome
from ratelab.lab.metrics import measure
from ratelab.lab.traffic import Traffic
from ratelab.report.charts import CHARTS, draw
from ratelab.report.charts.style import colours, moment
from ratelab.report.charts.view import ComparisonView

TITLES = {
    "comparison": "fixed-window let 120 through in a window of 1min, above the quota of 60; ",
    "window": "fixed-window let 120 through in a window of 1min, above the quota of 60; ",
    "cumulative": "Of 120 requests, sliding-log and sliding-counter denied 60, fixed-window none; ",
    "timeline": "Of 120 requests, sliding-log and sliding-counter denied 60, fixed-window none; ",
    "outcome": "Of 120 requests, sliding-log and sliding-counter denied 60, fixed-window none; ",
    "level": "fixed-window and sliding-log had nothing left for 33 % of the time, ",
    "fairness": "There is one client at most, so nobody fares worse than another.",
}


def test_every_chart_has_its_finding_as_title() -> None:
    assert sorted(TITLES) == sorted(CHARTS)
    view = ComparisonView(compared("boundary-burst"), "light")
    for chart, title in TITLES.items():
        assert import_module(f"ratelab.report.charts.{chart}").finding(view).startswith(title), chart
    assert drawn("cumulative", "boundary-burst").get_label().startswith(TITLES["cumulative"])


@pytest.mark.parametrize("chart", ["outcome", "level"])
def test_a_title_counts_requests_that_cost_more_than_the_burst(chart: str) -> None:
    title = str(draw(odd("denied"), chart).get_label())
    assert title.endswith("50 requests cost more than the burst of 5 and can never be admitted.")


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
    figure = draw(odd(traffic), chart, caption=LONG)
    assert overlapping(figure) == []
    assert not any(text.get_parse_math() for text in figure.texts)
    assert traffic != "none" or figure.get_label() == "There were no requests, so there is nothing to compare."


@pytest.mark.parametrize("chart", ["comparison", "fairness"])
def test_no_texts_overlap_with_several_clients(chart: str) -> None:
    assert overlapping(drawn(chart, "noisy-neighbour")) == []


def test_the_window_chart_reaches_each_peak_in_two_areas() -> None:
    figure, comparison = drawn("window", "overload"), compared("overload")
    for number, result in enumerate(comparison.results):
        below, above = reaches(panel(figure, number))
        assert below == (0, min(5, result.peak_in_window))
        assert above == (5, max(5, result.peak_in_window)), result.algorithm
    assert "10, 2x the quota" in written(figure)


def test_the_cumulative_chart_ends_at_admissions_and_has_the_quota() -> None:
    (axes,), comparison = drawn("cumulative").axes, compared("burst")
    quota, *lines = axes.lines
    assert quota.get_xydata().tolist() == [[0, 5], [10, 25]]
    assert [line.get_ydata()[-1] for line in lines] == [result.admitted for result in comparison.results]
    assert reaches(axes) == [(0, 30)]
    assert [to_hex(line.get_color()) for line in lines] == list(colours(COMPARED, "light").values())
    assert {"30 arrived", "5 + 2/s in all", "14 token-bucket", "11 sliding-counter"} <= {*written(axes.figure)}


def test_arrivals_far_above_admissions_are_cut_off_with_a_note() -> None:
    figure = drawn("cumulative", "noisy-neighbour")
    assert panel(figure, 0).get_ylim()[1] < 200
    assert "1,500 arrived ↑" in written(figure)


def test_the_timeline_has_arrows_from_arrivals_to_departures() -> None:
    figure, made = drawn("timeline"), compared("burst").outcome("leaky-bucket").rows
    arrows = [path.vertices for path in panel(figure, 1).collections[-1].get_paths()]
    arrived = compared("burst").traffic.times[made["delay_ns"] > 0] / 1e9
    left = arrived + made["delay_ns"][made["delay_ns"] > 0] / 1e9
    assert [start[0] for start, _ in arrows] == pytest.approx(arrived)
    assert [end[0] for _, end in arrows] == pytest.approx(left)
    for (start, end), (other_start, other_end) in combinations(arrows, 2):
        assert start[1] != other_start[1] or end[0] <= other_start[0] or other_end[0] <= start[0]
    assert "7 at once, 7 later, 16 denied" in written(figure)


@pytest.mark.parametrize("scenario", ["slow-trickle", "boundary-burst"])
def test_the_timeline_has_admissions_above_and_denials_below(scenario: str) -> None:
    figure, parts = drawn("timeline", scenario), 220 if scenario == "slow-trickle" else 110
    for number, result in enumerate(compared(scenario).results):
        axes = panel(figure, number)
        part = axes.get_xlim()[1] / parts
        at_once, later, denied = (area(one) / part for one in axes.collections[:3])
        expected = (result.admitted - result.delayed, result.delayed, result.denied)
        assert (at_once, later, denied) == pytest.approx(expected, abs=1e-6), result.algorithm
        assert (reaches(axes)[2][1], reaches(axes)[0][0]) == (0, 0)


def replayed(algorithm: str, rate: str, burst: int | None, traffic: Traffic) -> Comparison:
    """Replay traffic through one algorithm, with all fields of its decisions."""
    return compare([create(algorithm, rate, burst)], traffic, fields=Decision._fields)


def queued(count: int) -> Any:
    """Draw the timeline of `count` requests at once, all of which are queued."""
    times = np.full(count, 10**9)
    ones = np.ones(count, np.int64)
    traffic = Traffic(times, ones - 1, ones, ("alice",), np.zeros(1, np.int64), 30 * 10**9)
    return draw(replayed("leaky-bucket", "2/s", 50, traffic), "timeline")


def test_waits_are_arrows_unless_there_are_too_many() -> None:
    assert len(panel(queued(15), 0).collections[-1].get_paths()) == 14
    assert len(panel(queued(41), 0).lines) == 2  # departures in each part of the time axis, and the axis


def test_a_long_name_leaves_room_for_the_burst() -> None:
    for chart, end in (("window", "in the last 2.5s, against 5"), ("level", ", up to the burst of 5")):
        assert any("a-name-that-goes-on" in text and text.endswith(end) for text in written(draw(odd("names"), chart)))


def test_headings_name_the_client_or_all_clients() -> None:
    texts = written(drawn("comparison", "noisy-neighbour"))
    assert "all clients, up: admitted (light: later), down: denied" in texts
    assert "what left of noisy in the last 2.5s, against 5" in texts


def test_an_axis_in_milliseconds_has_ticks_in_seconds() -> None:
    assert [moment(time, "ms") for time in (0, 500, 1000, 1500)] == ["0", "500ms", "1s", "1.5s"]


def test_days_are_numbered_along_a_long_axis() -> None:
    times, one = np.arange(3) * 1000 * 86400 * 10**9, np.ones(3, np.int64)
    traffic = Traffic(times, one - 1, one, ("alice",), np.zeros(1, np.int64), int(times[-1]) + 1)
    figure = draw(replayed("gcra", "1/s", None, traffic), "cumulative")
    assert {"day 0", "1,000", "2,000"} <= {*written(figure)}
    assert overlapping(figure) == []


def test_the_outcome_chart_has_a_number_for_each_bar() -> None:
    figure = drawn("outcome")
    bars = [[round(bar.get_width()) for bar in axes.patches] for axes in figure.axes]
    assert bars == [[14, 0, 16], [7, 7, 16], [13, 0, 17], [12, 0, 18], [11, 0, 19]]
    assert [text for text in written(figure) if text.isdigit()] == [str(width) for row in bars for width in row]


def test_the_title_of_levels_cuts_a_long_name_but_not_the_figure() -> None:
    times = np.arange(100) * 10**8
    names, clients = ("bob", LONG), np.minimum(np.arange(100) % 10, 1)
    asked = Traffic(times, clients, np.ones(100, np.int64), names, np.arange(2), 10**10)
    title = str(draw(replayed("token-bucket", "2/s", 5, asked), "level").get_label())
    assert re.fullmatch(r"token-bucket left a-name-that-goes-[a-z-]*… nothing for \d+ % of the time\.", title)


def test_a_level_that_turns_too_often_is_drawn_as_a_band() -> None:
    times = np.arange(2000) * 10**9
    asked = Traffic(times, times * 0, np.ones(2000, np.int64), ("a",), np.arange(1), 2000 * 10**9)
    figure = draw(replayed("token-bucket", "2/s", 5, asked), "level")
    assert "tokens in the bucket: range and, roughly, mean" in written(figure)
    mean = panel(figure, 0).lines[0].get_ydata()
    assert mean.tolist() == pytest.approx([4.5] * len(mean), abs=0.1)  # halfway between 4 and 5
    assert "tokens in the bucket" in written(drawn("level"))


def test_the_level_chart_labels_each_level() -> None:
    figure = drawn("level")
    assert {"tokens in the bucket", "cost in the queue", "used in this window", "in the log"} <= {*written(figure)}
    tokens = panel(figure, 0).lines[0].get_ydata()
    assert (tokens[0], min(tokens), max(tokens)) == (5, pytest.approx(0.06, abs=0.01), 5)


def test_the_fairness_chart_has_a_bar_per_client_most_denied_first() -> None:
    figure, results = drawn("fairness", "noisy-neighbour"), compared("noisy-neighbour").results
    widths = [bar.get_width() for bar in panel(figure, 0).patches][11:]
    assert widths == pytest.approx([results[0].client_admitted[0] / 1500, *[1.0] * 10])
    assert "noisy" in written(figure)
    assert {"worst served", "best served"} <= {*written(drawn("fairness", "thundering-herd"))}


def test_a_few_denied_of_many_clients_are_visible_and_counted() -> None:
    few, count = odd("one"), 10_000
    clients, ones = np.arange(count), np.ones(count, np.int64)
    traffic = Traffic(clients, clients, ones, tuple(map(str, clients)), clients, count)
    columns = {**dict.fromkeys(Decision._fields, np.zeros(count, np.int64)), "allowed": clients % 4000 != 0}
    outcomes = tuple(Outcome(outcome.policy, traffic, columns) for outcome in few.outcomes)
    results = tuple(measure(outcome, None) for outcome in outcomes)
    figure = draw(Comparison(traffic, outcomes, None, results), "fairness")
    full, shares = panel(figure, 0).patches
    assert (shares.get_data().values < full.get_data().values).tolist() == [True] * 3 + [False] * 13
    assert {"3 denied", "rank 16 of 10,000"} <= {*written(figure)}
