"""The axis of time: round labels, dates, and long traffic around its fullest window."""

from __future__ import annotations

from typing import Any

import pytest
from chart_inspection import (
    MAY_17,
    compare_dated,
    find_overlaps,
    read_texts,
)
from hypothesis import given
from hypothesis import strategies as st

from ratelab.report.charts import draw
from ratelab.report.charts.time_axis import TimeAxis
from ratelab.report.charts.view import ComparisonView


@pytest.mark.slow
def test_a_long_time_is_shown_around_the_fullest_window() -> None:
    view = ComparisonView(compare_dated(), "light")
    assert view.detail.end - view.detail.begin == 5 * 60 * 10**9  # at least 8 windows of 30 s
    assert view.comparison.fullest is not None
    assert view.detail.begin < view.comparison.fullest.begin < view.detail.end - view.comparison.quota.window
    for chart in ("cumulative", "level"):
        figure = draw(view.comparison, chart)
        text = " ".join(read_texts(figure))
        assert "in the 5 min around its fullest window" in text
        assert "17 May 2015" in text
        assert find_overlaps(figure) == []
    lines: Any = draw(view.comparison, "cumulative").axes[0].lines[1:]
    for result, line in zip(view.results, lines, strict=True):  # the lines count from the beginning of the part
        assert 0 < line.get_ydata()[-1] < result.admitted


def label_times(begin: int, end: int, origin: int | None, width: float) -> list[str]:
    return [tick.label for tick in TimeAxis(begin, end, origin).choose_ticks(width)]


@pytest.mark.parametrize(
    ("begin", "end", "origin", "labels"),
    [
        (0, 1.5, None, ["0", "500 ms", "1 s", "1.5 s"]),
        (0, 10, None, ["0", "2 s", "4 s", "6 s", "8 s", "10 s"]),
        (65, 185, None, ["90 s", "120 s", "150 s", "180 s"]),
        (0, 3000 * 86400, None, ["0", *(f"{days:,} days" for days in range(500, 3001, 500))]),
        (0, 20, MAY_17, ["10:05:00\n17 May 2015", "10:05:05", "10:05:10", "10:05:15", "10:05:20"]),
        (70_000, 79_000, MAY_17, ["06:00\n18 May 2015", "07:00", "08:00"]),
        (0, 300_000, MAY_17, ["18 May\n2015", "19 May", "20 May"]),
        (0, 30 * 86400, MAY_17, ["18 May\n2015", "25 May", "1 Jun", "8 Jun", "15 Jun"]),
        (0, 400 * 86400, MAY_17, ["Jul\n2015", "Oct", "Jan\n2016", "Apr"]),
        (0, 2000 * 86400, MAY_17, ["2016", "2017", "2018", "2019", "2020"]),
    ],
)
def test_times_are_round_and_have_dates_if_the_traffic_has(
    begin: float, end: float, origin: int | None, labels: list[str]
) -> None:
    assert label_times(int(begin * 10**9), int(end * 10**9), origin, 4.2) == labels


@given(
    begin=st.integers(0, 10**18), length=st.integers(1, 10**18), origin=st.sampled_from([None, 10**18]),
    width=st.floats(1.5, 8),
)  # fmt: skip
def test_labels_of_times_are_distinct_and_in_their_places(
    begin: int, length: int, origin: int | None, width: float
) -> None:
    axis = TimeAxis(begin, begin + length, origin)
    ticks = axis.choose_ticks(width)
    places = [tick.place for tick in ticks]
    assert all(0 <= place <= axis.length * (1 + 1e-9) for place in places)
    assert places == sorted({*places})
    assert len(ticks) <= width / 0.55 + 1
